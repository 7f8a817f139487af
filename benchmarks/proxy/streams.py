"""Idle event streams through one worker: what does each cost in memory?"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

from benchmarks.proxy import proc, renewal
from benchmarks.proxy.programs import CannotMeasure
from benchmarks.proxy.result import Streams
from benchmarks.proxy.world import World

STREAMS = 2000
SESSIONS = 200
AT_ONCE = 50
SECONDS = 20
PATH = "/stream"
ROUTE = """
[[routes]]
path = "/stream"
upstream = "http://127.0.0.1:{slow}"
stream = "sse"
"""

UNAVAILABLE = 'event streams are not available with stream = "sse"'

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Refused(Exception):
    """A stream did not begin; the argument is the status line that came instead."""


def measure(world: World, settle_seconds: float) -> Streams:
    """Open them, wait, read the memory. Raises CannotMeasure where streams are not served."""
    try:
        server = renewal.many(world, "streams", SESSIONS, renewal.HOUR, ROUTE)
    except CannotMeasure:
        raise CannotMeasure(f"{UNAVAILABLE}: a server with such a route does not start") from None
    cookies = server.cookies.read_text().splitlines()
    port, group = server.system.program.port, server.system.program.group
    return asyncio.run(_measure(port, cookies, group, settle_seconds))


async def _measure(port: int, cookies: Sequence[str], group: int, settle_seconds: float) -> Streams:
    before = proc.pss(group)
    gate = asyncio.Semaphore(AT_ONCE)

    async def begin(number: int) -> Connection:
        async with gate:
            return await _open(port, cookies[number % len(cookies)])

    results = await asyncio.gather(*(begin(number) for number in range(STREAMS)), return_exceptions=True)
    opened = [result for result in results if isinstance(result, tuple)]
    refusals = [result for result in results if isinstance(result, BaseException)]
    try:
        if not opened:
            raise CannotMeasure(f"{UNAVAILABLE}: {refusals[0]!r}")
        await asyncio.sleep(settle_seconds)
        alive = [reader for reader, _ in opened if not reader.at_eof()]
        return Streams(len(opened), len(alive), before, proc.pss(group))
    finally:
        for _, writer in opened:
            writer.close()


async def _open(port: int, cookie: str) -> Connection:
    """A stream whose first event has come."""
    lines = (
        f"GET {PATH} HTTP/1.1",
        f"Host: localhost:{port}",
        "Accept: text/event-stream",
        "Sec-Fetch-Site: same-origin",
        f"Cookie: {cookie}",
    )
    async with asyncio.timeout(SECONDS):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=4096)
        try:
            writer.write("\r\n".join((*lines, "", "")).encode())
            head = await reader.readuntil(b"\r\n\r\n")
            _judge(head)
            await reader.readuntil(b"welcome\n\n")
        except BaseException:
            with contextlib.suppress(OSError):
                writer.close()
            raise
    return reader, writer


def _judge(head: bytes) -> None:
    if not head.startswith(b"HTTP/1.1 200 ") or b"text/event-stream" not in head.lower():
        raise Refused(f"the answer was {head.splitlines()[0].decode()}")
