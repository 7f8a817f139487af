"""Traces: spans for requests, refreshes and provider calls, one trace from caller to upstream, no secret."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from structlog.testing import capture_logs

pytest.importorskip("opentelemetry.sdk", reason="OpenTelemetry is not installed; pip install 'bff[otel]'")

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from bff import tracing
from bff.dataplane import DataPlane
from bff.logs import listen
from tests.support.browser import CSRF
from tests.support.provider import Reply
from tests.support.stack import Stack, Store, running, store
from tests.support.wire import until

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"


@pytest.fixture(scope="module")
def module_store() -> Iterator[Store]:
    with store() as found:
        yield found


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    """What would be sent to a collector."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(tracing, "exporting", lambda _environ: provider)
    return exporter


@pytest.fixture
def stack(module_store: Store, spans: InMemorySpanExporter) -> Iterator[Stack]:
    with running(module_store, metrics_bind="127.0.0.1:9", provider_timeout_seconds="2") as found:
        yield found
    listen(None)


def named(spans: InMemorySpanExporter, name: str) -> ReadableSpan:
    """The span of this name, once it has ended."""
    assert until(lambda: any(span.name == name for span in spans.get_finished_spans())), name
    return [span for span in spans.get_finished_spans() if span.name == name][-1]


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def context(span: ReadableSpan) -> tuple[str, str, str | None]:
    """Trace, span and parent."""
    assert span.context is not None
    parent = f"{span.parent.span_id:016x}" if span.parent else None
    return f"{span.context.trace_id:032x}", f"{span.context.span_id:016x}", parent


def test_one_trace_from_the_caller_to_the_upstream(stack: Stack, spans: InMemorySpanExporter) -> None:
    """Our span stands between the caller's and the upstream's; its name is the route."""
    browser = stack.sign_in(stack.browser())
    sent = CSRF | {"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "vendor=1"}
    assert browser.get("/weather/4711?secret=1", sent).status == 200
    span = named(spans, "GET /weather")
    trace, ours, parent = context(span)
    assert (trace, parent, span.kind) == (TRACE, PARENT, SpanKind.SERVER)
    upstream = stack.upstream.requests[-1]
    assert upstream.get("traceparent") == f"00-{TRACE}-{ours}-01"
    assert upstream.get("tracestate") == "vendor=1"
    assert attributes(span) == {
        "http.request.method": "GET",
        "http.route": "/weather",
        "http.response.status_code": 200,
        "bff.request_id": upstream.get("x-request-id"),
    }


@pytest.mark.parametrize("given", [None, "nonsense", f"00-{'0' * 32}-{PARENT}-01"])
def test_a_trace_of_our_own(stack: Stack, spans: InMemorySpanExporter, given: str | None) -> None:
    """Where no place in a trace came, or none that makes sense, one begins here."""
    browser = stack.sign_in(stack.browser())
    browser.get("/weather", CSRF | ({"traceparent": given} if given else {}))
    trace, ours, parent = context(named(spans, "GET /weather"))
    assert parent is None
    assert stack.upstream.requests[-1].get("traceparent").startswith(f"00-{trace}-{ours}-0")


def test_a_refresh_is_part_of_the_trace(stack: Stack, spans: InMemorySpanExporter) -> None:
    """The refresh hangs from the request that set it off, the provider's call from the refresh."""
    browser = stack.sign_in(stack.browser())
    spans.clear()
    stack.clock.ahead += 400
    assert browser.api("/weather").status == 200
    request, refresh = named(spans, "GET /weather"), named(spans, "refresh")
    call = named(spans, "POST /token")
    assert context(refresh)[2] == context(request)[1]
    assert context(call)[2] == context(refresh)[1]
    assert attributes(refresh) == {"bff.outcome": "Refreshed"}
    assert (call.kind, attributes(call)["http.response.status_code"]) == (SpanKind.CLIENT, 200)


def test_failures_show(stack: Stack, spans: InMemorySpanExporter) -> None:
    """A 5xx is an error, a 4xx is the caller's; a provider that breaks off is an error as well."""
    stack.browser().api("/weather")
    assert named(spans, "GET /weather").status.status_code is StatusCode.UNSET
    browser = stack.sign_in(stack.browser())
    stack.upstream.answers(b"", close=True)
    spans.clear()
    browser.api("/weather")
    assert named(spans, "GET /weather").status.status_code is StatusCode.ERROR
    stack.provider.replies["token"] = Reply(200, {}, delay=10)
    asked = browser.get("/bff/login")
    spans.clear()
    browser.callback(stack.provider.authorize(asked.get("location")))
    call = named(spans, "POST /token")
    assert (call.status.status_code, call.status.description) == (StatusCode.ERROR, "ReadTimeout")


def test_what_is_not_worth_a_span(stack: Stack, spans: InMemorySpanExporter) -> None:
    """Probes, files and what nobody answers."""
    browser = stack.browser()
    spans.clear()
    for target in ("/health/live", "/", "/static/page.css", "/nothing", "/a/../b"):
        browser.get(target)
    assert [span.name for span in spans.get_finished_spans() if span.kind is SpanKind.SERVER] == []


def test_no_span_holds_a_secret(stack: Stack, spans: InMemorySpanExporter) -> None:
    """A whole visit leaves no token, code, state, cookie or query in any span."""
    browser = stack.sign_in(stack.browser())
    sid = browser.session or ""
    browser.api("/weather?secret=1")
    browser.request("POST", "/bff/logout", CSRF)
    named(spans, "POST /bff/logout")
    text = json.dumps([json.loads(span.to_json()) for span in spans.get_finished_spans()])
    assert "GET /bff/callback" in text
    assert "POST /revoke" in text
    for secret in {sid, "secret=", "code=", "state=", "alice", *stack.provider.secrets}:
        assert secret not in text


ON = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}


