"""What the inner applications, Flask and the files of a single-page app, are told: in ASGI's words."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from bff.answers import CommonHeaders
from bff.errors import BadRequest
from bff.exchange import Body, Exchange
from bff.request import Headers, RequestHead

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

MAX_CONTROL_BODY_BYTES = 65_536
CONTROL_BODY_SECONDS = 30.0


def scope_of(exchange: Exchange, path: str, scheme: str) -> dict[str, Any]:
    """The scope of a request for a canonical path; `scheme` is the one that browsers use."""
    head = exchange.head
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": head.method,
        "scheme": scheme,
        "path": path,
        "raw_path": head.path,
        "query_string": head.query,
        "root_path": "",
        "headers": head.headers,
        "client": (head.peer, 0) if head.peer else None,
        "server": exchange.server,
    }


def sending(exchange: Exchange, common: CommonHeaders) -> Send:
    """ASGI's `send` for an exchange; it completes the headers."""
    ours = exchange.head.path.startswith(b"/bff/")

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = common.add(list(message["headers"]), ours=ours)
            message = {"type": "http.response.start", "status": message["status"], "headers": headers}
        await exchange.send(message)  # type: ignore[arg-type]

    return send


async def small_body(receive: Callable[[], Awaitable[Any]]) -> bytes:
    """A small body, read whole in a bounded time. Raises BadRequest, BodyTooLarge or Disconnected."""
    try:
        async with asyncio.timeout(CONTROL_BODY_SECONDS):
            return b"".join([piece async for piece in Body(receive, MAX_CONTROL_BODY_BYTES)])
    except TimeoutError:
        raise BadRequest("The body took too long to arrive.") from None


_NOT_FOR_WSGI = frozenset((b"host", b"content-length", b"transfer-encoding", b"range", b"if-range"))
"""Written anew; and ranges, which a server may ignore (RFC 9110 §14.2): our own answers are small."""


def for_wsgi(head: RequestHead, host: bytes, length: int) -> Headers:
    """Headers for the control plane. WSGI folds `-` and `_` into one, so the latter do not pass; nor do
    forwarding headers, which have been judged already."""
    passed = [
        (name, value)
        for name, value in head.headers
        if b"_" not in name
        and not name.startswith((b"x-forwarded-", b"forwarded"))
        and name not in _NOT_FOR_WSGI
    ]
    return [*passed, (b"host", host), (b"content-length", str(length).encode())]


def replay(body: bytes) -> Receive:
    """A `receive` that gives a body which has been read already."""

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    return receive
