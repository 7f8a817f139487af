"""The one question that every proxied request asks Redis, on one connection that many requests share.

A general client costs several times what the question does: it checks a connection out, awaits its streams
and checks it in again. Here requests are written one after the other and answered in that order; hiredis
reads the answers. Everything that changes something goes through redis-py.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from typing import Any, cast

import hiredis
from redis.connection import parse_url
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from bff.sessions.connect import ANSWER_SECONDS, CONNECT_SECONDS

TRIES = 2
Answer = Any


class Wire:
    """Asks Redis; connects when it is needed and again when the connection is lost. Lives in one loop."""

    def __init__(self, url: str) -> None:
        """`url` as redis-py takes it: `redis://`, `rediss://` or `unix://`."""
        self._options: dict[str, Any] = dict(parse_url(url))  # type: ignore[no-untyped-call]
        self._line: _Line | None = None
        self._connecting: asyncio.Future[_Line] | None = None

    async def ask(self, *command: bytes | str) -> Answer:
        """The answer to a command that changes nothing: it may be sent twice. Raises RedisError."""
        packed = _packed(*command)
        for attempt in range(1, TRIES + 1):
            line = self._line
            if line is None or line.lost:
                line = await self._connect()
            try:
                return await line.ask(packed)
            except RedisConnectionError:
                if attempt == TRIES:
                    raise
        raise AssertionError  # the loop returns or raises

    async def close(self) -> None:
        """Hang up."""
        if self._line is not None:
            self._line.hang_up()

    async def _connect(self) -> _Line:
        """One attempt at a time, for all who wait."""
        if self._connecting is None:
            self._connecting = asyncio.ensure_future(self._open())
            self._connecting.add_done_callback(self._connected)
        return await asyncio.shield(self._connecting)

    def _connected(self, done: asyncio.Future[_Line]) -> None:
        self._connecting = None
        if not done.cancelled() and done.exception() is None:
            self._line = done.result()

    async def _open(self) -> _Line:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                if "path" in self._options:
                    _, line = await loop.create_unix_connection(lambda: _Line(loop), self._options["path"])
                else:
                    _, line = await loop.create_connection(
                        lambda: _Line(loop),
                        self._options.get("host", "localhost"),
                        self._options.get("port", 6379),
                        ssl=_tls(self._options),
                    )
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

    async def _introduce(self, line: _Line) -> None:
        options = self._options
        if options.get("password"):
            user = (options["username"],) if options.get("username") else ()
            await line.ask(_packed("AUTH", *user, options["password"]))
        if options.get("db"):
            await line.ask(_packed("SELECT", str(options["db"])))


class _Line(asyncio.Protocol):
    """One connection. Answers come in the order of the questions, whether somebody still waits or not."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._reader = hiredis.Reader()
        self._waiting: deque[tuple[float, asyncio.Future[Answer]]] = deque()
        self._transport: asyncio.Transport | None = None
        self._watch: asyncio.TimerHandle | None = None
        self.lost = False

    def ask(self, packed: bytes) -> asyncio.Future[Answer]:
        """The answer to come."""
        future: asyncio.Future[Answer] = self._loop.create_future()
        if self.lost or self._transport is None:
            future.set_exception(RedisConnectionError("the connection is closed"))
            return future
        self._transport.write(packed)
        self._waiting.append((self._loop.time(), future))
        if self._watch is None:
            self._watch = self._loop.call_later(ANSWER_SECONDS, self._check)
        return future

    def hang_up(self) -> None:
        if self._transport is not None:
            self._transport.abort()

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
                    future.set_exception(ResponseError(str(answer)))
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
        waiting, self._waiting = self._waiting, deque()
        for _, future in waiting:
            if not future.done():
                future.set_exception(error)
        self.hang_up()


def _packed(*words: bytes | str) -> bytes:
    packed: bytes = hiredis.pack_command(words)  # type: ignore[arg-type]  # takes a tuple of any length
    return packed


def _tls(options: dict[str, Any]) -> ssl.SSLContext | None:
    if "SSL" not in options.get("connection_class", type(None)).__name__:
        return None
    context = ssl.create_default_context(cafile=options.get("ssl_ca_certs"))
    if options.get("ssl_certfile"):
        context.load_cert_chain(options["ssl_certfile"], options.get("ssl_keyfile"))
    if str(options.get("ssl_check_hostname", True)).lower() in ("false", "0", "no"):
        context.check_hostname = False
    if options.get("ssl_cert_reqs") == "none":
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
