"""A browser's connection: uvicorn's HTTP/1.1 with the checks that it leaves out.

The parser is llhttp's, the life of a connection uvicorn's. What is ours is how strict it is, and how long a
client may owe us bytes.
"""

from __future__ import annotations

import asyncio
import math
import re
from typing import Any

import httptools
import structlog
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from bff.answers import CommonHeaders, error_answer
from bff.attendant import Attendant
from bff.errors import BadRequest, HeadersTooLarge, PublicError
from bff.exchange import Exchange
from bff.request import RequestHead, new_request_id
from bff.tunnel import Tunnel
from bff.websocket import is_handshake

DEFAULT_HEADER_BYTES = 65_536
HEAD_SECONDS = 30.0
"""How long a request's head may take, from the first connection on, however its bytes come."""
BODY_PAUSE_SECONDS = 60.0
"""The longest pause in a request's body, while we are ready to read it."""
ANSWER_PAUSE_SECONDS = 60.0
"""The longest time that a client may take nothing of an answer which waits for it. Streams may wait longer:
they are bounded in number, and end with their sessions."""
UNASKED_SECONDS = 30.0
UNASKED_BYTES = 1_048_576
"""For how long, and how much, may still come of a request body after its answer: enough for the answer to
be heard first."""

CONNECTION = "bff.connection"
"""Where ASGI applications find the connection in their scope."""

_TARGET = re.compile(rb"/[\x21-\x22\x24-\x7e]*\Z")  # origin-form, visible ASCII, no fragment

log = structlog.get_logger("bff.server")


