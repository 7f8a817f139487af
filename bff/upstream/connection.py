"""One connection to an upstream and the exchange on it. Parser callbacks are called by httptools."""

from __future__ import annotations

import asyncio
import math
from collections import deque

import httptools

from bff.request import Headers

MAX_HEAD_BYTES = 65_536
HIGH_WATER = 262_144


class Broken(Exception):
    """The connection or its answer is unusable. `virgin`: not a byte of an answer had come."""

    def __init__(self, reason: str, *, virgin: bool = False) -> None:
        super().__init__(reason)
        self.virgin = virgin

    def again(self) -> Broken:
        """The same to be raised: what has been raised holds on to all that was under way."""
        return type(self)(str(self), virgin=self.virgin)


class Late(Broken):
    """What was waited for did not come in time."""


class Connection(asyncio.Protocol):
    """Serves one exchange at a time: begin, send, wait for the head, take the body."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.transport: asyncio.Transport | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self.idle_since = 0.0
        self.used = False
        self.closed = False
        self._said_its_last = False
        self._due = math.inf  # when what is waited for must have come
        self._watch: asyncio.TimerHandle | None = None
        self._watch_at = math.inf
        self.begin(head_only=False)

    def begin(self, *, head_only: bool, upgrade: bool = False) -> None:
        """Make ready for an exchange; `head_only` where the response has no body (HEAD), `upgrade` where the
        request asks for another protocol."""
        self._upgrade = upgrade
        self._early = b""  # of that protocol, come with the head
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
        self.reusable = False
        self._error: Broken | None = None
        self._answered = False

    # -- asyncio.Protocol ---------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        # For all exchanges, as answers come one after the other; the two hold each other from here on only.
        self._parser = httptools.HttpResponseParser(self)

    def data_received(self, data: bytes) -> None:
        if self.complete or self._error is not None:
            self._discard()  # bytes that no request has asked for: RFC 9112 §9.2
            return
        if self.status == 101:
            self._early += data
            return
        self._answered = True
        if not self._head.done():
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES + HIGH_WATER:
                self._fail(Broken("the response head is too large"))
                return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            if self.status == 101:
                self._early = data[upgrade.args[0] :]
            else:
                self._fail(Broken("the upstream switched protocols unasked"))
        except httptools.HttpParserError as error:
            self._malformed(error)

    def eof_received(self) -> bool:
        self._said_its_last = True
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self._writable.set()
        del self._parser  # they hold each other, and would wait for the collector
        if self.complete:
            return
        unframed = self._head.done() and not self._framed()
        if unframed and self._said_its_last and exc is None and self._error is None:
            # RFC 9112 §6.3: such a body ends with the connection; over TLS only where the upstream says so
            # itself, for anybody in between can end TCP (§9.8).
            self.complete = True
            self._wake()
            return
        self._fail(Broken("the connection was lost", virgin=not self._answered))

    def _framed(self) -> bool:
        return any(name in (b"content-length", b"transfer-encoding") for name, _ in self.headers)

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
            name = name.lower()
            if name == b"transfer-encoding" and value.lower() != b"chunked":
                raise Broken("a coding that nobody asked for")  # its bytes would pass for the content
            self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if self.status:
            return
        if status < 200:
            if status == 101 and self._upgrade and self._parser.should_upgrade():
                self._switched()
            return
        if status > 599:
            raise Broken("the status is none")  # RFC 9110 §15
        self.status = status
        if self._head_only or status in (204, 304):
            # The parser would wait for the body that Content-Length announces and nobody sends.
            self.complete = True
        if not self._head.done():
            self._head.set_result(None)

    def _switched(self) -> None:
        """From here on the bytes are of another protocol, and wait for whoever speaks it."""
        self.status = 101
        if self.transport is not None:
            self.transport.pause_reading()
        if not self._head.done():
            self._head.set_result(None)

    def hand_over(self, successor: asyncio.Protocol) -> tuple[asyncio.Transport, bytes]:
        """Give a connection that has switched protocols to `successor`: the transport, and what has been
        said already. Raises Broken."""
        if self.closed or self.transport is None:
            raise Broken("the connection was lost")
        self.transport.set_protocol(successor)
        del self._parser  # see `connection_lost`, which comes to the successor now
        if self._watch is not None:
            self._watch.cancel()
        return self.transport, self._early

    def on_body(self, body: bytes) -> None:
        if self.complete:
            return
        if not self.status:  # it would become the beginning of the real answer's: RFC 9110 §15.2
            raise Broken("an interim response with a body")
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
        if self._ended or self.status == 101:
            return
        self.complete = self._ended = True
        # Also for HEAD and friends: only the parser knows that the message ended where it should.
        self.reusable = self._parser.should_keep_alive() and not self._head_only
        self._wake()

    # -- the exchange -------------------------------------------------------------------------------

    def send(self, data: bytes) -> None:
        """Send bytes. Raises Broken where the connection is lost."""
        if self.closed or self.transport is None:
            lost = self._error or Broken("the connection was lost", virgin=not self._answered)
            raise lost.again()
        self.transport.write(data)

    async def writable(self, patience: float) -> None:
        """Wait until the upstream takes more; raises TimeoutError after `patience` seconds."""
        if not self._writable.is_set():
            async with asyncio.timeout(patience):
                await self._writable.wait()

    def head_within(self, patience: float) -> asyncio.Future[None]:
        """Done when the response head has come or will not come any more, in so many seconds at most:
        `check_head` says which."""
        if not self._head.done():
            self._expect(patience)
        return self._head

    def check_head(self) -> None:
        """Raises Broken or Late where the head has not come."""
        self._due = math.inf
        if self._error is not None and not self.status:
            raise self._error.again()

    @property
    def head_done(self) -> asyncio.Future[None]:
        return self._head

    def whole(self) -> bytes | None:
        """The body, if it has come to its end; else None."""
        return self._join() if self.complete and self._error is None else None

    async def chunk(self, patience: float) -> bytes:
        """The next piece of the body, empty at its end. Raises Broken, or Late after so many seconds."""
        while not self._chunks:
            if self._error is not None:
                raise self._error.again()
            if self.complete:
                return b""
            self._news = self._loop.create_future()
            self._expect(patience)
            await self._news
            self._due = math.inf
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

    def _expect(self, patience: float) -> None:
        """One timer for each connection, not for each wait: it looks now and then whether time is up."""
        self._due = self._loop.time() + patience
        if self._due < self._watch_at:
            self._watch_for(self._due)

    def _watch_for(self, due: float) -> None:
        if self._watch is not None:
            self._watch.cancel()
        self._watch, self._watch_at = self._loop.call_at(due, self._check_due), due

    def _check_due(self) -> None:
        self._watch, self._watch_at = None, math.inf
        if self._due == math.inf or self.closed:
            return
        if self._loop.time() < self._due:
            self._watch_for(self._due)
        else:
            self._fail(Late("the upstream took too long"))

    def close(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
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
            self._fail(Broken(f"the response is malformed: {type(error).__name__}"))

    def _fail(self, error: Broken) -> None:
        self._error = self._error or error
        self.reusable = False
        if not self._head.done():
            self._head.set_result(None)
        self._wake()
        self.close()

    def _wake(self) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(None)
