"""`GET /bff/events`: the browser is told before its session ends, and when it has ended, and why.

Server-Sent Events (HTML Living Standard §9.2). It holds no thread, extends nothing, and sends a comment now
and then, so that proxies in front do not take the silence for the end.
"""

from __future__ import annotations

import asyncio
import json
import random
from typing import Any

from bff.access import Access
from bff.answers import CommonHeaders
from bff.exchange import Exchange
from bff.request import Headers, TrustedProxies
from bff.sessions.ending import Reason
from bff.sockets import probe_when_quiet
from bff.streams import Streams

HEADERS: Headers = [
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),  # nginx would collect them
]
_BEAT = b":\n\n"
_RETRY_MILLISECONDS = (1_000, 5_000)


class _Feed:
    """One open answer."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def beat(self) -> None:
        self._say(_BEAT)

    def expiring(self, seconds: float) -> None:
        self._say(_event("session-expiring", seconds=max(0, round(seconds))))

    def end(self, reason: Reason | None = None) -> None:
        if self.ended.done():
            return
        if reason is not None:
            self._say(_event("session-ended", reason=reason))
        self._exchange.leave()
        self.ended.set_result(None)

    def _say(self, text: bytes) -> None:
        """A browser that takes nothing misses it: what it does not read must not pile up here."""
        if not self._exchange.flow.write_paused:
            self._exchange.push(text)


class Events:
    """The address, for the data plane."""

    def __init__(
        self, access: Access, streams: Streams, proxies: TrustedProxies, common: CommonHeaders
    ) -> None:
        self._access = access
        self._streams = streams
        self._proxies = proxies
        self._common = common

    async def answer(self, exchange: Exchange) -> None:
        """Tell the browser until its session ends or it goes. Raises TooManyStreams, SignInNeeded or
        StoreUnavailable."""
        head = exchange.head
        owner = self._access.owner(head) or self._proxies.client_address(head)
        with self._streams.place(owner):
            record = await self._access.session(head)
            feed = _Feed(exchange)
            exchange.stop = feed.end
            probe_when_quiet(exchange.transport)
            exchange.begin(200, self._common.add(HEADERS, ours=True))
            # After a restart not all browsers are to come back in the same instant.
            exchange.push(b"retry: %d\n\n" % random.randint(*_RETRY_MILLISECONDS))  # noqa: S311
            try:
                with self._streams.watch(record, feed):
                    await feed.ended
            finally:
                exchange.stop = None


def _event(name: str, **data: Any) -> bytes:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()
