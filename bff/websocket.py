"""The handshake of a WebSocket as it passes through us (RFC 6455 §4): pure.

Which subprotocol is spoken and which extensions are used is agreed between browser and upstream: after the
handshake their bytes are not ours to read.
"""

from __future__ import annotations

import base64
import hashlib
import re

from bff.errors import BadRequest, UpstreamUnreachable
from bff.request import Headers, RequestHead

_KEY = re.compile(rb"[A-Za-z0-9+/]{21}[AQgw]==\Z")  # 16 bytes
_MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 §1.3
_AGREED = (b"sec-websocket-protocol", b"sec-websocket-extensions")
_UPGRADE = [(b"connection", b"Upgrade"), (b"upgrade", b"websocket")]


class VersionUnknown(BadRequest):
    """RFC 6455 §4.4: the answer names the version that would do."""

    @property
    def headers(self) -> list[tuple[str, str]]:
        return [("Sec-WebSocket-Version", "13")]


def is_handshake(head: RequestHead) -> bool:
    """Whether a request asks for a WebSocket; one that does not is like any other request."""
    if head.method != "GET" or not head.has(b"upgrade"):
        return False
    return b"websocket" in _tokens(head, b"upgrade") and b"upgrade" in _tokens(head, b"connection")


def check(head: RequestHead) -> None:
    """Refuse a handshake that no browser sends. Raises BadRequest."""
    if head.single(b"sec-websocket-version") != b"13":
        raise VersionUnknown("The WebSocket must be of version 13.")
    if not _KEY.match(head.single(b"sec-websocket-key") or b""):
        raise BadRequest("The WebSocket's key must be 16 bytes in base64.")


def request_headers(head: RequestHead) -> Headers:
    """What a checked handshake sends upstream besides the headers of every request."""
    key = head.single(b"sec-websocket-key") or b""
    asked = [(name, value) for name, value in head.headers if name in _AGREED]
    return [*_UPGRADE, (b"sec-websocket-version", b"13"), (b"sec-websocket-key", key), *asked]


def answer_headers(head: RequestHead, upstream: Headers) -> Headers:
    """The headers of our 101, from the upstream's. Raises UpstreamUnreachable where its answer is not one to
    this handshake: whatever switched protocols there, it was not a WebSocket server that read our request."""
    expected = accept(head.single(b"sec-websocket-key") or b"")
    if [value for name, value in upstream if name == b"sec-websocket-accept"] != [expected]:
        raise UpstreamUnreachable(reason="the upstream's handshake does not belong to ours")
    agreed = [(name, value) for name, value in upstream if name in _AGREED]
    return [*_UPGRADE, (b"sec-websocket-accept", expected), *agreed]


def accept(key: bytes) -> bytes:
    """What a server that has read this key answers (RFC 6455 §4.2.2)."""
    return base64.b64encode(hashlib.sha1(key + _MAGIC, usedforsecurity=False).digest())


def _tokens(head: RequestHead, name: bytes) -> set[bytes]:
    return {part.strip().lower() for value in head.values(name) for part in value.split(b",")}
