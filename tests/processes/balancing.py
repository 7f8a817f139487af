"""Callers that never rest, and a balancer among them that asks nodes whether they are ready."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

from tests.processes.fleet import HOST, Node, Visitor
from tests.support.wire import Answer, Closed, Line, exchange

READY = b"GET /health/ready HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
CALLERS = 4


class Balancer:
    """Sends nobody to a node that has said that it is not ready."""

    def __init__(self, ports: Sequence[int], every: float) -> None:
        """It asks each node every so many seconds."""
        self._every = every
        self._ready = dict.fromkeys(ports, True)
        self._turns = itertools.count()

    def port(self) -> int:
        """Where the next request goes."""
        ready = [port for port, good in self._ready.items() if good]
        return ready[next(self._turns) % len(ready)]

    def ask(self, stop: threading.Event) -> None:
        while not stop.wait(self._every):
            for port in self._ready:
                self._ready[port] = _is_ready(port)


def _is_ready(port: int) -> bool:
    with suppress(OSError, Closed):
        return exchange(port, READY).status == 200
    return False


class Caller:
    """One client, which keeps its connections as long as it may, and notes what is not as it should be."""

    def __init__(self, port: Callable[[], int], visitor: Visitor, method: str) -> None:
        self._port = port
        self._visitor = visitor
        self._method = method
        self._lines: dict[int, Line] = {}
        self.answered: dict[int, int] = {}
        self.wrong: list[str] = []

    def call(self, stop: threading.Event) -> None:
        while not stop.wait(0.005):
            port = self._port()
            began = time.monotonic()
            try:
                answer = self._ask(port)
            except (OSError, Closed) as error:
                if port in self._lines:
                    self._lines.pop(port).close()
                self.wrong.append(
                    f"{self._method} {port} {type(error).__name__} {time.monotonic() - began:.3f}"
                )
                continue
            self.answered[port] = self.answered.get(port, 0) + 1
            if not (answer.status == 200 and answer.whole):
                self.wrong.append(f"{self._method} {port} {answer.status} {answer.text[:200]}")
        for line in self._lines.values():
            line.close()

    def _ask(self, port: int) -> Answer:
        line = self._lines.pop(port, None)
        if line is None or not line.open():  # as every client looks before it sends on a kept connection
            line = Line(port)
        self._lines[port] = line
        fields = [f"{self._method} /api HTTP/1.1", f"Host: {HOST}", "X-CSRF: 1"]
        fields += [
            f"Cookie: bff={self._visitor.cookie}",
            "Content-Length: 3" if self._method == "POST" else "X: y",
        ]
        body = b"abc" if self._method == "POST" else b""
        answer = line.send("\r\n".join(fields).encode() + b"\r\n\r\n" + body).answer()
        if answer.get("connection") == "close":
            self._lines.pop(port).close()
        return answer


@contextmanager
def calls(callers: Sequence[Caller], *others: Callable[[threading.Event], None]) -> Iterator[None]:
    """All of them at work for the length of a block."""
    stop = threading.Event()
    work = [caller.call for caller in callers] + list(others)
    threads = [threading.Thread(target=each, args=(stop,)) for each in work]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join(30)


def restart_each(nodes: list[Node], replace: Callable[[Node], Node]) -> None:
    """One after the other: asked to end, and replaced once it has; the others work on meanwhile."""
    for place, node in enumerate(nodes):
        node.terminate()
        assert node.code() == 0
        assert "Traceback" not in node.output
        nodes[place] = replace(node)
        time.sleep(0.5)
