"""A real HTTP issuer in a thread, which counts what it is asked and misbehaves on demand."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

DISCOVERY = "/.well-known/openid-configuration"
JWKS = "/jwks.json"


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 64

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is part of these tests."""


Answer = Callable[[BaseHTTPRequestHandler], None]


class LocalIssuer:
    """Serves a discovery document and a JWK set on loopback.

    `answers` replaces the answer of a path; `down` closes connections without one; while `gate` is
    cleared, every answer is held back.
    """

    def __init__(self, path: str = "") -> None:
        self.jwks: dict[str, Any] = {"keys": []}
        self.metadata: dict[str, Any] = {}
        self.answers: dict[str, Answer] = {}
        self.down = False
        self.gate = threading.Event()
        self.gate.set()
        self.asked: list[str] = []
        self._server = _Server(("127.0.0.1", 0), self._handler())
        self.origin = f"http://127.0.0.1:{self._server.server_address[1]}"
        self.issuer = self.origin + path
        self._prefix = path.removesuffix("/")
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )
        self._thread.start()

    @property
    def fetches(self) -> int:
        """How often the JWK set was asked for."""
        return self.asked.count(self._prefix + JWKS)

    @property
    def discoveries(self) -> int:
        """How often the discovery document was asked for."""
        return self.asked.count(self._prefix + DISCOVERY)

    def close(self) -> None:
        """Stop serving."""
        self.gate.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    def _document(self, path: str) -> dict[str, Any] | None:
        if path == self._prefix + DISCOVERY:
            jwks_uri = self.origin + self._prefix + JWKS
            return {"issuer": self.issuer, "jwks_uri": jwks_uri, **self.metadata}
        return self.jwks if path == self._prefix + JWKS else None

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        self.asked.append(handler.path)
        self.gate.wait(20)
        if self.down:
            return
        if special := self.answers.get(handler.path):
            special(handler)
            return
        document = self._document(handler.path)
        send(handler, 200 if document is not None else 404, json.dumps(document).encode())

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                with contextlib.suppress(OSError):
                    issuer._answer(self)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
                """Keep the test's output clean."""

        return Handler


def send(handler: BaseHTTPRequestHandler, status: int, body: bytes, **headers: str) -> None:
    """A plain answer."""
    handler.send_response(status)
    handler.send_header("Content-Length", str(len(body)))
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(body)
