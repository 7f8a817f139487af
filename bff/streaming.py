"""What every stream that a browser holds open has in common: its place, and its end with its session."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from bff.errors import SessionExpired, StoreUnavailable
from bff.exchange import Exchange
from bff.sessions.ending import Reason
from bff.sessions.record import SessionRecord
from bff.sockets import probe_when_quiet
from bff.streams import Streams


class _Held:
    """A proxied stream: told of its session's end, it stops what is done for it."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self.ended = False
        self.reason: Reason | None = None

    def beat(self) -> None:
        """Its bytes are the upstream's alone."""

    def expiring(self, seconds: float) -> None:
        """Likewise."""

    def end(self, reason: Reason | None = None) -> None:
        if not self.ended:
            self.ended, self.reason = True, reason
            self._exchange.task.cancel()


@contextmanager
def held_open(exchange: Exchange, streams: Streams, record: SessionRecord | None) -> Iterator[None]:
    """Bind what is done for `exchange` in the block to the session of `record`, and to our own life.

    Where that ends first, so does the answer; where it has not begun, raises SessionExpired or
    StoreUnavailable.
    """
    held = _Held(exchange)
    exchange.stop = held.end
    probe_when_quiet(exchange.transport)
    try:
        with streams.watch(record, held) if record is not None else nullcontext():
            yield
    except asyncio.CancelledError:
        if not held.ended or exchange.disconnected:
            raise
        if not exchange.response_started:
            if held.reason is not None:
                raise SessionExpired from None
            raise StoreUnavailable("The stream cannot begin just now. Please try again.") from None
        exchange.leave()
    finally:
        exchange.stop = None
