"""Limits and slow clients behind nginx, as deploy/compose configures it: what nginx keeps from the nodes, and
what it leaves to them."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from tests.processes.fleet import HOST, Fleet, Visitor, fleet
from tests.support.nginx import nginx
from tests.support.upstream import Request, Wire
from tests.support.wire import Answer, at_rest, exchange, line, until

pytestmark = [pytest.mark.e2e, pytest.mark.redis_server]

ROUTE = '[[routes]]\npath = "/api"\nupstream = "UPSTREAM"\nmethods = ["GET", "POST"]\n'
MAX_HEAD, MAX_BODY = 32_768, 100_000
MEGABYTE = 1_000_000
IMPATIENT = {
    "client_header_timeout 30s;": "client_header_timeout 3s;",
    "client_body_timeout 60s;": "client_body_timeout 3s;",
}


@pytest.fixture(scope="module")
def own() -> Iterator[Fleet]:
    with fleet(2, ROUTE, max_header_bytes=str(MAX_HEAD), max_body_bytes=str(MAX_BODY)) as found:
        yield found


@pytest.fixture(scope="module")
def port(own: Fleet) -> Iterator[int]:
    """nginx that waits for three seconds where the real one waits for half a minute and a whole one."""
    with nginx((own.nodes[0].port, own.nodes[1].port), IMPATIENT) as found:
        yield found


def head(method: str, visitor: Visitor | None, *lines: str) -> bytes:
    cookie = [f"Cookie: bff={visitor.cookie}"] if visitor else []
    fields = [f"{method} /api HTTP/1.1", f"Host: {HOST}", "X-CSRF: 1", *cookie, *lines]
    return "\r\n".join(fields).encode() + b"\r\n\r\n"


def at_nodes(own: Fleet) -> int:
    """How many connections the nodes have."""
    if not Path("/proc/net/tcp").exists():
        pytest.skip("counts connections in /proc")
    ends = tuple(f":{node.port:04X}" for node in own.nodes)
    rows = [row.split() for row in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(row[1].endswith(ends) and row[3] == "01" for row in rows)


def assert_ours(answer: Answer, status: int, code: str) -> None:
    assert (answer.status, answer.code) == (status, code)


def test_large_heads(own: Fleet, port: int) -> None:
    """Many headers that are too much together get the node's 431; one that is larger than nginx takes gets
    nginx's own refusal."""
    many = [f"X-{number}: {'y' * 1000}" for number in range(40)]
    assert_ours(exchange(port, head("GET", None, *many)), 431, "headers_too_large")
    assert exchange(port, head("GET", None, "X: " + "y" * 20_000)).status == 400


def test_large_bodies(own: Fleet, port: int) -> None:
    """A body over the limit gets the node's 413, whether it says so before or grows."""
    visitor = own.plant("fresh")
    assert_ours(
        exchange(port, head("POST", visitor, f"Content-Length: {MAX_BODY + 1}")), 413, "body_too_large"
    )
    chunks = b"2000\r\n" + b"x" * 0x2000 + b"\r\n"
    grows = head("POST", visitor, "Transfer-Encoding: chunked") + chunks * 13 + b"0\r\n\r\n"
    assert_ours(exchange(port, grows), 413, "body_too_large")
    fits = head("POST", visitor, f"Content-Length: {MAX_BODY}") + b"x" * MAX_BODY
    assert exchange(port, fits).text == visitor.first


def test_clients_that_say_nothing_reach_no_node(own: Fleet, port: int) -> None:
    """Clients that open connections, and such that stop in a head, cost a node nothing; others are served
    meanwhile, and nginx ends them."""
    visitor = own.plant("fresh")
    assert exchange(port, head("GET", visitor)).status == 200
    before = at_nodes(own)
    with ExitStack() as stack:
        lines = [stack.enter_context(line(port)) for _ in range(150)]
        for each in lines[:75]:
            each.send(head("GET", visitor)[:-4])
        time.sleep(0.3)
        assert at_nodes(own) <= before
        assert exchange(port, head("GET", visitor)).text == visitor.first
        for each in lines[:5]:
            each.socket.settimeout(20)
            assert each.socket.recv(65536)[:12] in (b"", b"HTTP/1.1 408")


def test_a_body_that_stops_is_ended(own: Fleet, port: int) -> None:
    """Bodies pass as they come, so one that stops holds node and upstream until nginx has had enough."""
    visitor = own.plant("fresh")
    own.upstream.requests.clear()
    with line(port) as slow:
        slow.send(head("POST", visitor, "Content-Length: 50") + b"x")
        assert until(lambda: own.upstream.requests)
        slow.socket.settimeout(20)
        assert slow.socket.recv(65536)[:12] in (b"", b"HTTP/1.1 408")
    assert own.upstream.lost(own.upstream.requests[0])


def test_a_reader_that_stops_takes_no_memory(own: Fleet, port: int) -> None:
    """An answer whose reader stops is held back at its source: it waits neither in nginx nor in the node."""
    visitor, sent = own.plant("fresh"), list[int]()

    def script(wire: Wire, _request: Request) -> None:
        wire.send(b"HTTP/1.1 200 OK\r\ncontent-length: 500000000\r\n\r\n")
        with suppress(OSError):
            while True:
                wire.send(b"x" * MEGABYTE)
                sent.append(MEGABYTE)

    own.upstream.script = script
    try:
        with line(port) as slow:
            slow.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
            slow.send(head("GET", visitor))
            assert until(lambda: sum(sent) > MEGABYTE, within=10)
            assert at_rest(lambda: sum(sent), seconds=1.5)
            assert sum(sent) < 40 * MEGABYTE
    finally:
        own.reset()
