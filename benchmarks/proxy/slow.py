"""Many clients on an upstream that takes a second: does the proxy hold them all at once?"""

from __future__ import annotations

from benchmarks.proxy.load import run
from benchmarks.proxy.result import Slow
from benchmarks.proxy.slow_upstream import SECONDS
from benchmarks.proxy.systems.system import System
from benchmarks.proxy.world import World

CLIENTS = 200
UPSTREAM = "upstream"
"""The key of the upstream's own figures, asked without a proxy: what can be had at best."""


def once(world: World, system: System | None, seconds: int) -> Slow:
    """200 clients for some seconds, on a system or (None) on the upstream itself."""
    url = f"http://127.0.0.1:{world.slow.port}"
    headers: tuple[str, ...] = ("Host: localhost", "Authorization: Bearer of-the-client")
    if system is not None:
        system.check("/slow")
        url, headers = system.url, system.headers
    spread = int(SECONDS * 1000)
    load = run(f"{url}/slow", headers, CLIENTS, seconds, "staggered.lua", (CLIENTS, spread))
    key = UPSTREAM if system is None else system.key
    return Slow(key, load.rate, load.p50, load.p99, load.wrong + load.broken)
