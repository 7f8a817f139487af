"""What every proxied request asks Redis, on one connection that many requests share.

A general client costs several times what the question does: it checks a connection out, awaits its streams
and checks it in again. Here requests are written one after the other and answered in that order; hiredis
reads the answers. Every command may be sent twice, so that it must do no more the second time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ReadOnlyError

from bff.sessions.line import Answer, Line, pack, pack_core

TRIES = 2
PAUSE_SECONDS = 0.05
"""After a vain attempt to connect, for all who ask: an outage is no reason to storm whoever comes back."""


class Wire:
    """To one Redis at a time; connects when it is needed and again when the connection is lost. Lives in one
    loop."""

    def __init__(
        self,
        opens: Callable[[], Awaitable[Line]],
        tries: int = TRIES,
        at_end: Callable[[], None] | None = None,
    ) -> None:
        """`opens` finds the Redis and connects; `at_end` is called at the end. Nothing is done yet."""
        self._opens = opens
        self._tries = tries
        self._at_end = at_end
        self._line: Line | None = None
        self._connecting: asyncio.Future[Line] | None = None
        self._not_before = 0.0
        self._closed = False

    def ask(self, *command: bytes | str | int) -> Awaitable[Answer]:
        """The answer to a command. Awaiting it raises RedisError."""
        return self.send(pack(*command))

    def core(self, key: str) -> Awaitable[Answer]:
        """The fields that a proxied request needs of a session. Awaiting it raises RedisError."""
        return self.send(pack_core(key))

    async def send(self, packed: bytes) -> Answer:
        """The same for a command that is packed already."""
        for attempt in range(1, self._tries + 1):
            line = self._line
            if line is None or line.lost:
                line = await self.line()
            try:
                return await line.ask(packed)
            except RedisConnectionError:
                if attempt == self._tries:
                    raise
            except ReadOnlyError:  # it is no primary any more
                line.hang_up()
                if attempt == self._tries:
                    raise
        raise AssertionError  # the loop returns or raises

    async def line(self) -> Line:
        """A line that is not known to be lost. One attempt at a time, for all who wait."""
        if self._line is not None and not self._line.lost:
            return self._line
        if self._connecting is None:
            self._connecting = asyncio.ensure_future(self._open())
            self._connecting.add_done_callback(self._connected)
        return await asyncio.shield(self._connecting)

    async def _open(self) -> Line:
        pause = self._not_before - asyncio.get_running_loop().time()
        if pause > 0:
            await asyncio.sleep(pause)
        return await self._opens()

    def _connected(self, done: asyncio.Future[Line]) -> None:
        self._connecting = None
        if done.cancelled():
            return
        if done.exception() is not None:
            self._not_before = done.get_loop().time() + PAUSE_SECONDS
            return
        self._line = done.result()
        if self._closed:
            self.hang_up()

    def hang_up(self) -> None:
        """For good. Whoever still waits is told that the connection was lost."""
        self._closed = True
        if self._line is not None:
            self._line.hang_up()
        if self._at_end is not None:
            self._at_end()

    async def close(self) -> None:
        """Hang up."""
        self.hang_up()
