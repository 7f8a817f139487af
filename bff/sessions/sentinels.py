"""Which Redis is the primary, as its sentinels say.

https://redis.io/docs/latest/develop/reference/sentinel-clients/
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoPermissionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from bff.sessions.line import Dialler, Line, pack
from bff.sessions.racing import first

OPEN_SECONDS = 0.8
"""For asking the sentinels and connecting to whom they name."""


class Sentinels:
    """All of them are asked at once, so that one that hangs, or has not heard of a failover yet, costs
    nothing: the first Redis that says itself that it is the primary is the one."""

    def __init__(self, dialler: Dialler, hosts: Sequence[tuple[str, int]], service: str) -> None:
        """`dialler` opens lines to the sentinels; `service` is their name for the primary."""
        self._dialler = dialler
        self._hosts = hosts
        self._service = service

    async def open_primary(self, dialler: Dialler) -> Line:
        """A line to the primary, opened by `dialler`. Raises RedisError."""
        try:
            async with asyncio.timeout(OPEN_SECONDS):
                return await first([self._through(host, dialler) for host in self._hosts], Line.hang_up)
        except TimeoutError:
            raise RedisTimeoutError("finding the primary took too long") from None

    async def _through(self, sentinel: tuple[str, int], dialler: Dialler) -> Line:
        asked = await self._dialler.open(sentinel)
        try:
            found = await asked.ask(pack("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._service))
        finally:
            asked.hang_up()
        if not found:
            raise RedisConnectionError("a sentinel knows no primary of that name")
        line = await dialler.open((found[0].decode(), int(found[1])))
        try:
            await _insist_on_primary(line)
        except BaseException:
            line.hang_up()
            raise
        return line


async def _insist_on_primary(line: Line) -> None:
    """A sentinel may name one that has just become a replica, which would tell of ended sessions."""
    with suppress(NoPermissionError):  # then the sentinel is believed
        role = await line.ask(pack("ROLE"))
        if role[0] != b"master":
            raise RedisConnectionError("not the primary")
