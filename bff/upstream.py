"""A small asynchronous HTTP/1.1 client for the data plane, on httptools.

It does only what a proxy needs: one request, one response, both streamed with back-pressure, header and
path bytes as given. A connection serves one exchange at a time and is used again only when the response
was read to its last byte and nothing else came: answers are never mixed up.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import httptools

from bff.errors import UpstreamTimeout, UpstreamUnreachable
from bff.request import Headers

CONNECT_SECONDS = 5.0
KEEP_SECONDS = 3.0
"""Idle connections are used no longer than this: shorter than common servers keep them open."""
KEEP_CONNECTIONS = 64
MAX_HEAD_BYTES = 65_536
HIGH_WATER = 262_144
_IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})  # RFC 9110 §9.2.2


class _Broken(Exception):
    """The connection or its answer is unusable. `virgin`: not a byte of an answer had come."""

    def __init__(self, reason: str, *, virgin: bool = False) -> None:
        super().__init__(reason)
        self.virgin = virgin


class _Connection(asyncio.Protocol):
    """One connection and the exchange on it. Parser callbacks are called by httptools."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.transport: asyncio.Transport | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self.idle_since = 0.0
        self.used = False
        self.closed = False
        self.begin(head_only=False)

    def begin(self, *, head_only: bool) -> None:
        """Make ready for an exchange; `head_only` where the response has no body (HEAD)."""
        self._parser = httptools.HttpResponseParser(self)
        self._head_only = head_only
        self.status = 0
        self.headers: Headers = []
        self._head_bytes = 0
        self._head: asyncio.Future[None] = self._loop.create_future()
        self._chunks: deque[bytes] = deque()
        self._buffered = 0
        self._paused = False
        self._news: asyncio.Future[None] | None = None
        self.complete = False
        self._ended = False
        self._framed = False
        self.reusable = False
        self._error: _Broken | None = None
        self._answered = False

    # -- asyncio.Protocol ---------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        if self.complete or self._error is not None:
            self._discard()  # bytes that no request has asked for: RFC 9112 §9.2
            return
        self._answered = True
        if not self._head.done():
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES + HIGH_WATER:
                self._fail(_Broken("the response head is too large"))
                return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._fail(_Broken("the upstream switched protocols unasked"))
        except httptools.HttpParserError as error:
            self._malformed(error)

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self._writable.set()
        if self.complete:
            return
        if self._head.done() and not self._framed and exc is None and self._error is None:
            self.complete = True  # RFC 9112 §6.3: such a body ends with the connection
            self._wake()
            return
        self._fail(_Broken("the connection was lost", virgin=not self._answered))

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    # -- httptools ----------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self._ended:  # a second answer to one request: response splitting
            self._discard()

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.status:  # trailers, and whatever follows the answer, come the same way: no headers of it
            self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 200 or self.status:
            return
        if status > 599:
            raise _Broken("the status is none")  # RFC 9110 §15
        self.status = status
        self._framed = any(name in (b"content-length", b"transfer-encoding") for name, _ in self.headers)
        if self._head_only or status in (204, 304):
            # The parser would wait for the body that Content-Length announces and nobody sends.
            self.complete = True
        if not self._head.done():
            self._head.set_result(None)

    def on_body(self, body: bytes) -> None:
        if self.complete:
            return
        self._chunks.append(body)
        self._buffered += len(body)
        if self._buffered > HIGH_WATER and not self._paused and self.transport is not None:
            self._paused = True
            self.transport.pause_reading()
        self._wake()

    def on_message_complete(self) -> None:
        if not self.status:
            self.headers = []  # an interim response (100, 103): the real one follows
            return
        if self._ended:
            return
        self.complete = self._ended = True
        # Also for HEAD and friends: only the parser knows that the message ended where it should.
        self.reusable = self._parser.should_keep_alive() and not self._head_only
        self._wake()

    # -- the exchange -------------------------------------------------------------------------------

    async def write(self, data: bytes, patience: float) -> None:
        """Send bytes, waiting while the upstream does not take them, but no longer than `patience`."""
        if self.closed or self.transport is None:
            raise self._error or _Broken("the connection was lost", virgin=not self._answered)
        self.transport.write(data)
        if not self._writable.is_set():
            await _within(patience, self._writable.wait())

    async def head(self) -> None:
        """Wait for the response head."""
        await self._head

    @property
    def head_done(self) -> asyncio.Future[None]:
        return self._head

    async def chunk(self) -> bytes:
        """The next piece of the body; empty at its end."""
        while not self._chunks:
            if self._error is not None:
                raise self._error
            if self.complete:
                return b""
            self._news = self._loop.create_future()
            await self._news
        piece = self._chunks.popleft() if len(self._chunks) == 1 else self._join()
        self._buffered = 0
        if self._paused and self.transport is not None:
            self._paused = False
            self.transport.resume_reading()
        return piece

    def _join(self) -> bytes:
        piece = b"".join(self._chunks)
        self._chunks.clear()
        return piece

    def close(self) -> None:
        self.closed = True
        if self.transport is not None:
            self.transport.abort()

    def _discard(self) -> None:
        """Close after a whole answer: what has come of it stays to be read."""
        self.reusable = False
        self.close()

    def _malformed(self, error: Exception) -> None:
        if self.complete:  # what follows the answer is garbage, the answer itself is not
            self._discard()
        else:
            self._fail(_Broken(f"the response is malformed: {type(error).__name__}"))

    def _fail(self, error: _Broken) -> None:
        self._error = self._error or error
        self.reusable = False
        if not self._head.done():
            self._head.set_exception(self._error)
            self._head.exception()  # somebody may have stopped listening
        self._wake()
        self.close()

    def _wake(self) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(None)


