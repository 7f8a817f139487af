"""Server-Sent Events on a bare socket, read as they come."""

from __future__ import annotations

import contextlib
import json
import queue
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tests.support.stopwatch import PATIENCE, Stopwatch
from tests.support.wire import ANSWERS_SECONDS, Line


@dataclass
class Event:
    """One event, and when it came (by the monotonic clock); a comment has no name."""

    name: str
    text: str
    at: float

    @property
    def data(self) -> Any:
        return json.loads(self.text)


class Feed:
    """An open stream of events, which a thread reads."""

    def __init__(
        self,
        port: int,
        target: str,
        headers: Mapping[str, str],
        *,
        timeout: float = ANSWERS_SECONDS,
        reads: bool = True,
    ) -> None:
        """`timeout` is how long to wait for an event. One that does not read takes nothing but the head."""
        self.line = Line(port, 60)
        lines = [f"GET {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
        self.line.send("\r\n".join(lines).encode() + b"\r\n\r\n")
        self.status, self.headers = self.line._head()
        self._timeout = timeout
        self._found: queue.Queue[Event | None] = queue.Queue()
        self.ended = threading.Event()
        if reads and self.status == 200:
            threading.Thread(target=self._read, daemon=True).start()

    def __iter__(self) -> Iterator[Event]:
        """Events and comments until the stream ends; raises TimeoutError where nothing comes."""
        while (event := self._next()) is not None:
            yield event

    def _next(self) -> Event | None:
        try:
            return self._found.get(timeout=self._timeout)
        except queue.Empty:
            raise TimeoutError from None

    def named(self) -> Iterator[Event]:
        """The same without comments and reconnection times."""
        return (event for event in self if event.name)

    def ends_within(self, seconds: float) -> bool:
        """Whether the stream ends in so many seconds (more on a busy machine), whatever comes before."""
        watch = Stopwatch()
        return self.ended.wait(PATIENCE * seconds) and watch.own < seconds

    def lives_for(self, seconds: float) -> bool:
        """Whether the stream does not end in so many seconds."""
        return not self.ended.wait(seconds)

    @property
    def ended_well(self) -> bool:
        """Whether the stream came to its own end, and was not cut off."""
        return self.ended.is_set() and self.line.whole

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.line.socket.shutdown(socket.SHUT_RDWR)
        self.ended.wait(0.5)
        self.line.close()

    def _read(self) -> None:
        text = b""
        with contextlib.suppress(OSError, ValueError):
            for piece in self.line.chunks():
                text += piece
                while b"\n\n" in text:
                    block, _, text = text.partition(b"\n\n")
                    self._found.put(_event(block.decode()))
        self.ended.set()
        self._found.put(None)


def _event(block: str) -> Event:
    fields = dict(line.split(": ", 1) for line in block.split("\n") if not line.startswith(":") and line)
    return Event(fields.get("event", ""), fields.get("data", ""), time.monotonic())


@contextmanager
def feed(port: int, target: str, headers: Mapping[str, str], **options: Any) -> Iterator[Feed]:
    """A stream for the length of a block; its status has been read. The options are those of Feed."""
    found = Feed(port, target, headers, **options)
    try:
        yield found
    finally:
        found.close()
