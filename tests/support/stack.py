"""A whole BFF on a free port with everything around it: provider, store, upstream and browsers."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import redis
import uvicorn
from fakeredis import TcpFakeServer

from benchmarks.proxy.programs import free_port
from bff.answers import CommonHeaders
from bff.app import create_app
from bff.asgi import ASGIApp
from bff.connection import Protocol
from bff.instruments import Plane
from bff.sealing import Keyring, new_key
from bff.sessions.lifetime import Lifetime
from bff.sessions.record import WHO, Codec, Meta, digest, new_sid
from bff.sessions.store import SessionStore
from bff.settings import Settings, load
from bff.streams import Streams
from bff.tokens import TokenSet
from bff.worker import Server
from tests.support.browser import Browser
from tests.support.provider import CLIENT_ID, CLIENT_SECRET, ScriptedProvider, scripted_provider
from tests.support.upstream import ScriptedUpstream, scripted_upstream
from tests.support.wire import until

REAL_REDIS = shutil.which("redis-server")


class Clock:
    """The time of day, which a test can move."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


class Store:
    """A Redis that can be taken away and brought back: a real one where there is one, else a double."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._double: TcpFakeServer | None = None
        if REAL_REDIS:
            self.url = f"unix://{folder}/redis.sock"
        else:
            self.url = f"redis://127.0.0.1:{free_port()}/0"
        self.start()

    def start(self) -> None:
        if REAL_REDIS:
            options = ["--port", "0", "--unixsocket", str(self._folder / "redis.sock"), "--save", ""]
            options += ["--appendonly", "yes", "--dir", str(self._folder)]
            self._process = subprocess.Popen([REAL_REDIS, *options], stdout=subprocess.DEVNULL)
        else:
            self._double = TcpFakeServer(("127.0.0.1", int(self.url.split(":")[2].split("/")[0])))
            threading.Thread(target=self._double.serve_forever, daemon=True).start()
        self._wait()

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
        if self._double is not None:
            self._double.shutdown()
            self._double.server_close()
        self._process = self._double = None

    def client(self) -> redis.Redis:
        return redis.Redis.from_url(self.url)

    def _wait(self) -> None:
        assert until(self._answers, within=20), "Redis did not start"

    def _answers(self) -> bool:
        with contextlib.suppress(redis.RedisError), self.client() as client:
            return bool(client.ping())
        return False


@contextmanager
def store() -> Iterator[Store]:
    """A Redis for the length of a block."""
    with TemporaryDirectory() as folder:
        found = Store(Path(folder))
        try:
            yield found
        finally:
            found.stop()


class Served:
    """An ASGI application on the production protocol, in a thread of its own."""

    def __init__(
        self,
        listener: socket.socket,
        app: ASGIApp,
        protocol: type[Protocol],
        side: Mapping[socket.socket, type[Protocol]],
    ) -> None:
        config = uvicorn.Config(
            app,
            http=protocol,
            loop="uvloop",
            ws="none",
            lifespan="on",
            proxy_headers=False,
            server_header=False,
            date_header=False,
            access_log=False,
            log_config=None,
            timeout_graceful_shutdown=2,
        )
        self._server = Server(config, side=side)
        self._listeners = [listener, *side]
        self._thread = threading.Thread(target=self._server.run, args=(self._listeners,), daemon=True)

    def start(self) -> None:
        self._thread.start()
        assert until(lambda: self._server.started, within=20), "the server did not start"

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(30)
        for listener in self._listeners:
            listener.close()
        assert not self._thread.is_alive(), "the server did not stop"


@contextmanager
def serving(
    listener: socket.socket,
    app: ASGIApp,
    *,
    max_header_bytes: int = 65_536,
    secure: bool = False,
    limits: Mapping[str, float] | None = None,
    side: Mapping[str, str] | None = None,
) -> Iterator[None]:
    """Serve `app` on `listener` for the length of a block; `limits` are the protocol's, in seconds; `side`
    are other addresses, each with the method of `app` that answers there."""
    members = {"max_header_bytes": max_header_bytes, "common": CommonHeaders(secure=secure), **(limits or {})}
    protocol = type("Protocol", (Protocol,), members)
    beside = {
        socket.create_server(("127.0.0.1", int(address.rpartition(":")[2]))): type(
            "SideProtocol", (protocol,), {"taker": taker}
        )
        for address, taker in (side or {}).items()
    }
    served = Served(listener, app, protocol, beside)
    served.start()
    try:
        yield
    finally:
        served.stop()


def environment(port: int, provider: ScriptedProvider, store_url: str, upstream_url: str) -> dict[str, str]:
    """Variables of a BFF in development on `port`, with time-outs fit for tests."""
    return {
        "BFF_ENV": "development",
        "BFF_BIND": f"127.0.0.1:{port}",
        "BFF_PUBLIC_URL": f"http://localhost:{port}",
        "BFF_OIDC_ISSUER": provider.issuer,
        "BFF_OIDC_CLIENT_ID": CLIENT_ID,
        "BFF_OIDC_CLIENT_SECRET": CLIENT_SECRET,
        "BFF_REDIS_URL": store_url,
        "BFF_SECRET_KEYS": new_key(),
        "BFF_API_URL": upstream_url,
        "BFF_PROVIDER_TIMEOUT_SECONDS": "5",
        "BFF_UPSTREAM_TIMEOUT_SECONDS": "5",
    }


@dataclass
class Stack:
    """A running BFF and what it talks to."""

    port: int
    settings: Settings
    provider: ScriptedProvider
    upstream: ScriptedUpstream
    store: Store
    clock: Clock
    app: Plane

    @property
    def origin(self) -> str:
        return self.settings.public_url

    def browser(self) -> Browser:
        """A browser without cookies."""
        return Browser(self.port, self.origin)

    def sign_in(self, browser: Browser, return_url: str = "/", **changes: Any) -> Browser:
        """Take `browser` through a whole sign-in."""
        asked = browser.get(f"/bff/login?returnUrl={return_url}")
        assert asked.status == 302, asked.text
        done = browser.callback(self.provider.authorize(asked.get("location"), **changes))
        assert done.status in (200, 303), done.text
        return browser

    @property
    def streams(self) -> Streams:
        """What watches over the open streams."""
        plane: Any = self.app
        streams: Streams = plane._events._streams
        return streams

    def plant(
        self, tokens: TokenSet | None = None, data: dict[str, Any] | None = None, *, lives: float = 300
    ) -> str:
        """Write a session straight into the store; the value of its cookie. Unless `tokens` are given, they
        live for so many seconds."""
        settings, sid = self.settings, new_sid()
        codec = Codec(Keyring(settings.keys), settings.redis_prefix)
        lifetime = Lifetime(settings.session_idle_seconds, settings.session_max_seconds)
        now = self.clock()
        with self.store.client() as client:
            sessions = SessionStore(client, codec, lifetime, self.clock)
            held = tokens or TokenSet(access_token="planted", obtained_at=now, expires_at=now + lives)
            known = data or {WHO: {"claims": [], "hint": "x"}}
            sessions.begin(digest(sid), Meta(now, now, "user"), held, known)
        return sid

    def sessions(self) -> list[bytes]:
        """The Redis keys of all sessions."""
        with self.store.client() as client:
            keys: list[bytes] = client.keys(f"{self.settings.redis_prefix}*")
            return [key for key in keys if client.type(key) == b"hash"]


def be_patient_with_redis(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give it seconds where it has 0.7 s: on a busy machine it stands still for longer, and that is a 503.
    One that is down is noticed as soon as ever."""
    for module in ("connect", "line"):
        monkeypatch.setattr(f"bff.sessions.{module}.ANSWER_SECONDS", 8)
        monkeypatch.setattr(f"bff.sessions.{module}.CONNECT_SECONDS", 8)
    monkeypatch.setattr("bff.sessions.connect.POOL_WAIT_SECONDS", 8)


