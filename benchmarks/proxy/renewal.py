"""Load on many sessions: with tokens that become due and are refreshed in the middle of it, and without."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.proxy import far_provider
from benchmarks.proxy.far_provider import FarProvider
from benchmarks.proxy.load import run
from benchmarks.proxy.programs import CannotMeasure, free_port
from benchmarks.proxy.result import Renewal
from benchmarks.proxy.systems import ours
from benchmarks.proxy.systems.system import System
from benchmarks.proxy.world import World

CONNECTIONS = 16
PAUSE_MILLISECONDS = 10
"""Between two requests of a connection: the machine must have room left, or one sees only what a full one
does."""
HOUR = 3600


@dataclass(frozen=True)
class Many:
    """A server of ours with many sessions."""

    name: str
    system: System
    provider: FarProvider
    cookies: Path

    def once(self, seconds: int) -> Renewal:
        """One run of load that takes the sessions in turn."""
        self.system.check()
        self.provider.prepare()
        before = self.provider.answered()
        headers = [line for line in self.system.headers if not line.startswith("Cookie:")]
        arguments = (self.cookies, PAUSE_MILLISECONDS)
        load = run(f"{self.system.url}/weather", headers, CONNECTIONS, seconds, "sessions.lua", arguments)
        refreshes = self.provider.answered() - before
        return Renewal(
            self.name, refreshes / load.seconds, load.rate, load.p50, load.p99, load.wrong + load.broken
        )


def rounds(world: World, sessions: int, token_seconds: int, number: int, seconds: int) -> Iterator[Renewal]:
    """Runs by turns: no token becomes due, those of a tenth of the sessions, those of all. They live for
    `token_seconds` and are renewed at half of it; `seconds` must be less than a quarter of it: then no token
    is dead when it is its server's turn again.
    """
    quiet = many(world, "no", sessions, HOUR)
    due = [many(world, "few", sessions // 10, token_seconds), many(world, "many", sessions, token_seconds)]
    # half their life, and a tenth of it for jitter, must be over within the first runs
    time.sleep(max(0.0, token_seconds * 0.6 - 2 * seconds))
    for _ in range(number):
        yield quiet.once(seconds)
        for server in due:
            found = server.once(seconds)
            if not found.refreshes:
                raise CannotMeasure("no token became due in the middle of load: the refresh is not measured")
            yield found


def many(world: World, name: str, sessions: int, token_seconds: int, routes: str = ours.SLOW_ROUTE) -> Many:
    """Start a provider and a server with one worker, and sign in many times."""
    port = free_port()
    callback = f"http://localhost:{port}{ours.CALLBACK}"
    provider = far_provider.start(world, callback, token_seconds, name)
    program = ours.serve(world, provider.provider, port, 1, name, routes)
    cookies = ours.session_cookies(port, name, sessions)
    file = world.directory / f"{name}.cookies"
    file.write_text("\n".join(cookies) + "\n")
    system = System(name, f"bff, {name}", program, ours.headers(port, cookies[0]), refusal=401)
    return Many(name, system, provider, file)
