"""WebSockets on bare sockets (RFC 6455): a client whose every byte is the test's, and upstreams."""

from __future__ import annotations

import base64
import hashlib
import os
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import BinaryIO

from tests.support.upstream import Request, Wire
from tests.support.wire import ANSWERS_SECONDS, Line

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


def accept(key: str) -> str:
    """The answer to a handshake's key (RFC 6455 §4.2.2)."""
    text = key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
    return base64.b64encode(hashlib.sha1(text.encode()).digest()).decode()


def frame(payload: bytes, opcode: int = BINARY, *, fin: bool = True, mask: bool = False) -> bytes:
    """One frame; a client's are masked."""
    size, bit = len(payload), 0x80 if mask else 0
    if size < 126:
        length = bytes([bit | size])
    elif size < 65_536:
        length = bytes([bit | 126]) + struct.pack(">H", size)
    else:
        length = bytes([bit | 127]) + struct.pack(">Q", size)
    head = bytes([(0x80 if fin else 0) | opcode]) + length
    if not mask:
        return head + payload
    key = os.urandom(4)
    return head + key + _masked(payload, key)


def _masked(payload: bytes, key: bytes) -> bytes:
    whole = int.from_bytes(key * (len(payload) // 4 + 1))
    cut = 4 - len(payload) % 4
    return (int.from_bytes(payload + bytes(cut)) ^ whole).to_bytes(len(payload) + cut)[: len(payload)]


def read_frame(file: BinaryIO) -> tuple[bool, int, bytes] | None:
    """The next frame as (last of its message, opcode, payload); None at the end."""
    head = file.read(2)
    if len(head) < 2:
        return None
    size = head[1] & 0x7F
    if size >= 126:
        size = int.from_bytes(file.read(2 if size == 126 else 8))
    key = file.read(4) if head[1] & 0x80 else b""
    payload = file.read(size)
    return bool(head[0] & 0x80), head[0] & 0x0F, _masked(payload, key) if key else payload


def agree(wire: Wire, request: Request, *headers: bytes, then: bytes = b"") -> None:
    """The upstream's 101; what it says at once comes in the same write."""
    answer = accept(request.get("sec-websocket-key")).encode()
    lines = [b"HTTP/1.1 101 Switching Protocols", b"connection: Upgrade", b"upgrade: websocket"]
    lines += [b"sec-websocket-accept: " + answer, *headers]
    wire.send(b"\r\n".join(lines) + b"\r\n\r\n" + then)


def echo_frames(wire: Wire, request: Request) -> object:
    """An upstream that agrees and sends every frame back."""
    agree(wire, request)
    while (found := read_frame(wire.file)) is not None:
        fin, opcode, payload = found
        wire.send(frame(payload, opcode, fin=fin))
        if opcode == CLOSE:
            break
    return False


class WebSocket:
    """A client's end."""

    def __init__(
        self,
        port: int,
        target: str,
        headers: Mapping[str, str | None],
        early: bytes = b"",
        timeout: float = ANSWERS_SECONDS,
    ) -> None:
        """`headers` replace those of an honest handshake; None leaves one out. `early` is sent with it."""
        self.key = base64.b64encode(os.urandom(16)).decode()
        honest = {
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": self.key,
        }
        lines = [f"GET {target} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in {**honest, **headers}.items() if value is not None]
        self.line = Line(port, timeout)
        self.line.send("\r\n".join(lines).encode() + b"\r\n\r\n" + early)
        self.status, self.headers = self.line._head()

    def header(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key == name]

    def send(self, payload: bytes, opcode: int = BINARY, *, fin: bool = True) -> None:
        self.line.send(frame(payload, opcode, fin=fin, mask=True))

    def receive(self) -> tuple[bool, int, bytes] | None:
        return read_frame(self.line._file)

    def close(self) -> None:
        self.line.close()


@contextmanager
def websocket(
    port: int,
    target: str,
    headers: Mapping[str, str | None],
    early: bytes = b"",
    timeout: float = ANSWERS_SECONDS,
) -> Iterator[WebSocket]:
    """A WebSocket for the length of a block; the answer's head has been read."""
    found = WebSocket(port, target, headers, early, timeout)
    try:
        yield found
    finally:
        found.close()