class Response:
    """A response whose head has come. Iterate over `body()`, then the connection takes care of itself."""

    def __init__(self, connection: _Connection, origin: Origin, patience: float) -> None:
        self._connection = connection
        self._origin = origin
        self._patience = patience
        self.status = connection.status
        self.headers = list(connection.headers)  # a snapshot: trailers arrive through the same callback
        self.sender: asyncio.Task[None] | None = None

    async def body(self) -> AsyncIterator[bytes]:
        """Pieces of the body as they come. Raises UpstreamUnreachable or UpstreamTimeout when they stop."""
        connection = self._connection
        while True:
            try:
                piece = await _within(self._patience, connection.chunk())
            except TimeoutError:
                raise UpstreamTimeout(reason="the body stopped") from None
            except _Broken as error:
                raise UpstreamUnreachable(reason=str(error)) from None
            if not piece:
                return
            yield piece

    def finish(self) -> None:
        """Give the connection back, or close it if the exchange was cut short."""
        if self._sent() and self._connection.complete and self._connection.reusable:
            self._origin.keep(self._connection)
        else:
            self._connection.close()

    def _sent(self) -> bool:
        """Whether the request went out whole: after half a body, the next request would be taken for the
        rest of it (request smuggling). A sender that is still at it stops."""
        if self.sender is None:
            return True
        if not self.sender.done():
            self.sender.cancel()
            return False
        return not self.sender.cancelled() and self.sender.exception() is None


