"""Two connections whose bytes go over to each other as they are: a WebSocket after its handshake.

Back-pressure goes both ways: what one side does not take is not read from the other. The end of one
direction is passed on, and the other may say its last; a connection that breaks takes the other along.
"""

from __future__ import annotations

import asyncio

LAST_WORDS_SECONDS = 30.0
"""How long one direction stays open after the other has ended."""


class Side(asyncio.Protocol):
    """One end of a tunnel, as the protocol of its connection."""

    other: Side

    def __init__(self, tunnel: Tunnel) -> None:
        self._tunnel = tunnel
        self.transport: asyncio.Transport | None = None
        self.ended = False
        """Whether the peer has said that it sends nothing more."""
        self.lost = False

    def data_received(self, data: bytes) -> None:
        self.other.write(data)

    def write(self, data: bytes) -> None:
        """Send what the other side has said."""
        if data and self.transport is not None and not self.transport.is_closing():
            self.transport.write(data)

    def eof_received(self) -> bool:
        """Whether this connection stays open, to be written to."""
        self.ended = True
        self._tunnel.say_last()
        both, transport = self.other.ended, self.other.transport
        if transport is not None and not transport.is_closing():
            if both or not transport.can_write_eof():  # TLS knows no half-closed connection
                transport.close()
            else:
                transport.write_eof()
        return not both and self.transport is not None and self.transport.can_write_eof()

    def pause_writing(self) -> None:
        transport = self.other.transport
        if transport is not None and not transport.is_closing():
            transport.pause_reading()

    def resume_writing(self) -> None:
        transport = self.other.transport
        if transport is not None and not transport.is_closing() and not self.other.ended:
            transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self._tunnel.lost(self, exc)


class Tunnel:
    """Both sides; each is told its transport. `ended` is done when both connections are closed."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.browser, self.upstream = Side(self), Side(self)
        self.browser.other, self.upstream.other = self.upstream, self.browser
        self.ended: asyncio.Future[None] = loop.create_future()
        self._patience: asyncio.TimerHandle | None = None

    def say_last(self) -> None:
        """From now on the tunnel is open for a bounded time."""
        if self._patience is None:
            self._patience = self._loop.call_later(LAST_WORDS_SECONDS, self.abort)

    def lost(self, side: Side, exc: Exception | None) -> None:
        """One connection is closed: so is the other, once it has been told what was said before."""
        transport = side.other.transport
        if transport is not None and not side.other.lost:
            self.say_last()
            if exc is None:
                transport.close()
            else:
                transport.abort()
        elif not self.ended.done():
            self.ended.set_result(None)
            if self._patience is not None:
                self._patience.cancel()

    def abort(self) -> None:
        """Close both connections at once; what has not been sent is lost."""
        for side in (self.browser, self.upstream):
            if side.transport is not None:
                side.transport.abort()
