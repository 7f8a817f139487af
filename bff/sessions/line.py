"""One connection to a Redis, on which many questions are under way at once; and how to get one."""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from typing import Any, cast

import hiredis
from redis.exceptions import (
    AskError,
    ClusterDownError,
    MovedError,
    NoPermissionError,
    NoScriptError,
    ReadOnlyError,
    ResponseError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from bff.sessions.connect import ANSWER_SECONDS, CONNECT_SECONDS
from bff.sessions.record import CORE
from bff.settings.redis_url import Login

Answer = Any
Place = str | tuple[str, int]
"""A socket's path, or host and port."""

_ERRORS: dict[str, type[ResponseError]] = {
    "ASK": AskError,
    "CLUSTERDOWN": ClusterDownError,
    "MOVED": MovedError,
    "NOPERM": NoPermissionError,
    "NOSCRIPT": NoScriptError,
    "READONLY": ReadOnlyError,
    "TRYAGAIN": TryAgainError,
}


def pack(*words: bytes | str | int) -> bytes:
    """A command as it goes over the wire."""
    packed: bytes = hiredis.pack_command(words)  # type: ignore[arg-type]  # takes a tuple of any length
    return packed


_AFTER = b"".join(b"$%d\r\n%b\r\n" % (len(field), field) for field in CORE)


def pack_core(key: str) -> bytes:
    """`HMGET key` for the fields `CORE`: what every proxied request asks, cheaper than by `pack`."""
    name = key.encode()
    return b"*%d\r\n$5\r\nHMGET\r\n$%d\r\n%b\r\n%b" % (2 + len(CORE), len(name), name, _AFTER)


class Line(asyncio.Protocol):
    """Answers come in the order of the questions, whether somebody still waits or not."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._reader = hiredis.Reader()
        self._waiting: deque[tuple[float, asyncio.Future[Answer]]] = deque()
        self._outbox: list[bytes] = []
        self._transport: asyncio.Transport | None = None
        self._watch: asyncio.TimerHandle | None = None
        self.lost = False

    def ask(self, packed: bytes) -> asyncio.Future[Answer]:
        """The answer to come: a RedisError where there is none, or it is one."""
        future: asyncio.Future[Answer] = self._loop.create_future()
        if self.lost or self._transport is None:
            future.set_exception(RedisConnectionError("the connection is closed"))
            return future
        if not self._outbox:  # what is asked in this round of the loop goes out in one piece
            self._loop.call_soon(self._flush)
        self._outbox.append(packed)
        self._waiting.append((self._loop.time(), future))
        if self._watch is None:
            self._watch = self._loop.call_later(ANSWER_SECONDS, self._check)
        return future

    def _flush(self) -> None:
        if self._transport is not None and not self.lost:
            self._transport.write(b"".join(self._outbox))
        self._outbox.clear()

    def hang_up(self) -> None:
        """Whoever still waits is told that the connection was lost."""
        self._lose(RedisConnectionError("the connection was closed"))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        try:
            self._reader.feed(data)
            while (answer := self._reader.gets()) is not False:
                _, future = self._waiting.popleft()
                if future.done():  # a browser that has gone: its answer is nobody else's
                    continue
                if isinstance(answer, hiredis.ReplyError):
                    future.set_exception(_error(str(answer)))
                else:
                    future.set_result(answer)
        except (hiredis.HiredisError, IndexError):  # not RESP, or an answer to no question
            self._lose(RedisConnectionError("Redis does not speak its protocol"))

    def connection_lost(self, _error: Exception | None) -> None:
        self._lose(RedisConnectionError("the connection was lost"))

    def _check(self) -> None:
        """One timer for the line: the oldest question must not wait too long for its answer."""
        self._watch = None
        if not self._waiting:
            return
        left = self._waiting[0][0] + ANSWER_SECONDS - self._loop.time()
        if left > 0:
            self._watch = self._loop.call_later(left, self._check)
        else:
            self._lose(RedisTimeoutError("Redis does not answer"))

    def _lose(self, error: Exception) -> None:
        self.lost = True
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        waiting, self._waiting = self._waiting, deque()
        for _, future in waiting:
            if not future.done():
                future.set_exception(error)
        if self._transport is not None:
            self._transport.abort()


class Dialler:
    """Opens lines, all with the same login, database and idea of TLS."""

    def __init__(self, login: Login, db: int = 0, tls: ssl.SSLContext | None = None) -> None:
        self._login = login
        self._db = db
        self._tls = tls

    async def open(self, place: Place) -> Line:
        """A line on which commands can be asked. Raises RedisError."""
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                line = await self._connect(place)
        except TimeoutError:
            raise RedisTimeoutError("connecting took too long") from None
        except OSError as error:
            raise RedisConnectionError(f"cannot connect: {type(error).__name__}") from None
        try:
            await self._introduce(line)
        except BaseException:
            line.hang_up()
            raise
        return line

    async def _connect(self, place: Place) -> Line:
        loop = asyncio.get_running_loop()
        if isinstance(place, str):
            _, line = await loop.create_unix_connection(lambda: Line(loop), place)
        else:
            _, line = await loop.create_connection(lambda: Line(loop), *place, ssl=self._tls)
        return line

    async def _introduce(self, line: Line) -> None:
        if self._login.password:
            user = (self._login.username,) if self._login.username else ()
            await line.ask(pack("AUTH", *user, self._login.password))
        if self._db:
            await line.ask(pack("SELECT", self._db))


def _error(text: str) -> ResponseError:
    """The error that Redis answered with, as redis-py names it."""
    code, _, rest = text.partition(" ")
    kind = _ERRORS.get(code)
    try:
        return ResponseError(text) if kind is None else kind(rest)
    except ValueError:  # a MOVED or ASK that says not where to
        return ResponseError(text)