class Origin:
    """Connections to one upstream."""

    def __init__(self, url: str) -> None:
        """`url` is scheme, host, port and perhaps a base path."""
        parts = urlsplit(url)
        self.host = parts.netloc.encode()
        self.base_path = parts.path.encode()
        self._address = (parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80))
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._idle: list[_Connection] = []

    async def send(
        self, method: str, target: bytes, headers: Headers, body: AsyncIterable[bytes] | None, patience: float
    ) -> Response:
        """Send a request and wait `patience` seconds at most for the head of its response.

        `body` is sent as it comes, framed by the Content-Length among `headers` or else in chunks.
        Raises UpstreamUnreachable or UpstreamTimeout.
        """
        head = _request_head(method, target, headers, chunked=body is not None and not _sized(headers))
        try:
            connection = await self._connection(fresh=body is not None or method not in _IDEMPOTENT)
            try:
                return await self._exchange(connection, method, head, headers, body, patience)
            except _Broken as error:
                # The upstream closed an idle connection while we were taking it: nothing was answered, and
                # the request may be repeated.
                if not (connection.used and error.virgin and body is None and method in _IDEMPOTENT):
                    raise
            connection = await self._connection(fresh=True)
            return await self._exchange(connection, method, head, headers, body, patience)
        except _Broken as error:
            raise UpstreamUnreachable(reason=str(error)) from None
        except TimeoutError:
            raise UpstreamTimeout(reason="no response head in time") from None

    async def _exchange(
        self,
        connection: _Connection,
        method: str,
        head: bytes,
        headers: Headers,
        body: AsyncIterable[bytes] | None,
        patience: float,
    ) -> Response:
        connection.begin(head_only=method == "HEAD")
        sender: asyncio.Task[None] | None = None
        try:
            await connection.write(head, patience)
            if body is None:
                await _within(patience, connection.head_done)
            else:
                sender = asyncio.create_task(
                    _send_body(connection, body, patience, chunked=not _sized(headers))
                )
                await _head_while_sending(connection, sender, patience)
        except BaseException:
            if sender is not None:
                sender.cancel()
            connection.close()
            raise
        response = Response(connection, self, patience)
        response.sender = sender
        return response

    async def _connection(self, *, fresh: bool) -> _Connection:
        """An idle connection or, where a repeat would be wrong, one of which nothing can be stale."""
        loop = asyncio.get_running_loop()
        while self._idle and not fresh:
            connection = self._idle.pop()
            if not connection.closed and loop.time() - connection.idle_since < KEEP_SECONDS:
                connection.used = True
                return connection
            connection.close()
        host, port = self._address
        try:
            options: dict[str, Any] = {"ssl": self._tls} if self._tls else {}
            async with asyncio.timeout(CONNECT_SECONDS):
                _, made = await loop.create_connection(lambda: _Connection(loop), host, port, **options)
        except (OSError, TimeoutError) as error:
            raise _Broken(f"connecting: {type(error).__name__}") from None
        return made

    def keep(self, connection: _Connection) -> None:
        """Take back a connection whose exchange is whole."""
        if connection.closed or len(self._idle) >= KEEP_CONNECTIONS:
            connection.close()
            return
        connection.idle_since = asyncio.get_running_loop().time()
        self._idle.append(connection)

    def close(self) -> None:
        """Close what is idle; exchanges under way go on."""
        while self._idle:
            self._idle.pop().close()


async def _within(seconds: float, awaitable: Any) -> Any:
    async with asyncio.timeout(seconds):
        return await awaitable


async def _head_while_sending(connection: _Connection, sender: asyncio.Task[None], patience: float) -> None:
    """The clock of the response head starts when the body has been sent; it may also come earlier."""
    await asyncio.wait({sender, connection.head_done}, return_when=asyncio.FIRST_COMPLETED)
    if not connection.head_done.done():
        error = sender.exception()
        if error is not None and not isinstance(error, _Broken):
            raise error  # the client's body broke off, or grew too large
    await _within(patience, connection.head_done)


async def _send_body(
    connection: _Connection, body: AsyncIterable[bytes], patience: float, *, chunked: bool
) -> None:
    async for piece in body:
        if piece:
            await connection.write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece, patience)
    if chunked:
        await connection.write(b"0\r\n\r\n", patience)


def _sized(headers: Headers) -> bool:
    return any(name == b"content-length" for name, _ in headers)


def _request_head(method: str, target: bytes, headers: Headers, *, chunked: bool) -> bytes:
    lines = [method.encode() + b" " + target + b" HTTP/1.1"]
    lines += [name + b": " + value for name, value in headers]
    if chunked:
        lines.append(b"transfer-encoding: chunked")
    return b"\r\n".join(lines) + b"\r\n\r\n"


class Upstreams:
    """The origins of all routes."""

    def __init__(self) -> None:
        self._origins: dict[str, Origin] = {}

    def origin(self, url: str) -> Origin:
        """The connections for an upstream URL."""
        found = self._origins.get(url)
        if found is None:
            found = self._origins[url] = Origin(url)
        return found

    def close(self) -> None:
        """Close idle connections."""
        for origin in self._origins.values():
            origin.close()
