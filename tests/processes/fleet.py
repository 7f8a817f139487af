"""Several `bff serve` over one Redis, as behind a load balancer, and the requests that reach them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

import msgspec
import pytest

from benchmarks.proxy.programs import free_port
from bff.sealing import Keyring, new_key
from bff.sessions.connect import connect
from bff.sessions.lifetime import Lifetime
from bff.sessions.record import Codec, SessionRecord, digest
from bff.sessions.store import Saved, SessionStore
from bff.settings import load
from tests.processes.redis_server import RedisServer, redis_server
from tests.processes.rotation import Family, Fault, RotatingProvider, rotating_provider
from tests.support.browser import Browser
from tests.support.stack import PATIENT_WITH_REDIS, environment
from tests.support.upstream import Request, ScriptedUpstream, Wire, ok, scripted_upstream
from tests.support.wire import Answer, Closed, Line, exchange, until

HOST = "localhost:5003"
LEFT = {"dead": -5.0, "due": 20.0, "fresh": 290.0}
"""Seconds that the access token of a planted session has left, of 300."""


class Node:
    """One `bff serve`, with one worker, in a process group of its own."""

    def __init__(self, port: int, environ: dict[str, str], output: Path, before: str) -> None:
        """`before` is Python that runs first."""
        self.port = port
        self._output = output
        with output.open("wb") as file:
            command = [sys.executable, "-c", f"{before}\nfrom bff.cli import main\nmain()", "serve"]
            self._process = subprocess.Popen(
                command, env=environ, stdout=file, stderr=file, start_new_session=True
            )

    @property
    def worker(self) -> int:
        """The id of the process that answers: the child of the one that watches over it."""
        if not Path("/proc").is_dir():
            pytest.skip("looks for processes in /proc")
        pid = self._process.pid
        return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])

    @property
    def threads(self) -> int:
        """How many threads the worker has."""
        status = Path(f"/proc/{self.worker}/status").read_text()
        return int(status.split("Threads:")[1].split()[0])

    @property
    def output(self) -> str:
        return self._output.read_text()

    def get(self, target: str, visitor: Visitor | None = None) -> Answer:
        return exchange(self.port, request("GET", target, visitor))

    def post(self, target: str, visitor: Visitor) -> Answer:
        return exchange(self.port, request("POST", target, visitor))

    def ready(self) -> bool:
        """Whether it answers, and knows its provider and its store."""
        with contextlib.suppress(OSError, Closed):
            return self.get("/health/ready").status == 200
        return False

    def alive(self) -> bool:
        return self.get("/health/live").status == 200

    def terminate(self) -> None:
        """Ask it to end."""
        self._process.send_signal(signal.SIGTERM)

    def code(self) -> int:
        """Its exit code, once it has ended."""
        return self._process.wait(40)

    def kill(self) -> None:
        """End all of it at once, as a machine that loses its power."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


@dataclass(frozen=True)
class Visitor:
    """Somebody who is signed in."""

    cookie: str
    family: Family

    @property
    def digest(self) -> str:
        return digest(self.cookie)

    @property
    def first(self) -> str:
        """What reaches the upstream with the token that the session began with."""
        return "Bearer " + self.family.access[0]

    @property
    def newest(self) -> str:
        """The same with the token that the provider issued last."""
        return "Bearer " + self.family.access[-1]


