"""One request and its answer, on a connection of ours."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from uvicorn._types import ASGIReceiveEvent
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from bff.errors import BodyTooLarge
from bff.request import Headers, RequestHead
from bff.tunnel import Tunnel

EVENT_STREAM = b"text/event-stream"
LEAVE_SECONDS = 1.0


class Exchange(RequestResponseCycle):
    """One request and its answer. Answer it whole, or begin, write and end; or speak ASGI."""

    head: RequestHead
    task: asyncio.Task[None]
    stop_when_lost = False
    """Whether nothing is to be done any more once the browser has gone: the task is cancelled."""
    status = 0
    """Of the answer, once it has begun."""
    stop: Callable[[], object] | None = None
    """Ends an answer that would stay open, when the server shuts down."""
    hand_over: Callable[[Tunnel], bytes] | None = None
    """Where the request asks for a WebSocket: gives the connection to a tunnel."""
    access_log = False
    default_headers = []
    disconnected = False
    more_body = True
    response_started = response_complete = False
    chunked_encoding: bool | None = None
    expected_content_length = 0
    _events = False  # whether the answer is a stream of events, which may end at any time
    _left: int | None = None  # of the body that Content-Length announces
    _arrival: asyncio.Future[None] | None = None
    _body_told = False  # to the end: all that can come is that the browser goes

    def __init__(
        self,
        head: RequestHead,
        transport: asyncio.Transport,
        flow: FlowControl,
        on_response: Callable[[], None],
        *,
        server: tuple[str, int | None] | None,
        keep_alive: bool,
        persistent: bool,
    ) -> None:
        """`on_response` is told that the answer is complete. `persistent`: whether the client knows chunks
        (HTTP/1.1)."""
        # What uvicorn's own would set, without what we have no use for: this is made for every request.
        self.scope = {"method": head.method}  # type: ignore[typeddict-item]
        self.transport = transport
        self.flow = flow
        self.on_response = on_response
        self.server = server
        self.keep_alive = keep_alive
        # An older client knows no interim answer, and there is no other expectation (RFC 9110 §10.1.1).
        expect = head.single(b"expect") if persistent else None
        self.waiting_for_100_continue = expect is not None and expect.lower() == b"100-continue"
        self.body = bytearray()
        self.head = head
        self._persistent = persistent

    @property
    def message_event(self) -> Exchange:  # type: ignore[override]
        """What the protocol sets when something of the body has come, or nothing more will: itself."""
        return self

    def set(self) -> None:
        """Wake who waits for the body."""
        if self._arrival is not None and not self._arrival.done():
            self._arrival.set_result(None)

    async def receive(self) -> ASGIReceiveEvent:
        """ASGI's `receive`: what has come of the body, waiting for it if need be."""
        if self.waiting_for_100_continue and not self.transport.is_closing():
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self.waiting_for_100_continue = False
        while not (self.body or self.disconnected or self.response_complete) and (
            self.more_body or self._body_told
        ):
            self.flow.resume_reading()
            self._arrival = asyncio.get_running_loop().create_future()
            await self._arrival
        if self.disconnected or self.response_complete:
            return {"type": "http.disconnect"}
        piece, self.body, self._body_told = bytes(self.body), bytearray(), not self.more_body
        return {"type": "http.request", "body": piece, "more_body": self.more_body}

    def answer(self, status: int, headers: Headers, body: bytes) -> None:
        """The whole answer in one piece. `headers` without a Content-Length get one where it has a body."""
        if self.disconnected:
            return
        bodiless = self._bodiless(status)
        head = self._head(status, headers, None if bodiless else len(body))
        self.transport.write(head if bodiless else head + body)
        self._complete()

    def begin(self, status: int, headers: Headers) -> None:
        """The head of an answer whose body comes in pieces."""
        if not self.disconnected:
            self.transport.write(self._head(status, headers, None))
            self._events = are_events(headers)
            if self._bodiless(status):
                self.chunked_encoding, self._left = False, 0

    async def write(self, piece: bytes) -> None:
        """A piece of the body; waits while the browser does not take it."""
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        self.push(piece)

    def push(self, piece: bytes) -> None:
        """A piece of the body, without waiting."""
        if self.disconnected or not piece:
            return
        if self.chunked_encoding:
            self.transport.writelines((b"%x\r\n" % len(piece), piece, b"\r\n"))
            return
        if self._left is not None:
            self._left -= len(piece)
            if self._left < 0:
                raise RuntimeError("the body is longer than its Content-Length")
        self.transport.write(piece)

    def end(self) -> None:
        """The end of the body."""
        if self.disconnected:
            return
        if self._left:
            raise RuntimeError("the body is shorter than its Content-Length")
        if self.chunked_encoding:
            self.transport.write(b"0\r\n\r\n")
        self._complete()

    def leave(self) -> None:
        """End an answer before its time, and the connection within a moment. A stream of events just ends;
        anything else must not look whole."""
        if self.disconnected or self.response_complete:
            return
        self.keep_alive = False
        if self._events and self.chunked_encoding and not self.flow.write_paused:
            self.end()
        else:
            self.transport.close()
        # A browser that takes nothing would keep what is still to be sent, and its connection.
        asyncio.get_running_loop().call_later(LEAVE_SECONDS, self.transport.abort)

    def conclude(self) -> None:
        """Nobody is at it any more: an answer that was cut short must not look whole."""
        if not (self.response_complete or self.disconnected):
            self.transport.close()

    def switch(self, headers: Headers, tunnel: Tunnel) -> bytes:
        """Answer 101 and give the connection to the tunnel; what the browser has sent into it already."""
        if self.hand_over is None:
            raise RuntimeError("the request asked for no other protocol")
        self.keep_alive = True  # to whom it belongs now
        self.transport.write(self._head(101, headers, None))
        return self.hand_over(tunnel)

    def _bodiless(self, status: int) -> bool:
        return status in (101, 204, 304) or self.head.method == "HEAD"

    def _head(self, status: int, headers: Headers, length: int | None) -> bytes:
        """`length` is that of a body that is known whole."""
        self.response_started = True
        self.status = status
        self.waiting_for_100_continue = False
        lines = [STATUS_LINE[status][:-2], *map(b": ".join, headers)]
        sizes = [value for name, value in headers if name == b"content-length"]
        for value in sizes:
            self._left = int(value)
            if length is not None and length != self._left:
                raise RuntimeError("the body is not as long as its Content-Length")
        if not sizes:
            lines += self._framing(status, length)
        if not self.keep_alive:
            lines.append(b"connection: close")
        text = b"".join(lines)
        if b"\n" in text or b"\r" in text:
            raise RuntimeError("a header has a line break in it")  # response splitting
        lines.append(b"\r\n")
        return b"\r\n".join(lines)

    def _framing(self, status: int, length: int | None) -> list[bytes]:
        if length is not None:
            return [b"content-length: %d" % length]
        if self._bodiless(status):
            return []
        if self._persistent:
            self.chunked_encoding = True
            return [b"transfer-encoding: chunked"]
        self.keep_alive = False  # RFC 9112 §6.3: the body ends with the connection
        return []

    def _complete(self) -> None:
        self.response_complete = True
        self.set()
        if not self.keep_alive:
            self.transport.close()
        self.on_response()


class Disconnected(Exception):
    """The browser has gone; nobody waits for an answer."""


class Body:
    """A request body as it comes, cut off where it grows past its limit."""

    def __init__(self, receive: Callable[[], Awaitable[Any]], limit: int) -> None:
        self._receive = receive
        self._room = limit
        self._limit = limit

    async def __aiter__(self) -> AsyncIterator[bytes]:
        more = True
        while more:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise Disconnected
            piece: bytes = message.get("body", b"")
            more = message.get("more_body", False)
            self._room -= len(piece)
            if self._room < 0:
                raise BodyTooLarge(f"The body may have {self._limit} bytes at most.")
            yield piece


def are_events(headers: Headers) -> bool:
    """Whether these are the headers of a stream of events."""
    return any(name == b"content-type" and value.lower().startswith(EVENT_STREAM) for name, value in headers)


def has_body(head: RequestHead) -> bool:
    return head.has(b"transfer-encoding") or head.single(b"content-length") not in (None, b"0")
