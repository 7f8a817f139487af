"""A scriptable upstream on a bare socket: what it sends is up to the test, byte by byte."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO

from tests.support.wire import until


@dataclass
class Request:
    """A request as the upstream got it."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    connection: int
    """The number of the connection that it came on."""
    body: bytes = b""
    chunked: bool = False

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key == name]

    def get(self, name: str) -> str:
        values = self.all(name)
        assert len(values) < 2, f"{name} came {len(values)} times"
        return values[0] if values else ""


class Wire:
    """The upstream's end of a connection."""

    def __init__(self, connection: socket.socket, number: int) -> None:
        self.socket = connection
        self.number = number
        self.file: BinaryIO = connection.makefile("rb")
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def head(self) -> Request | None:
        """The next request without its body; None where the peer has gone."""
        first = self.file.readline()
        if not first:
            return None
        method, target, _ = first.decode("latin-1").split(" ", 2)
        headers = []
        while (text := self.file.readline().decode("latin-1").rstrip("\r\n")) != "":
            name, _, value = text.partition(":")
            headers.append((name.lower(), value.strip()))
        return Request(method, target, headers, self.number)

    def body(self, request: Request) -> bytes:
        """Read the body of `request`, and keep it there."""
        request.chunked = request.get("transfer-encoding") == "chunked"
        if request.chunked:
            while size := int(self.file.readline(), 16):
                request.body += self.file.read(size)
                self.file.readline()
            self.file.readline()
        else:
            request.body = self.file.read(int(request.get("content-length") or 0))
        return request.body

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def reset(self) -> None:
        """Close with a reset, as a crashed host does."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.file.close()
        self.socket.close()

    def close(self) -> None:
        self.file.close()
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()


Script = Callable[[Wire, Request], object]
"""Answers a request whose head has been read. To end the connection, close the wire or return False."""


def ok(body: bytes = b"ok", *headers: bytes, status: bytes = b"200 OK") -> bytes:
    """A response framed by its length."""
    lines = [b"HTTP/1.1 " + status, b"content-length: %d" % len(body), *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def says(data: bytes, *, close: bool = False) -> Script:
    """The script that reads the request and sends `data`."""

    def script(wire: Wire, request: Request) -> object:
        wire.body(request)
        wire.send(data)
        return not close

    return script


def echo(wire: Wire, request: Request) -> object:
    """Answers with the request's own body, or its target where it has none."""
    wire.send(ok(wire.body(request) or request.target.encode(), b"content-type: text/plain"))
    return True


class ScriptedUpstream:
    """Accepts connections and runs `script` for each request."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.script: Script = echo
        self.requests: list[Request] = []
        self.connections = 0
        self._ended: set[int] = set()
        self._open: list[Wire] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def answers(self, data: bytes, *, close: bool = False) -> None:
        """Answer every request with `data`."""
        self.script = says(data, close=close)

    def reset(self) -> None:
        """Forget what happened, and be honest again."""
        self.script = echo
        self.requests.clear()

    def lost(self, request: Request, within: float = 5) -> bool:
        """Whether the peer closes the connection of `request`, in so many seconds."""
        return until(lambda: request.connection in self._ended, within)

    def hang_up(self) -> None:
        """Close all connections."""
        for wire in self._open:
            with contextlib.suppress(OSError):
                wire.socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.hang_up()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            wire = Wire(connection, self.connections)
            self._open.append(wire)
            threading.Thread(target=self._talk, args=(wire,), daemon=True).start()

    def _talk(self, wire: Wire) -> None:
        try:
            while (request := wire.head()) is not None:
                self.requests.append(request)
                if self.script(wire, request) is False:
                    break
        except (OSError, ValueError):  # the peer has gone, or the script has closed the wire
            pass
        finally:
            self._ended.add(wire.number)
            with contextlib.suppress(ValueError):
                wire.close()


@contextmanager
def scripted_upstream() -> Iterator[ScriptedUpstream]:
    """An upstream for the length of a block."""
    upstream = ScriptedUpstream()
    try:
        yield upstream
    finally:
        upstream.close()
