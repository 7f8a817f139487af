"""Bytes through real processes: a gigabyte each way in flat memory, and nobody's answer for somebody else."""

from __future__ import annotations

import random
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.processes.fleet import HOST, Fleet, Node, Visitor, fleet
from tests.support.upstream import Request, Wire, ok
from tests.support.wire import Closed, line

pytestmark = pytest.mark.redis_server

GIGABYTE = 1 << 30
PIECE = b"\xa5" * (1 << 20)
ROOM = 48 << 20
"""How much a worker may grow while gigabytes pass through it: buffers of a few connections."""


@pytest.fixture(scope="module")
def found() -> Iterator[Fleet]:
    toml = '[[routes]]\npath = "/api"\nupstream = "UPSTREAM"\nmethods = ["GET", "PUT", "POST"]\n'
    with fleet(2, toml, max_body_bytes=str(2 * GIGABYTE), upstream_timeout_seconds="60") as fleet_of_two:
        yield fleet_of_two


def resident(node: Node) -> int:
    """The worker's memory at its highest, in bytes."""
    status = Path(f"/proc/{node.worker}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def head(visitor: Visitor, method: str, *lines: str) -> bytes:
    fields = [
        f"{method} /api HTTP/1.1",
        f"Host: {HOST}",
        "X-CSRF: 1",
        f"Cookie: bff={visitor.cookie}",
        *lines,
    ]
    return "\r\n".join(fields).encode() + b"\r\n\r\n"


def drained(wire: Wire, request: Request) -> int:
    """Read a body of a declared length and keep nothing."""
    left = total = int(request.get("content-length"))
    while left:
        left -= len(wire.file.read(min(left, 1 << 20)))
    return total


def test_a_gigabyte_up(found: Fleet) -> None:
    """The body passes as it comes, however slowly the upstream takes it, and is kept nowhere."""

    def script(wire: Wire, request: Request) -> object:
        wire.send(ok(b"%d" % drained(wire, request)))
        return True

    found.upstream.script = script
    node, visitor = found.nodes[0], found.plant("fresh")
    before = resident(node)
    with socket.create_connection(("127.0.0.1", node.port)) as connection:
        connection.sendall(head(visitor, "PUT", f"Content-Length: {GIGABYTE}"))
        for _ in range(GIGABYTE // len(PIECE)):
            connection.sendall(PIECE)
        assert connection.recv(65536).rpartition(b"\r\n\r\n")[2] == b"%d" % GIGABYTE
    assert resident(node) - before < ROOM


def test_a_gigabyte_down(found: Fleet) -> None:
    """The answer passes as the browser takes it."""

    def script(wire: Wire, _request: Request) -> object:
        wire.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % GIGABYTE)
        for _ in range(GIGABYTE // len(PIECE)):
            wire.send(PIECE)
        return True

    found.upstream.script = script
    node, visitor = found.nodes[1], found.plant("fresh")
    before = resident(node)
    with socket.create_connection(("127.0.0.1", node.port)) as connection:
        connection.sendall(head(visitor, "GET"))
        got = bytearray()
        while b"\r\n\r\n" not in got:
            got += connection.recv(65536)
        left = GIGABYTE - len(got.partition(b"\r\n\r\n")[2])
        while left:
            left -= len(connection.recv(min(left, 1 << 20)))
    assert resident(node) - before < ROOM


def test_no_answer_reaches_another_session(found: Fleet) -> None:
    """A dozen sessions on kept connections to two nodes, with tokens that become due, browsers that leave
    half way and upstream answers that break off: each gets its own."""
    fault = random.Random(8)

    def script(wire: Wire, request: Request) -> object:
        whose = request.get("authorization").encode()
        body = whose + b" " + wire.body(request)
        if fault.random() < 0.05:
            wire.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % (len(body) + 5) + body)
            return False
        wire.send(ok(body))
        return True

    found.upstream.script = script
    wrong: list[str] = []
    answered: list[int] = []

    def browse(visitor: Visitor, seed: int) -> None:
        chance = random.Random(seed)
        for number in range(40):
            node = chance.choice(found.nodes)
            with suppress(Closed, OSError), line(node.port) as connection:
                for turn in range(3):
                    body = f"{seed}-{number}-{turn}-".encode() * chance.randrange(1, 400)
                    connection.send(head(visitor, "PUT", f"Content-Length: {len(body)}") + body)
                    if chance.random() < 0.1:
                        break  # the browser leaves before its answer
                    answer = connection.answer()
                    if answer.status != 200 or not answer.whole:
                        continue
                    answered.append(1)
                    whose, _, echoed = answer.body.partition(b"Bearer ")[2].partition(b" ")
                    if whose.decode() not in visitor.family.access or echoed != body:
                        wrong.append(f"{seed}-{number}-{turn} got {answer.body[:60]!r}")

    visitors = [found.plant(("fresh", "due")[number % 2]) for number in range(12)]
    threads = [threading.Thread(target=browse, args=pair) for pair in zip(visitors, range(12), strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(90)
    assert wrong == []
    assert len(answered) > 900
