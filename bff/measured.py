"""The data plane with its times taken: wrapped around it where metrics are wanted, and nowhere else.

Without metrics none of this is in the way of a request. With them it costs a few microseconds each.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import structlog

from bff.asgi import Receive, Scope, Send
from bff.dataplane import DataPlane
from bff.errors import BadRequest
from bff.exchange import Exchange
from bff.instruments import Instruments, Plane
from bff.logs import listen
from bff.metrics import Metrics
from bff.prometheus import Prometheus, Timings
from bff.provider.renewal import (
    GrantEnded,
    Refreshed,
    RefreshFailed,
    RefreshResult,
    SameUser,
    Unrenewable,
    Unverified,
)
from bff.proxy import Proxy
from bff.refresh import RefreshingProvider
from bff.routes import Route, RouteTable
from bff.sessions.reader import Asks
from bff.tokens import TokenSet
from bff.upstream import Response

FLUSH_SECONDS = 1.0

log = structlog.get_logger("bff.metrics")


class MeasuredPlane:
    """Counts what comes of each request to a proxied route, and hands the counts on once a second."""

    def __init__(self, plane: DataPlane, table: RouteTable, metrics: Prometheus) -> None:
        self._plane = plane
        self._resolve = table.resolve
        self._metrics = metrics
        self._answered = metrics.tally.answer
        self._under_way: set[Exchange] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The application's life."""
        beat = asyncio.create_task(self._beat())
        try:
            await self._plane(scope, receive, send)
        finally:
            beat.cancel()
            self._flush()

    def drain(self) -> None:
        """We are about to end."""
        self._plane.drain()

    async def forward_auth(self, exchange: Exchange) -> None:
        """Answer a proxy's question: its own errors are counted, as everywhere."""
        await self._plane.forward_auth(exchange)

    async def exchange(self, exchange: Exchange) -> None:
        """Answer one request."""
        under_way = self._under_way
        under_way.add(exchange)
        try:
            await self._plane.exchange(exchange)
        finally:
            under_way.discard(exchange)
            with suppress(BadRequest):  # a path that is no route's
                _, entry = self._resolve(exchange.head.path)
                if isinstance(entry, Route):
                    self._answered(entry.path, exchange.status)

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            self._flush()

    def _flush(self) -> None:
        begun = sum(exchange.response_started for exchange in self._under_way)
        try:
            self._metrics.flush(len(self._under_way), begun)
        except OSError as error:  # the files cannot grow: requests go on
            log.warning("metrics_not_written", reason=error.strerror)


class MeasuredProxy(Proxy):
    """Takes the time until an upstream's answer begins."""

    def __init__(self, *, upstream: dict[str, Timings], **parts: Any) -> None:
        """`upstream` has a place for each route's times."""
        super().__init__(**parts)
        self._upstream = upstream

    async def _ask(self, route: Route, *request: Any, **options: Any) -> Response:
        began = time.perf_counter()
        try:
            return await super()._ask(route, *request, **options)
        finally:
            self._upstream[route.path].observe(time.perf_counter() - began)


class MeasuredWire:
    """Takes the time of each question to Redis."""

    def __init__(self, wire: Asks, observe: Callable[[float], None]) -> None:
        self._wire = wire
        self._observe = observe

    async def close(self) -> None:
        """Hang up."""
        await self._wire.close()

    async def ask(self, *command: bytes | str | int) -> Any:
        """The answer."""
        return await self._timed(self._wire.ask(*command))

    async def core(self, key: str) -> Any:
        """The answer."""
        return await self._timed(self._wire.core(key))

    async def _timed(self, answer: Awaitable[Any]) -> Any:
        began = time.perf_counter()
        try:
            return await answer
        finally:
            self._observe(time.perf_counter() - began)


class MeasuredProvider:
    """The provider as refreshes see it, with the outcome and the time of each counted."""

    def __init__(self, provider: RefreshingProvider, metrics: Metrics) -> None:
        self._provider = provider
        self._metrics = metrics
        self.revoke, self.discard = provider.revoke, provider.discard

    def refresh(self, tokens: TokenSet, same_user: SameUser, before: Callable[[], None]) -> RefreshResult:
        """Redeem the refresh token."""
        began = time.perf_counter()
        result = self._provider.refresh(tokens, same_user, before)
        self._metrics.refreshed(_outcome(result), time.perf_counter() - began)
        return result


class Measuring(Instruments):
    """Fits all of this."""

    def __init__(self, table: RouteTable) -> None:
        self._table = table
        self.prometheus = Prometheus(table.paths)
        self.metrics = self.prometheus
        listen(self.prometheus.alert)

    def wire(self, wire: Asks) -> Asks:
        return MeasuredWire(wire, self.prometheus.tally.store.observe)

    def provider(self, provider: RefreshingProvider) -> RefreshingProvider:
        return MeasuredProvider(provider, self.metrics)

    def proxy(self, **parts: Any) -> Proxy:
        return MeasuredProxy(upstream=self.prometheus.tally.upstream, **parts)

    def plane(self, plane: DataPlane) -> Plane:
        return MeasuredPlane(plane, self._table, self.prometheus)


def _outcome(result: RefreshResult) -> str:
    match result:
        case Refreshed():
            return "renewed"
        case Unverified():
            return "unverified"
        case GrantEnded():
            return "grant_ended"
        case Unrenewable():
            return "unrenewable"
        case RefreshFailed():
            return "outage" if result.outage else "refused"
