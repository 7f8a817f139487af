"""What Prometheus is answered: `GET /metrics`, and nothing else."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from socketserver import ThreadingMixIn
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from bff._version import __version__

SLOW_CLIENT_SECONDS = 5.0
"""For one piece of a request or an answer."""
WHOLE_SECONDS = 10.0
"""For all of it: whoever sends a byte now and then must not keep Prometheus out."""
AT_ONCE = 8

Page = Callable[[str], tuple[bytes, str]]
"""From an Accept header to the metrics and their media type."""


class OfTheHost(Collector):
    """What no worker counts: the version, and the number of sessions."""

    def __init__(self, sessions: Callable[[], int | None]) -> None:
        self._sessions = sessions

    def collect(self) -> Iterator[Metric]:
        info = GaugeMetricFamily("bff_build_info", "The version that runs; always 1.", labels=("version",))
        info.add_metric((__version__,), 1)
        yield info
        sessions = self._sessions()
        if sessions is not None:
            yield GaugeMetricFamily(
                "bff_sessions_active",
                "Live sessions in Redis, of all machines together, counted about once a minute.",
                value=sessions,
            )


def page(directory: str, sessions: Callable[[], int | None]) -> Page:
    """The page for the workers that count in `directory`. `sessions` gives the number of live sessions, or
    None where it is not known."""
    registry = CollectorRegistry()
    MultiProcessCollector(registry, directory)  # type: ignore[no-untyped-call]
    registry.register(OfTheHost(sessions))
    one_at_a_time = threading.Lock()

    def render(accept: str) -> tuple[bytes, str]:
        encoder, kind = choose_encoder(accept)
        with one_at_a_time:
            return encoder(registry), kind

    return render


class Server(ThreadingMixIn, HTTPServer):
    """Answers on a socket that listens already; few at once, and nobody for long."""

    daemon_threads = True

    def __init__(self, listener: socket.socket, render: Page) -> None:
        handler = type("Handler", (Handler,), {"render": staticmethod(render)})
        super().__init__(listener.getsockname()[:2], handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener
        self._places = threading.BoundedSemaphore(AT_ONCE)
        self._until: dict[Any, float] = {}

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._places.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        self._until[request] = time.monotonic() + WHOLE_SECONDS
        try:
            super().process_request_thread(request, client_address)
        finally:
            del self._until[request]
            self._places.release()

    def service_actions(self) -> None:
        """Twice a second: hang up on whoever has had its time."""
        now = time.monotonic()
        for request, until in list(self._until.items()):
            if now > until:
                with suppress(OSError):
                    request.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has gone is no news."""


class Handler(BaseHTTPRequestHandler):
    """One request."""

    render: Page
    timeout = SLOW_CLIENT_SECONDS

    def do_GET(self) -> None:
        """The metrics."""
        if self.path.partition("?")[0] != "/metrics":
            self.send_error(404)
            return
        body, kind = self.render(self.headers.get("Accept", ""))
        self._answer(200, kind, body)

    def send_error(self, code: int, *_words: Any, **_more: Any) -> None:
        """Tersely; a method that is none of ours is 405, not 501."""
        text = b"GET /metrics is all there is here.\n"
        self._answer(405 if code == 501 else code, "text/plain; charset=utf-8", text)

    def _answer(self, status: int, kind: str, body: bytes) -> None:
        self.close_connection = True
        self.send_response_only(status)
        headers = {"Content-Type": kind, "Content-Length": str(len(body)), "Cache-Control": "no-store"}
        headers |= {"X-Content-Type-Options": "nosniff", "Connection": "close"}
        if status == 405:
            headers["Allow"] = "GET"
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_words: Any) -> None:
        """Nothing: a scrape is no event."""