PATIENT_WITH_REDIS = """
import bff.sessions.connect as c, bff.sessions.line as l
c.ANSWER_SECONDS = c.CONNECT_SECONDS = c.POOL_WAIT_SECONDS = l.ANSWER_SECONDS = l.CONNECT_SECONDS = 8
"""
"""The same for a process of its own, before it begins."""


@contextmanager
def running(
    store: Store,
    *,
    provider: ScriptedProvider | None = None,
    toml: str = "",
    limits: Mapping[str, float] | None = None,
    **settings: str,
) -> Iterator[Stack]:
    """A BFF for the length of a block; `settings` are named as in `BFF_…`, in lower case."""
    clock = Clock()
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    port = listener.getsockname()[1]
    with contextlib.ExitStack() as stack:
        be_patient_with_redis(stack.enter_context(pytest.MonkeyPatch.context()))
        upstream = stack.enter_context(scripted_upstream())
        provider = provider or stack.enter_context(scripted_provider(clock))
        provider.clock = clock
        environ = environment(port, provider, store.url, upstream.url)
        environ |= {f"BFF_{name.upper()}": value for name, value in settings.items()}
        environ |= {"BFF_REDIS_PREFIX": settings.get("redis_prefix", f"bff{port}:")}
        if toml:
            file = Path(stack.enter_context(TemporaryDirectory())) / "bff.toml"
            file.write_text(toml.replace("UPSTREAM", upstream.url))
            environ["BFF_CONFIG"] = str(file)
        loaded = load({name: value for name, value in environ.items() if value})
        app = create_app(loaded, clock)
        stack.enter_context(
            serving(
                listener,
                app,
                max_header_bytes=loaded.max_header_bytes,
                secure=loaded.secure,
                limits=limits,
                side={loaded.forward_auth_bind: "forward_auth"} if loaded.forward_auth_bind else None,
            )
        )
        yield Stack(port, loaded, provider, upstream, store, clock, app)
