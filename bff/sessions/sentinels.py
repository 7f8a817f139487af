"""Which Redis is the primary, as its sentinels say.

https://redis.io/docs/latest/develop/reference/sentinel-clients/
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoPermissionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from bff.sessions.connect import LOOK_SECONDS
from bff.sessions.line import Dialler, Line, pack
from bff.sessions.racing import first

OPEN_SECONDS = 0.8
"""For asking the sentinels and connecting to whom they name."""

Host = tuple[str, int]


class Sentinels:
    """All of them are asked at once, so that one that hangs, or has not heard of a failover yet, costs
    nothing: the first Redis that says itself that it is the primary is the one."""

    def __init__(self, dialler: Dialler, hosts: Sequence[Host], service: str) -> None:
        """`dialler` opens lines to the sentinels; `service` is their name for the primary."""
        self._dialler = dialler
        self._hosts = hosts
        self._question = pack("SENTINEL", "GET-MASTER-ADDR-BY-NAME", service)
        self._lines: dict[Host, Line] = {}
        self._watch: asyncio.Task[None] | None = None

    async def open_primary(self, dialler: Dialler) -> Line:
        """A line to the primary, opened by `dialler`; it is lost when the sentinels name another one. Raises
        RedisError."""
        try:
            async with asyncio.timeout(OPEN_SECONDS):
                attempts = [self._through(sentinel, dialler) for sentinel in self._hosts]
                line, primary = await first(attempts, lambda found: found[0].hang_up())
        except TimeoutError:
            raise RedisTimeoutError("finding the primary took too long") from None
        if self._watch is not None:
            self._watch.cancel()
        self._watch = asyncio.ensure_future(self._watch_over(line, primary))
        return line

    async def _through(self, sentinel: Host, dialler: Dialler) -> tuple[Line, Host]:
        primary = await self._named_by(sentinel)
        line = await dialler.open(primary)
        try:
            await _insist_on_primary(line)
        except BaseException:
            line.hang_up()
            raise
        return line, primary

    async def _named_by(self, sentinel: Host) -> Host:
        """The primary that one sentinel names."""
        line = self._lines.get(sentinel)
        if line is None or line.lost:
            line = self._keep(sentinel, await self._dialler.open(sentinel))
        found = await line.ask(self._question)
        if not found:
            raise RedisConnectionError("a sentinel knows no primary of that name")
        return found[0].decode(), int(found[1])

    def _keep(self, sentinel: Host, line: Line) -> Line:
        """One line for each sentinel: this one, or another that somebody has opened meanwhile."""
        other = self._lines.get(sentinel)
        if other is not None and not other.lost:
            line.hang_up()
            return other
        self._lines[sentinel] = line
        return line

    async def _watch_over(self, line: Line, primary: Host) -> None:
        """Hang up where most sentinels that answer name another primary: one that was replaced by hand goes
        on for seconds, and what is written there is lost."""
        while not line.lost:
            await asyncio.sleep(LOOK_SECONDS)
            asked = [self._named_by(sentinel) for sentinel in self._hosts]
            answers = await asyncio.gather(*asked, return_exceptions=True)
            named = Counter(each for each in answers if not isinstance(each, BaseException))
            if named and named.most_common(1)[0][0] != primary:
                line.hang_up()

    def hang_up(self) -> None:
        """On all sentinels, for good."""
        if self._watch is not None:
            self._watch.cancel()
        for line in self._lines.values():
            line.hang_up()


async def _insist_on_primary(line: Line) -> None:
    """A sentinel may name one that has just become a replica, which would tell of ended sessions."""
    with suppress(NoPermissionError):  # then the sentinel is believed
        role = await line.ask(pack("ROLE"))
        if role[0] != b"master":
            raise RedisConnectionError("not the primary")