@pytest.mark.parametrize(
    ("environ", "wanted"),
    [
        ({}, False),
        (ON, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:9"}, True),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True),
        (ON | {"OTEL_TRACES_EXPORTER": "none"}, False),
        (ON | {"OTEL_SDK_DISABLED": "true"}, False),
        ({"OTEL_SERVICE_NAME": "x"}, False),
    ],
)
def test_when_traces_are_wanted(environ: dict[str, str], wanted: bool) -> None:
    """As the standard's variables say; a name alone asks for nothing."""
    assert tracing.wanted(environ) is wanted


@pytest.mark.parametrize(
    "environ", [{"OTEL_TRACES_EXPORTER": "zipkin"}, ON | {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}]
)
def test_what_cannot_be_done_is_said(environ: dict[str, str]) -> None:
    """A warning, and a server that runs without traces."""
    with capture_logs() as logs:
        assert tracing.exporting(environ) is None
    assert [entry["event"] for entry in logs] == ["tracing_unavailable"]


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked for and not installed: the log says what to install."""
    monkeypatch.setitem(
        __import__("sys").modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None
    )
    with capture_logs() as logs:
        assert tracing.exporting(ON) is None
    assert "bff[otel]" in logs[0]["reason"]


@pytest.mark.parametrize(
    ("environ", "name"),
    [
        ({}, "bff"),
        ({"OTEL_SERVICE_NAME": "shop"}, "shop"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "service.name=till"}, "till"),
    ],
)
def test_the_name_of_the_service(monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], name: str) -> None:
    """Ours, unless the environment has another."""
    for variable, value in environ.items():
        monkeypatch.setenv(variable, value)
    provider = tracing.exporting(ON | environ)
    assert provider is not None
    assert provider.resource.attributes["service.name"] == name
    provider.shutdown()


def test_without_variables_nothing_is_traced(module_store: Store) -> None:
    """The plain program, and the caller's place in a trace passes as it came."""
    with running(module_store) as stack:
        assert type(stack.app) is DataPlane
        browser = stack.sign_in(stack.browser())
        browser.get("/weather", CSRF | {"traceparent": f"00-{TRACE}-{PARENT}-00"})
        assert stack.upstream.requests[-1].get("traceparent") == f"00-{TRACE}-{PARENT}-00"
