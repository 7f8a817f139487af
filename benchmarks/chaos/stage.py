"""What the faults happen to: two nodes of two workers, Redis, the local provider, the resource API."""

from __future__ import annotations

import asyncio
import base64
import secrets
import signal
import sys
import time
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from os import kill
from pathlib import Path

import requests

from benchmarks.chaos.front import Front
from benchmarks.chaos.ledger import Death, Ledger
from benchmarks.proxy.programs import CannotMeasure, Program, free_port
from benchmarks.proxy.systems.ours import CALLBACK
from benchmarks.proxy.world import CLIENT_ID, CLIENT_SECRET, PYTHON, SCOPE, require

TOKEN_SECONDS = 3
"""An access token's life: each session is refreshed about every second and a half."""
WORKERS = 2
_PYTHON = [sys.executable, "-m", "bff"]


class Stage:
    """Starts everything, and does to it what faults do. Use it within one event loop; `close` ends it all."""

    def __init__(self, directory: Path, *, deadline: int) -> None:
        """`deadline` is what the nodes give the provider, in seconds."""
        if not Path("/proc/self/task").is_dir():
            raise CannotMeasure("finds the workers of a node in /proc: it needs Linux")
        self.directory = directory
        self.deadline = deadline
        self.deaths: list[Death] = []
        self._stack = ExitStack()
        self._control = secrets.token_urlsafe(24)
        ports = {name: free_port() for name in ("redis", "provider", "api", "node 1", "node 2", "front")}
        self.origin = f"http://localhost:{ports['node 1']}"
        self.redis = self._program("redis", self._redis_argv(ports["redis"]), ports["redis"])
        self._issuer = f"http://localhost:{ports['provider']}/local_pool"
        self._front_port = ports["front"]
        self.provider = self._program("provider", [*_PYTHON, "idp"], ports["provider"])
        self.api = self._program("api", [*_PYTHON, "api"], ports["api"], self._api(ports["api"]))
        keys = base64.urlsafe_b64encode(secrets.token_bytes(32)).decode().rstrip("=")
        self.nodes = [
            self._program(name, [*_PYTHON, "serve"], ports[name], self._node(ports[name], keys))
            for name in ("node 1", "node 2")
        ]
        self.front = self._new_front(Ledger())

    async def start(self, grace: int) -> None:
        """Start all of it, with a provider that accepts a refresh token for `grace` seconds more. Raises
        CannotMeasure."""
        await asyncio.to_thread(self.redis.start)
        await self.new_provider(grace)
        await asyncio.gather(*(asyncio.to_thread(program.start) for program in (self.api, *self.nodes)))
        await asyncio.to_thread(self._await_ready)

    async def new_provider(self, grace: int) -> None:
        """The provider with this grace period, and an empty ledger before it; the sessions that were begun
        stay with those who have them."""
        await self.front.close()
        await asyncio.to_thread(self.provider.stop)
        self.provider.environ = PYTHON | self._provider(grace)
        self.front = self._new_front(Ledger())
        await self.revive(self.provider)

    def close(self) -> None:
        self._stack.close()

    # -- what faults do -------------------------------------------------------------------------------

    def workers(self, nodes: Iterable[Program] | None = None) -> list[int]:
        """The ids of the processes that answer, of all nodes or of these."""
        found: list[int] = []
        for node in self.nodes if nodes is None else nodes:
            if node.process is not None and node.process.poll() is None:
                with suppress(OSError):
                    group = node.group
                    found += map(int, Path(f"/proc/{group}/task/{group}/children").read_text().split())
        return found

    async def kill(self, program: Program) -> None:
        """End all processes of a program at once; the provider's front goes with it."""
        if program is self.provider:
            await self.front.close()
        now, workers = time.monotonic(), self.workers([program])
        self.deaths += [Death(each, f"{program.name} was killed", now, now) for each in workers]
        if program is self.redis:
            self.deaths.append(Death(program.group, "Redis was killed", now, now, store=True))
        program.kill()

    async def revive(self, program: Program) -> None:
        """Start it again. Raises CannotMeasure."""
        await asyncio.to_thread(program.start)
        if program is self.provider:
            await self.front.open()

    def kill_worker(self, process: int) -> None:
        """End one process; its arbiter starts another."""
        now = time.monotonic()
        self.deaths.append(Death(process, "its worker was killed", now, now))
        kill(process, signal.SIGKILL)

    async def freeze(self, what: Program | int, seconds: float) -> None:
        """Let a program, or one process, stand still for a while."""
        began = time.monotonic()
        workers = [what] if isinstance(what, int) else self.workers([what])
        _signal(what, signal.SIGSTOP)
        try:
            await asyncio.sleep(seconds)
        finally:
            _signal(what, signal.SIGCONT)
        text = f"its worker stood still for {seconds:.0f} s"
        self.deaths += [Death(each, text, began, time.monotonic()) for each in workers]

    async def provider_fault(self, fault: dict[str, object], seconds: float) -> None:
        """What the provider's control API can do to its token endpoint, for a while."""
        url = f"http://127.0.0.1:{self.provider.port}/control/faults"
        headers = {"Authorization": f"Bearer {self._control}"}
        body = {"endpoint": "token", "fault": fault, "times": 0}
        await asyncio.to_thread(requests.post, url, json=body, headers=headers, timeout=10)
        try:
            await asyncio.sleep(seconds)
        finally:
            await asyncio.to_thread(requests.delete, url, headers=headers, timeout=10)

    def troubles(self) -> list[str]:
        """What must not be in any node's log."""
        return [
            f"{node.name}: {line[:300]}"
            for node in self.nodes
            for line in node.log.read_text(errors="replace").splitlines()
            if "Traceback" in line or '"internal_error"' in line
        ]

    # -- how it is put together -----------------------------------------------------------------------

    def _program(
        self, name: str, argv: list[str], port: int, environ: dict[str, str] | None = None
    ) -> Program:
        program = Program(name, argv, port, self.directory, PYTHON | (environ or {}))
        self._stack.callback(program.stop)
        return program

    def _new_front(self, ledger: Ledger) -> Front:
        return Front(self._front_port, self.provider.port, ledger, self.workers)

    def _await_ready(self) -> None:
        until = time.monotonic() + 30
        for node in self.nodes:
            while not _ready(node.port):
                if time.monotonic() > until:
                    raise CannotMeasure(f"{node.name} is not ready: {node.last_words()}")
                time.sleep(0.1)

    def _redis_argv(self, port: int) -> list[str]:
        """As deploy/compose/redis/redis.conf has it: an append-only file that is flushed each second."""
        program = require("redis-server", "apt install redis-server")
        options = f"--port {port} --bind 127.0.0.1 --appendonly yes --appendfsync everysec".split()
        return [program, *options, "--save", "", "--dir", str(self.directory)]

    def _provider(self, grace: int) -> dict[str, str]:
        port = self.provider.port
        return {
            "IDP_BIND": f"127.0.0.1:{port}",
            "IDP_ISSUER": self._issuer,
            "IDP_PUBLIC_URL": f"http://127.0.0.1:{port}",
            "IDP_BACKEND_URL": f"http://127.0.0.1:{self._front_port}",
            "IDP_CLIENT_ID": CLIENT_ID,
            "IDP_CLIENT_SECRET": CLIENT_SECRET,
            "IDP_REDIRECT_URIS": self.origin + CALLBACK,
            "IDP_LOGOUT_URIS": self.origin + "/",
            "IDP_ACCESS_TOKEN_SECONDS": str(TOKEN_SECONDS),
            "IDP_REFRESH_ROTATION": "on",
            "IDP_REFRESH_GRACE_SECONDS": str(grace),
            "IDP_STATE_FILE": str(self.directory / "provider.sqlite"),
            "IDP_CONTROL_TOKEN": self._control,
        }

    def _api(self, port: int) -> dict[str, str]:
        return {
            "API_ENV": "development",
            "API_BIND": f"127.0.0.1:{port}",
            "API_ISSUER": self._issuer,
            "API_CLIENT_IDS": CLIENT_ID,
            "API_WORKERS": "1",
            "API_CLOCK_SKEW_SECONDS": "5",
        }

    def _node(self, port: int, keys: str) -> dict[str, str]:
        return {
            "BFF_ENV": "development",
            "BFF_BIND": f"127.0.0.1:{port}",
            "BFF_PUBLIC_URL": self.origin,
            "BFF_WORKERS": str(WORKERS),
            "BFF_OIDC_ISSUER": self._issuer,
            "BFF_OIDC_CLIENT_ID": CLIENT_ID,
            "BFF_OIDC_CLIENT_SECRET": CLIENT_SECRET,
            "BFF_OIDC_SCOPE": SCOPE,
            "BFF_OIDC_PROFILE": "cognito",
            "BFF_REDIS_URL": f"redis://127.0.0.1:{self.redis.port}/0",
            "BFF_SECRET_KEYS": keys,
            "BFF_API_URL": f"http://127.0.0.1:{self.api.port}",
            "BFF_PROVIDER_TIMEOUT_SECONDS": str(self.deadline),
            "BFF_LOG_FORMAT": "json",
        }


def _ready(port: int) -> bool:
    with suppress(requests.RequestException):
        return requests.get(f"http://127.0.0.1:{port}/health/ready", timeout=5).status_code == 200
    return False


def _signal(what: Program | int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        if isinstance(what, int):
            kill(what, number)
        else:
            what.send(number)