class Protocol(HttpToolsProtocol):
    """Uvicorn's HTTP/1.1 connection with a limit on heads and one meaning for each target.

    Refuses with 400 or 431 and closes: absolute-form targets and fragments (hidden from applications by
    the server), a missing or doubled Host, and heads over the limit (which the parser does not have).
    Ends connections whose client owes us bytes for too long: anybody can open some and say nothing.

    An application that has the method named by `taker` is given exchanges; any other speaks ASGI.
    """

    taker = "exchange"
    max_header_bytes = DEFAULT_HEADER_BYTES
    head_seconds = HEAD_SECONDS
    body_pause_seconds = BODY_PAUSE_SECONDS
    answer_pause_seconds = ANSWER_PAUSE_SECONDS
    unasked_seconds = UNASKED_SECONDS
    common = CommonHeaders(secure=False)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        take = getattr(self.app, self.taker, None)
        self._attendant = take and Attendant(self.loop, take, self.tasks)
        self.lost = False
        self._in_head = True
        self._fed = 0  # bytes given to the parser since the head began, or since the last piece of a body
        self._head_bytes = 0  # bytes of the head that the parser has reported
        self._unasked = 0  # bytes of a body whose request has been answered
        self._refusal: PublicError | None = None
        self._owed_until = math.inf  # when the client must have sent what it has begun
        self._untaken = 0  # bytes of an answer that the client did not take when we last looked
        self._untaken_since = 0.0
        self._watch: asyncio.TimerHandle | None = None
        self._active: Any = None  # the exchange being answered; self.cycle is the last that was asked for
        self._held: bytearray | None = None  # what comes after a request for another protocol

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._owe(self.head_seconds)
        self._check_owed()

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():  # refused before
            return
        if self._held is not None:
            self._hold(data)
            return
        self._fed += len(data)
        self._parse(data)
        if self._fed > self.max_header_bytes:  # a head, a trailer or a chunk extension without end
            self._refusal = HeadersTooLarge("The request's headers are too large.")
        if self._refusal is not None:
            self._refuse(self._refusal)

    def _parse(self, data: bytes) -> None:
        while data:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                data = data[upgrade.args[0] :]
                if self._may_hand_over():
                    self._held = bytearray()
                    self._hold(data)
                    return
                # An upgrade that is not made changes nothing (RFC 9110 §7.8): here the parser stops, and what
                # follows is the next request. Were it dropped, the rest of that one, come later, would be
                # taken for a request of its own (smuggling).
            except httptools.HttpParserError:
                self.send_400_response("")
                return
            else:
                return

    def _may_hand_over(self) -> bool:
        return getattr(self.cycle, "hand_over", None) is not None

    def _hold(self, data: bytes) -> None:
        """What follows is no HTTP, or there would be two readings of it (request smuggling): it waits until
        the upstream has agreed, and is nobody's if it does not."""
        held: Any = self._held
        held += data
        if len(held) > HIGH_WATER_LIMIT:
            self.flow.pause_reading()

    def _hand_over(self, tunnel: Tunnel) -> bytes:
        held, self._held = bytes(self._held or b""), bytearray()
        tunnel.browser.transport = self.transport
        tunnel.ended.add_done_callback(lambda _: self.connection_lost(None))
        self.transport.set_protocol(tunnel.browser)
        self.flow.resume_reading()
        return held

    def shutdown(self) -> None:
        """The server ends: so do answers that would stay open."""
        super().shutdown()
        if self._active is not None and self._active.stop is not None:
            self._active.stop()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        super().connection_lost(exc)
        active = self._active
        if active is not None and not active.response_complete:
            active.disconnected = True
            active.set()
            if active.stop_when_lost:
                active.task.cancel()
        # What holds each other would wait for the collector: the memory of thousands of connections.
        self.cycle = self._active = None  # type: ignore[assignment]
        self.pipeline.clear()
        if self._attendant is not None:
            self._attendant.dismiss()

    def on_message_begin(self) -> None:
        if self._attendant is None:
            super().on_message_begin()
            self.scope[CONNECTION] = self  # type: ignore[literal-required]
        else:
            self.url = b""
            self.headers = []
        self._in_head = True
        self._owe(self.head_seconds)
        self._fed = self._head_bytes = self._unasked = 0

    def on_url(self, url: bytes) -> None:
        self._head_bytes += len(url)
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:  # trailers come the same way, and are dropped
            self._head_bytes += len(name) + len(value) + 4
            name = name.lower()
            if name == b"expect" and value.lower() == b"100-continue":
                self.expect_100_continue = True
            self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._owed_until = self.loop.time() + self.body_pause_seconds
        if self._refusal is not None:
            return
        method, version = self.parser.get_method().decode("ascii"), self.parser.get_http_version()
        path, _, query = self.url.partition(b"?")
        peer = self.client[0] if self.client else None
        head = RequestHead(method, path, query, self.headers, peer)
        self._refusal = self._judge_head(head, version)
        if self._refusal is not None:
            return
        if self._attendant is None:
            super().on_headers_complete()
        else:
            self._begin_exchange(head, persistent=version != "1.0")

    def on_body(self, body: bytes) -> None:
        self._fed = 0
        if self._refusal is not None:
            return
        super().on_body(body)
        if self.cycle.response_complete:
            self._unasked += len(body)
            if self._unasked > UNASKED_BYTES:  # a body without end must not be read for ever
                self.transport.close()
        else:
            self._owe(self.body_pause_seconds)

    def on_message_complete(self) -> None:
        self._owed_until = math.inf
        if self._refusal is None and not self.cycle.response_complete:
            self.cycle.more_body = False
            self.cycle.message_event.set()
        self._in_head, self._fed = True, 0

    def on_response_complete(self) -> None:
        """What uvicorn does, but for its timer: how long the client may be silent is for our own to watch."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        elif self._owed_until == math.inf:
            self._owe(self.timeout_keep_alive)
        else:
            self._owe(self.unasked_seconds)  # what is left of the request's body

    def _begin_exchange(self, head: RequestHead, *, persistent: bool) -> None:
        earlier: Any = self.cycle
        keep_alive = persistent and self.parser.should_keep_alive()
        exchange = self.cycle = Exchange(
            head,
            self.transport,
            self.flow,
            self.on_response_complete,
            server=self.server,
            keep_alive=keep_alive,
            persistent=persistent,
        )
        if persistent and head.has(b"upgrade") and self.parser.should_upgrade() and is_handshake(head):
            exchange.hand_over, exchange.keep_alive = self._hand_over, False
        if earlier is None or earlier.response_complete:
            self._start_asgi_task(exchange, self.app)
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((exchange, self.app))

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        if self._attendant is None:
            super()._start_asgi_task(cycle, app)
            return
        self._active = cycle
        self._attendant.serve(cycle)  # type: ignore[arg-type]

    def _idle(self) -> bool:
        cycle: Any = self.cycle
        return cycle is None or cycle.response_complete

    def _owe(self, seconds: float) -> None:
        self._owed_until = self.loop.time() + seconds

    def _check_owed(self) -> None:
        """One timer for each connection, not for each request: it looks now and then whether time is up."""
        now = self.loop.time()
        if self.flow.read_paused and self._owed_until < math.inf:  # it is we who do not read
            self._owe(self.body_pause_seconds)
        if not self._taken(now):
            log.info("answer_not_taken", reason="the client does not read what it has asked for")
        elif now < self._owed_until:
            self._watch = self.loop.call_at(min(self._owed_until, now + self.head_seconds), self._check_owed)
            return
        elif self._fed or not self._in_head:
            log.info("request_overdue", reason="the client has not sent what it began")
        self.transport.abort()

    def _taken(self, now: float) -> bool:
        """Whether the client reads its answer. Where that is held back for it, or is complete, nobody adds to
        what waits: as long as that stays the same, nothing of it is taken."""
        streams = self._active is not None and self._active.stop is not None
        waits = self.transport.is_closing() or (self.flow.write_paused and not streams)
        untaken = self.transport.get_write_buffer_size() if waits else 0
        if untaken != self._untaken:
            self._untaken, self._untaken_since = untaken, now
        return not untaken or now - self._untaken_since < self.answer_pause_seconds

    def pause_writing(self) -> None:
        super().pause_writing()
        self._untaken = 0  # it has taken something since we last looked

    def send_400_response(self, _message: str) -> None:
        """What the parser refuses: smuggling attempts, mostly."""
        self._refusal = BadRequest("The request is not HTTP/1.1 as it should be.")

    def _judge_head(self, head: RequestHead, version: str) -> PublicError | None:
        if self._head_bytes > self.max_header_bytes:
            return HeadersTooLarge("The request's headers are too large.")
        if not _TARGET.match(self.url):
            return BadRequest("The request target must be a path on this server.")
        if version not in ("1.1", "1.0"):
            return BadRequest("The request must be HTTP/1.1.")
        if head.single(b"host") is None and (version != "1.0" or head.has(b"host")):
            return BadRequest("The request must name one Host.")  # RFC 9112 §3.2
        if head.has(b"transfer-encoding") or head.has(b"content-length"):
            return self._judge_framing(head.values(b"transfer-encoding"), version)
        return None

    def _judge_framing(self, codings: list[bytes], version: str) -> PublicError | None:
        """Refuse what the parser refuses only when the application has begun, or reads in another way."""
        if codings and version == "1.0":  # unknown there: who came before us saw another end (RFC 9112 §6.1)
            return BadRequest("HTTP/1.0 knows no chunks.")
        if codings and [coding.lower() for coding in codings] != [b"chunked"]:
            return BadRequest("The body must be sent as it is or in chunks.")  # RFC 9112 §6.1
        if self.parser.should_upgrade():
            # The parser takes such a body for another protocol: the next request could hide in it.
            return BadRequest("A request for another protocol cannot have a body here.")
        return None

    def _refuse(self, error: PublicError) -> None:
        """Answer and close; where another answer is under way on the connection, only close."""
        request_id = new_request_id()
        log.info(
            "request_refused",
            code=error.code,
            status=error.status,
            reason=error.detail,
            request_id=request_id.decode(),
        )
        if not self._may_answer():
            self.transport.abort()
            return
        answer = error_answer(error, None, request_id)
        lines = [STATUS_LINE[answer.status]]
        for name, value in self.common.add(answer.headers, ours=False):
            lines.append(name + b": " + value + b"\r\n")
        self.transport.write(b"".join(lines) + b"connection: close\r\n\r\n" + answer.body)
        self.transport.close()

    def _may_answer(self) -> bool:
        """Whether what is written now answers the request that is refused; if so, nobody else answers it."""
        cycle: Any = self.cycle
        if self._idle():
            return True
        if self._in_head or self.pipeline or cycle.response_started:
            return False  # the cycle is an earlier request's, or waits behind one, or has begun to answer
        cycle.disconnected = True  # the application has begun, on a body that turned out to be broken
        cycle.message_event.set()
        return True
