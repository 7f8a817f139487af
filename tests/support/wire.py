"""HTTP/1.1 on a bare socket: sends any bytes, and tells a whole answer from a broken one."""

from __future__ import annotations

import asyncio
import json
import select
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.stopwatch import PATIENCE, Stopwatch

ANSWERS_SECONDS = 30.0
"""For how long an answer is waited for: longer than any takes that comes at all, on a busy machine, too."""


@dataclass
class Answer:
    """A response as it came over the wire."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes = b""
    whole: bool = True
    """Whether the body ended where its framing says."""
    interim: list[int] = field(default_factory=list)
    trailers: bytes = b""

    def get(self, name: str) -> str:
        """The value of a header that came once; "" where it did not come."""
        values = self.all(name)
        assert len(values) < 2, f"{name} came {len(values)} times"
        return values[0] if values else ""

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key == name.lower()]

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def code(self) -> Any:
        """The stable code of a problem document."""
        assert self.get("content-type") == "application/problem+json", self.text[:200]
        return self.json()["code"]


class Closed(Exception):
    """The peer closed the connection before a response head was complete."""


class Line:
    """One connection to a server on this machine."""

    def __init__(self, port: int, timeout: float = ANSWERS_SECONDS, authorities: Path | None = None) -> None:
        """Over TLS with localhost where `authorities` are given, which must have signed its certificate."""
        self.socket = socket.create_connection(("127.0.0.1", port), timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if authorities is not None:
            context = ssl.create_default_context(cafile=authorities)
            self.socket = context.wrap_socket(self.socket, server_hostname="localhost")
        self._file = self.socket.makefile("rb")
        self.whole = False

    def send(self, data: bytes) -> Line:
        """Send bytes; a peer that has hung up is noticed when reading."""
        with suppress(BrokenPipeError, ConnectionResetError):
            self.socket.sendall(data)
        return self

    def answer(self, *, head_only: bool = False) -> Answer:
        """Read one response; `head_only` where it has no body whatever its headers say."""
        interim = []
        status, headers = self._head()
        while status < 200:
            interim.append(status)
            status, headers = self._head()
        answer = Answer(status, headers, interim=interim)
        if not head_only and status not in (204, 304):
            try:
                self._body(answer)
            except (OSError, ValueError):
                answer.whole = False
        return answer

    def closed(self, within: float = 5) -> bool:
        """Whether the peer closes the connection, and says nothing more before (later on a busy machine)."""
        watch = Stopwatch()
        self.socket.settimeout(PATIENCE * within)
        try:
            return self._file.read(1) == b"" and watch.own < within
        except TimeoutError:
            return False
        except OSError:
            return watch.own < within

    def open(self) -> bool:
        """Whether the peer has not closed it yet, as far as one can know before sending."""
        return not select.select([self.socket], [], [], 0)[0]

    def close(self) -> None:
        self._file.close()
        self.socket.close()

    def chunks(self) -> Iterator[bytes]:
        """The pieces of a chunked body as they come; `whole` says then whether it came to its end."""
        self.whole = False
        while (first := self._file.readline()) not in (b"", b"0\r\n"):
            piece = self._file.read(int(first, 16))
            self._file.readline()
            yield piece
        self.whole = first == b"0\r\n"

    def _head(self) -> tuple[int, list[tuple[str, str]]]:
        try:
            first = self._file.readline()
        except ConnectionResetError:
            raise Closed from None
        if not first:
            raise Closed
        headers = []
        while (line := self._file.readline().rstrip(b"\r\n")) != b"":
            name, _, value = line.partition(b":")
            headers.append((name.decode("latin-1").lower(), value.strip().decode("latin-1")))
        return int(first.split(b" ", 2)[1]), headers

    def _body(self, answer: Answer) -> None:
        if answer.get("transfer-encoding") == "chunked":
            while size := int(self._file.readline(), 16):
                piece = self._file.read(size)
                answer.body += piece
                if len(piece) < size or self._file.read(2) != b"\r\n":
                    raise ValueError
            while (line := self._file.readline()) not in (b"\r\n", b""):
                answer.trailers += line
            answer.whole = line == b"\r\n"
        elif length := answer.get("content-length"):
            answer.body = self._file.read(int(length))
            answer.whole = len(answer.body) == int(length)
        else:
            answer.body = self._file.read()


@contextmanager
def line(port: int, timeout: float = ANSWERS_SECONDS, authorities: Path | None = None) -> Iterator[Line]:
    """A connection for the length of a block."""
    connection = Line(port, timeout, authorities)
    try:
        yield connection
    finally:
        connection.close()


def exchange(port: int, data: bytes, *, head_only: bool = False, authorities: Path | None = None) -> Answer:
    """Send `data` on a connection of its own; the first response to it."""
    with line(port, authorities=authorities) as connection:
        return connection.send(data).answer(head_only=head_only)


def until(condition: Any, within: float = 5) -> bool:
    """Wait until `condition()` holds; False where it does not in time (longer on a busy machine)."""
    watch = Stopwatch()
    while watch.own < within:
        if condition():
            return True
        time.sleep(0.01)
    return bool(condition())


def at_rest(count: Callable[[], int], seconds: float = 1) -> bool:
    """Wait until a count has not changed for so long; False where it goes on and on."""
    watch, quiet, last = Stopwatch(), Stopwatch(), count()
    while quiet.elapsed < seconds:
        if watch.own > 20:
            return False
        time.sleep(0.05)
        if (now := count()) != last:
            quiet, last = Stopwatch(), now
    return True


async def happens(condition: Any, within: float = 10) -> bool:
    """The same in an event loop, which goes on meanwhile; a thread asks for the condition."""
    return await asyncio.to_thread(until, condition, within)
