"""Distributed tracing by OpenTelemetry: spans for requests, refreshes and calls to the provider.

Optional: `pip install bff[otel]`, and the standard's own environment variables, above all
OTEL_EXPORTER_OTLP_ENDPOINT. Without both, the W3C trace context is passed on as it came, and nothing of this
is imported.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import requests
import structlog

from bff.asgi import Message, Receive, Scope, Send
from bff.dataplane import DataPlane
from bff.errors import BadRequest
from bff.exchange import Exchange
from bff.instruments import Instruments, Plane
from bff.provider.renewal import RefreshResult, SameUser
from bff.provider.transport import BoundedAdapter
from bff.proxy import Proxy
from bff.refresh import RefreshingProvider
from bff.request import RequestHead
from bff.routes import Endpoint, Route, RouteTable
from bff.sessions.reader import Asks
from bff.tokens import TokenSet

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span, Tracer

FLUSH_MILLISECONDS = 2000
"""What the last spans get to be sent at the end of a process."""
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_HTTP = "http/protobuf"

log = structlog.get_logger("bff.tracing")


def wanted(environ: Mapping[str, str]) -> bool:
    """Whether OpenTelemetry's variables ask for traces."""
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    default = "otlp" if any(environ.get(name) for name in _ENDPOINTS) else "none"
    return environ.get("OTEL_TRACES_EXPORTER", default) != "none"


def exporting(environ: Mapping[str, str]) -> TracerProvider | None:
    """What sends spans to a collector, as the variables ask; None, with a line in the log, where it can't."""
    exporter = environ.get("OTEL_TRACES_EXPORTER", "otlp")
    protocol = next((environ[name] for name in _PROTOCOLS if environ.get(name)), _HTTP)
    if exporter != "otlp" or protocol != _HTTP:
        log.warning("tracing_unavailable", reason=f"only the exporter otlp over {_HTTP} is supported")
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        log.warning("tracing_unavailable", reason="OpenTelemetry is not installed: pip install 'bff[otel]'")
        return None
    named = environ.get("OTEL_SERVICE_NAME") or "service.name=" in environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    resource = Resource.create({} if named else {"service.name": "bff"})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider


class Tracing(Instruments):
    """Fits spans around what other instruments have been fitted to."""

    def __init__(self, inner: Instruments, table: RouteTable, provider: TracerProvider) -> None:
        self._inner = inner
        self._table = table
        self._tracer = provider.get_tracer("bff")
        self._flush = provider.force_flush
        self.metrics = inner.metrics

    def adapter(self, deadline_seconds: float, authorities: Path | None) -> BoundedAdapter:
        return TracedAdapter(deadline_seconds, authorities, self._tracer)

    def wire(self, wire: Asks) -> Asks:
        return self._inner.wire(wire)

    def provider(self, provider: RefreshingProvider) -> RefreshingProvider:
        return TracedProvider(self._inner.provider(provider), self._tracer)

    def proxy(self, **parts: Any) -> Proxy:
        return self._inner.proxy(**parts)

    def plane(self, plane: DataPlane) -> Plane:
        return TracedPlane(self._inner.plane(plane), self._table, self._tracer, self._flush)


class TracedPlane:
    """A span for each request to a route or to `/bff/*`; it goes upstream as the parent of what follows."""

    def __init__(
        self, plane: Plane, table: RouteTable, tracer: Tracer, flush: Callable[[int], object]
    ) -> None:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._plane = plane
        self._resolve = table.resolve
        self._tracer = tracer
        self._flush = flush
        self._propagator = TraceContextTextMapPropagator()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The application's life; its last spans are sent before it ends."""

        async def sending(message: Message) -> None:
            if message["type"] == "lifespan.shutdown.complete":
                await asyncio.to_thread(self._flush, FLUSH_MILLISECONDS)
            await send(message)

        await self._plane(scope, receive, sending)

    def drain(self) -> None:
        """We are about to end."""
        self._plane.drain()

    async def forward_auth(self, exchange: Exchange) -> None:
        """Answer a proxy's question."""
        await self._plane.forward_auth(exchange)

    async def exchange(self, exchange: Exchange) -> None:
        """Answer one request."""
        from opentelemetry.trace import SpanKind

        head = exchange.head
        path = self._traced(head)
        if path is None:
            await self._plane.exchange(exchange)
            return
        with self._tracer.start_as_current_span(
            f"{head.method} {path}",
            self._propagator.extract(_carrier(head)),
            SpanKind.SERVER,
            {
                "http.request.method": head.method,
                "http.route": path,
                "bff.request_id": head.request_id.decode(),
            },
            record_exception=False,  # its text may quote what somebody sent
        ) as span:
            onward: dict[str, str] = {}
            self._propagator.inject(onward)
            head.trace = [(name.encode(), value.encode()) for name, value in onward.items()]
            try:
                await self._plane.exchange(exchange)
            finally:
                _conclude(span, exchange.status)

    def _traced(self, head: RequestHead) -> str | None:
        """The name of what is asked for, if it is worth a span."""
        with suppress(BadRequest):
            _, entry = self._resolve(head.path)
            if isinstance(entry, Route) or (isinstance(entry, Endpoint) and entry.path.startswith("/bff/")):
                return entry.path
        return None


class TracedProvider:
    """A span for each refresh."""

    def __init__(self, provider: RefreshingProvider, tracer: Tracer) -> None:
        self._provider = provider
        self._tracer = tracer
        self.revoke, self.discard = provider.revoke, provider.discard

    def refresh(self, tokens: TokenSet, same_user: SameUser, before: Callable[[], None]) -> RefreshResult:
        """Redeem the refresh token."""
        with self._tracer.start_as_current_span("refresh", record_exception=False) as span:
            result = self._provider.refresh(tokens, same_user, before)
            span.set_attribute("bff.outcome", type(result).__name__)
            return result


class TracedAdapter(BoundedAdapter):
    """A span for each call to the provider: the endpoint, never a query or a body."""

    def __init__(self, deadline_seconds: float, authorities: Path | None, tracer: Tracer) -> None:
        super().__init__(deadline_seconds, authorities)
        self._tracer = tracer

    def send(self, request: requests.PreparedRequest, **options: Any) -> requests.Response:  # type: ignore[override]
        from opentelemetry.trace import SpanKind, Status, StatusCode

        parts = urlsplit(request.url or "")
        about = {
            "http.request.method": request.method or "",
            "server.address": parts.hostname or "",
            "url.path": parts.path,
        }
        with self._tracer.start_as_current_span(
            f"{request.method} {parts.path}",
            kind=SpanKind.CLIENT,
            attributes=about,
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                response = super().send(request, **options)
            except requests.RequestException as error:
                span.set_status(Status(StatusCode.ERROR, type(error).__name__))
                raise
            _conclude(span, response.status_code)
            return response


def _carrier(head: RequestHead) -> dict[str, str]:
    """The caller's place in a trace, unless it is told twice (W3C Trace Context §3.2)."""
    parent = head.single(b"traceparent")
    if parent is None:
        return {}
    state = b",".join(head.values(b"tracestate"))
    return {"traceparent": parent.decode("latin-1"), "tracestate": state.decode("latin-1")}


def _conclude(span: Span, status: int) -> None:
    from opentelemetry.trace import Status, StatusCode

    if status:
        span.set_attribute("http.response.status_code", status)
    else:
        span.set_attribute("error.type", "aborted")
    if status >= 500:
        span.set_status(Status(StatusCode.ERROR))