class Fleet:
    """Everything around the nodes, and the way to start one."""

    def __init__(
        self,
        stack: ExitStack,
        toml: str = "",
        redis_url: str | None = None,
        *,
        patient: bool = True,
        **settings: str,
    ) -> None:
        """`settings` are named as in `BFF_…`, in lower case; UPSTREAM in `toml` is the upstream's URL.
        Without a `redis_url`, a Redis is started. A `patient` fleet gives one that stands still, on a busy
        machine, more time than it has in earnest."""
        self._before = PATIENT_WITH_REDIS if patient else ""
        self._stack = stack
        if redis_url is None:
            self.redis: RedisServer = stack.enter_context(redis_server())
            redis_url = self.redis.url
        self.provider: RotatingProvider = stack.enter_context(rotating_provider())
        self.upstream: ScriptedUpstream = stack.enter_context(scripted_upstream())
        self._folder = Path(stack.enter_context(TemporaryDirectory()))
        base = environment(5003, self.provider, redis_url, self.upstream.url)
        base |= {"BFF_SECRET_KEYS": new_key(), "BFF_WORKERS": "1", "BFF_LOG_FORMAT": "json"}
        config = self._folder / "bff.toml"
        config.write_text(toml.replace("UPSTREAM", self.upstream.url))
        base |= {"BFF_CONFIG": str(config)}
        self._environ = base | {f"BFF_{name.upper()}": value for name, value in settings.items()}
        self._settings = load(self._environ)
        lifetime = Lifetime(self._settings.session_idle_seconds, self._settings.session_max_seconds)
        codec = Codec(Keyring(self._settings.keys), self._settings.redis_prefix)
        self.client = stack.enter_context(connect(self._settings.redis_address, connections=4))
        self.store = SessionStore(self.client, codec, lifetime, time.time)
        self.nodes: list[Node] = []
        self.reset()

    def start(self, number: int = 1) -> list[Node]:
        """Start so many more nodes and wait until they are ready; for one test, which kills them."""
        started = [self._launch(free_port()) for _ in range(number)]
        for node in started:
            assert until(node.ready, within=20), node.output
        return started

    def replace(self, node: Node) -> Node:
        """Another node in the place of one that has ended; ready."""
        found = self._launch(node.port)
        assert until(found.ready, within=20), found.output
        return found

    def _launch(self, port: int) -> Node:
        environ = self._environ | {"BFF_BIND": f"127.0.0.1:{port}", "PATH": os.environ["PATH"]}
        node = Node(port, environ, self._folder / str(port), self._before)
        self._stack.callback(node.kill)
        return node

    def reset(self) -> None:
        """No trouble, and an upstream that says which token it was sent."""
        self.provider.fault = None
        self.upstream.script = tell_token
        self.upstream.requests.clear()

    def plant(self, token: str, fault: Fault | None = None, *, grace: bool = False) -> Visitor:
        """Somebody who has signed in on the first node, with an access token that is `dead`, `due` or
        `fresh`; `fault` and `grace` are the provider's from now on."""
        browser, done = self.sign_in(self.nodes[0])
        assert done.status == 200, done.text
        cookie = cast("str", browser.session)
        record = cast("SessionRecord", self.store.load(digest(cookie)))
        family = self.provider.family_of(cast("str", record.tokens.refresh_token))
        assert family is not None
        family.fault, family.grace = fault, grace
        end = time.time() + LEFT[token]
        tokens = msgspec.structs.replace(record.tokens, obtained_at=end - 300, expires_at=end)
        assert self.store.save_tokens(record, tokens) is Saved.SAVED
        return Visitor(cookie, family)

    def age(self, visitor: Visitor, seconds: float) -> None:
        """As if the session had been seen so long ago: a slide is due."""
        self.client.hset(self.store.codec.key(visitor.digest), "s", repr(time.time() - seconds))

    def record(self, visitor: Visitor) -> SessionRecord | None:
        """What Redis holds of the session."""
        return self.store.load(visitor.digest)

    @property
    def questions(self) -> int:
        """How often Redis has been asked for a session by a proxied request."""
        asked: int = self.client.info("commandstats").get("cmdstat_hmget", {}).get("calls", 0)
        return asked

    def saved(self, visitor: Visitor) -> bool:
        """Whether Redis holds what the provider issued last, and that is not what it began with."""
        record = self.record(visitor)
        family = visitor.family
        return (
            record is not None
            and len(family.tokens) > 1
            and record.tokens.refresh_token == family.tokens[-1]
            and record.tokens.access_token == family.access[-1]
        )

    def keys(self, visitor: Visitor) -> list[bytes]:
        """All Redis keys that belong to the session, but for the note that says why it has ended."""
        found: list[bytes] = self.client.keys(f"*{visitor.digest}*")
        return [key for key in found if not key.endswith(b":ended")]

    def end_pause(self, visitor: Visitor) -> None:
        """As if the pause after a refresh were over."""
        self.client.delete(self.store.codec.key(visitor.digest) + ":lease")

    def prolong_pause(self, visitor: Visitor) -> bool:
        """Let the pause after a refresh last for as long as a test takes; whether there is one."""
        lease = self.store.codec.key(visitor.digest) + ":lease"
        return self.client.get(lease) == b"pause" and bool(self.client.expire(lease, 60))

    def sign_in(self, node: Node) -> tuple[Browser, Answer]:
        """A whole sign-in on that node; the browser, and what it was told at the end."""
        browser = Browser(node.port, f"http://{HOST}")
        login = browser.get("/bff/login?returnUrl=/")
        assert login.status == 302, login.text
        return browser, browser.callback(self.provider.authorize(login.get("location")))


def tell_token(wire: Wire, request: Request) -> object:
    """Answers with the Authorization header that came."""
    wire.body(request)
    wire.send(ok(request.get("authorization").encode(), b"content-type: text/plain"))
    return True


def request(method: str, target: str, visitor: Visitor | None = None) -> bytes:
    """The bytes of a request as our own script sends it."""
    lines = [f"{method} {target} HTTP/1.1", f"Host: {HOST}", "X-CSRF: 1", "Connection: close"]
    lines += ["Content-Length: 0"] if method == "POST" else []
    lines += [f"Cookie: bff={visitor.cookie}"] if visitor else []
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


@contextmanager
def asked(requests: Iterable[tuple[Node, Visitor]], target: str = "/weather") -> Iterator[list[Line]]:
    """GET from all of them at once, without a thread for each; the connections, to read answers from."""
    lines = []
    try:
        for node, visitor in requests:
            connection = Line(node.port, timeout=20)
            lines.append(connection)
            connection.send(request("GET", target, visitor))
        yield lines
    finally:
        for connection in lines:
            connection.close()


def answers(lines: Iterable[Line]) -> list[Answer]:
    return [connection.answer() for connection in lines]


def outcomes(lines: Iterable[Line]) -> set[tuple[int, str]]:
    """The different answers: status, and body or code."""
    found = answers(lines)
    return {(each.status, each.text if each.status == 200 else each.code) for each in found}


@contextmanager
def fleet(
    number: int, toml: str = "", redis_url: str | None = None, *, patient: bool = True, **settings: str
) -> Iterator[Fleet]:
    """A fleet with so many nodes for the length of a block."""
    with ExitStack() as stack:
        found = Fleet(stack, toml, redis_url, patient=patient, **settings)
        found.nodes = found.start(number)
        yield found
