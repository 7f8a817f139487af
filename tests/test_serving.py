"""The server on raw bytes: heads, targets, smuggling, limits, and how it ends."""

from __future__ import annotations

import json
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from itertools import pairwise
from queue import SimpleQueue
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bff.serving import _listen_to_signals, serve
from tests.support.process import ServeProcess, serve_process
from tests.support.stack import Stack, Store, running, store
from tests.support.stopwatch import Stopwatch
from tests.support.upstream import Request, Wire, ok
from tests.support.wire import Answer, Closed, Line, exchange, line, until

MAX_HEAD = 16_384
ROUTE = """
[[routes]]
path = "/public"
upstream = "UPSTREAM"
methods = ["GET", "POST"]
token = "none"
anonymous = true

[[routes]]
path = "/stream"
upstream = "UPSTREAM"
stream = "sse"
token = "none"
anonymous = true
"""


@pytest.fixture(scope="module")
def module_store() -> Iterator[Store]:
    with store() as found:
        yield found


@pytest.fixture(scope="module")
def stack(module_store: Store) -> Iterator[Stack]:
    with running(module_store, toml=ROUTE, max_header_bytes=str(MAX_HEAD)) as stack:
        yield stack


def host(stack: Stack) -> bytes:
    return b"Host: localhost:%d\r\nX-CSRF: 1\r\n" % stack.port


def get(stack: Stack, target: bytes = b"/health/live", *lines: bytes) -> bytes:
    fields = b"".join(field + b"\r\n" for field in lines)
    return b"GET " + target + b" HTTP/1.1\r\n" + host(stack) + fields + b"\r\n"


# -- one meaning for each request -------------------------------------------------------------------

TARGETS = [
    b"http://localhost/health/live",
    b"http://evil.example/health/live",
    b"//evil.example/",
    b"///",
    b"*",
    b"health/live",
    b"/health/live#fragment",
    b"/?a#b",
    b"/#",
    b"localhost:443",
    b"/a\x00b",
    b"/a\tb",
    b"/a\x7f",
    b"/\xc3\xa9",
    b"/a b",
    b"/\\evil.example",
    b"/a/../b",
    b"/%2e%2e/b",
    b"/a%00",
    b"/a%0d%0aX: y",
    b"/a%zz",
    b"/%",
    b"/a;b",
    b'/"',
    b"/<x>",
    b"/health/live?\x01",
    b"",
    b"?",
]


@pytest.mark.parametrize("target", TARGETS)
def test_raw_target(stack: Stack, target: bytes) -> None:
    """A target that is no plain path on this server is refused with 4xx, whatever the parser makes of it."""
    answer = exchange(stack.port, get(stack, target))
    assert 400 <= answer.status < 500
    assert answer.whole
    assert_bare(answer)


def assert_bare(answer: Answer) -> None:
    """The answer is a document of ours with the security headers."""
    assert answer.get("content-type") == "application/problem+json"
    assert answer.get("x-content-type-options") == "nosniff"
    assert answer.get("content-security-policy")
    assert answer.get("cache-control") == "no-store"
    assert answer.get("date")
    assert answer.all("server") == []


REFUSED: dict[str, bytes] = {
    "no Host": b"GET /health/live HTTP/1.1\r\n\r\n",
    "two Hosts": b"GET /health/live HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "the same Host twice": b"GET /health/live HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n",
    "a length and chunks": (
        b"POST /public HTTP/1.1\r\nHOST:Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    ),
    "chunks and a length": (
        b"POST /public HTTP/1.1\r\nHOST:Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n"
    ),
    "two lengths": b"POST /public HTTP/1.1\r\nHOST:Content-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "the same length twice": b"POST /public HTTP/1.1\r\nHOST:Content-Length: 1\r\nContent-Length: 1\r\n\r\na",
    "a list of lengths": b"POST /public HTTP/1.1\r\nHOST:Content-Length: 1, 1\r\n\r\na",
    "a signed length": b"POST /public HTTP/1.1\r\nHOST:Content-Length: +1\r\n\r\na",
    "a negative length": b"POST /public HTTP/1.1\r\nHOST:Content-Length: -1\r\n\r\na",
    "a length in hexadecimal": b"POST /public HTTP/1.1\r\nHOST:Content-Length: 0x1\r\n\r\na",
    "an endless length": b"POST /public HTTP/1.1\r\nHOST:Content-Length: " + b"9" * 40 + b"\r\n\r\na",
    "an empty length": b"POST /public HTTP/1.1\r\nHOST:Content-Length:\r\n\r\n",
    "an unknown encoding": b"POST /public HTTP/1.1\r\nHOST:Transfer-Encoding: x\r\n\r\n0\r\n\r\n",
    "chunks not last": b"POST /public HTTP/1.1\r\nHOST:Transfer-Encoding: chunked, x\r\n\r\n0\r\n\r\n",
    "chunks twice": (
        b"POST /public HTTP/1.1\r\nHOST:Transfer-Encoding: chunked\r\n"
        b"Transfer-Encoding: identity\r\n\r\n0\r\n\r\n"
    ),
    "chunks in HTTP/1.0": b"POST /public HTTP/1.0\r\nHOST:Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "no chunks in HTTP/1.0": b"POST /public HTTP/1.0\r\nHOST:Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "a folded header": b"GET /public HTTP/1.1\r\nHOST:X: a\r\n b\r\n\r\n",
    "a space before the colon": b"GET /public HTTP/1.1\r\nHOST:X : a\r\n\r\n",
    "a header without a colon": b"GET /public HTTP/1.1\r\nHOST:X\r\n\r\n",
    "a header without a name": b"GET /public HTTP/1.1\r\nHOST:: a\r\n\r\n",
    "a NUL in a value": b"GET /public HTTP/1.1\r\nHOST:X: a\x00b\r\n\r\n",
    "a bare CR in a value": b"GET /public HTTP/1.1\r\nHOST:X: a\rb\r\n\r\n",
    "a name that is no token": b"GET /public HTTP/1.1\r\nHOST:X\xff: a\r\n\r\n",
    "a lower-case method": b"get /public HTTP/1.1\r\nHOST:\r\n",
    "a method nobody knows": b"EVIL /public HTTP/1.1\r\nHOST:\r\n",
    "no version": b"GET /public\r\nHOST:\r\n",
    "HTTP/2": b"GET /public HTTP/2.0\r\nHOST:\r\n",
    "HTTP/1.2": b"GET /public HTTP/1.2\r\nHOST:\r\n",
    "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "CONNECT": b"CONNECT evil.example:443 HTTP/1.1\r\nHOST:\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "garbage": b"\x00\x01\x02\x03\r\n\r\n",
}


def with_host(stack: Stack, data: bytes) -> bytes:
    return data.replace(b"HOST:", host(stack))


@pytest.mark.parametrize("data", REFUSED.values(), ids=REFUSED)
def test_request_that_could_be_read_in_two_ways(stack: Stack, data: bytes) -> None:
    """Doubled, missing and malformed framing is refused with 4xx, and the connection closed (smuggling)."""
    stack.upstream.reset()
    with line(stack.port) as connection:
        answer = connection.send(with_host(stack, data)).answer()
        assert 400 <= answer.status < 500
        assert_bare(answer)
        assert answer.get("connection") == "close"
        assert connection.closed()
    assert stack.upstream.requests == []


CHUNKS: dict[str, bytes] = {
    "no hexadecimal": b"zz\r\nx\r\n0\r\n\r\n",
    "a sign": b"+1\r\nx\r\n0\r\n\r\n",
    "a prefix": b"0x1\r\nx\r\n0\r\n\r\n",
    "a space": b" 1\r\nx\r\n0\r\n\r\n",
    "more than it says": b"1\r\nxy\r\n0\r\n\r\n",
    "less than it says": b"5\r\nx\r\n0\r\n\r\n",
    "a size without end": b"f" * 40 + b"\r\nx",
    "no size": b"\r\nx\r\n0\r\n\r\n",
    "a bare LF after the size": b"1\nx\r\n0\r\n\r\n",
    "a bare LF after the data": b"1\r\nx\n0\r\n\r\n",
    "a bare LF in an extension": b"1;a\nb\r\nx\r\n0\r\n\r\n",
    "a trailer without a colon": b"1\r\nx\r\n0\r\nbad\r\n\r\n",
}


@pytest.mark.parametrize("body", CHUNKS.values(), ids=CHUNKS)
def test_bad_chunks(stack: Stack, body: bytes) -> None:
    """A chunked body with a mistake in it is never answered as if it were whole: 400, and closed."""
    stack.upstream.reset()
    data = b"POST /public HTTP/1.1\r\nHOST:Transfer-Encoding: chunked\r\n\r\n" + body
    with line(stack.port, timeout=1 if body == CHUNKS["less than it says"] else 10) as connection:
        connection.send(with_host(stack, data))
        try:
            answer = connection.answer()
        except TimeoutError:  # it may wait for the rest of a chunk that is too short
            assert body == CHUNKS["less than it says"]
        else:
            assert answer.status == 400
            assert connection.closed()


@pytest.mark.parametrize(
    "data",
    [
        b"GET /health/live HTTP/1.1\nHost: x\n\n",
        b"GET /health/live HTTP/1.1\r\nHost: x\n\r\n",
        b"GET /health/live HTTP/1.1\r\nHost: x\r\nX: a\nTransfer-Encoding: chunked\r\n\r\n",
    ],
)
def test_bare_line_feed(stack: Stack, data: bytes) -> None:
    """A line that ends in LF alone is refused: a proxy in front may not have seen a line there."""
    answer = exchange(stack.port, data)
    assert answer.status == 400
    assert answer.get("connection") == "close"


def test_old_version(stack: Stack) -> None:
    """HTTP/1.0 needs no Host for the health check, and its connection is closed."""
    with line(stack.port) as connection:
        answer = connection.send(b"GET /health/live HTTP/1.0\r\n\r\n").answer()
        assert (answer.status, connection.closed()) == (200, True)


# -- connections ------------------------------------------------------------------------------------


def test_pipelined_requests(stack: Stack) -> None:
    """Requests that are sent without waiting are answered one after the other, in order."""
    with line(stack.port) as connection:
        connection.send(b"".join(get(stack, b"/public/%d" % number) for number in range(10)))
        assert [connection.answer().text for _ in range(10)] == [f"/public/{number}" for number in range(10)]


def test_pipelined_bodies(stack: Stack) -> None:
    """A body belongs to its own request, also where the next one follows in the same packet."""
    requests = b"".join(
        b"POST /public HTTP/1.1\r\nHOST:Content-Length: %d\r\n\r\n%b" % (n, b"x" * n) for n in (1, 5000, 3)
    )
    with line(stack.port) as connection:
        connection.send(with_host(stack, requests))
        assert [len(connection.answer().body) for _ in range(3)] == [1, 5000, 3]


@pytest.mark.parametrize("bad", [b"GET http://x/ HTTP/1.1\r\nHost: x\r\n\r\n", b"\x00\r\n\r\n"])
def test_bad_request_after_a_good_one(stack: Stack, bad: bytes) -> None:
    """What is refused on a used connection is answered and closed, and nothing after it is served."""
    with line(stack.port) as connection:
        assert connection.send(get(stack)).answer().status == 200
        time.sleep(0.05)  # until the server, too, knows that it has answered
        answer = connection.send(bad + get(stack, b"/public/never")).answer()
        assert answer.status == 400
        assert connection.closed()


def test_bad_request_behind_a_good_one(stack: Stack) -> None:
    """In one packet with a good request, a bad one never gets an answer that is not its own."""
    with line(stack.port) as connection:
        connection.send(
            get(stack, b"/public/good") + b"GET http://x/ HTTP/1.1\r\nHost: x\r\n\r\n" + get(stack)
        )
        try:
            answers = [connection.answer()]
        except Closed:
            answers = []
        assert [answer.text for answer in answers] in ([], ["/public/good"])
        assert connection.closed()


def test_body_that_looks_like_a_request(stack: Stack) -> None:
    """A request inside a refused body is not served, once its bytes are known to be body."""
    inner = get(stack, b"/public/inner")
    outer = b"POST /nothing HTTP/1.1\r\nHOST:Content-Length: %d\r\n\r\n" % len(inner)
    with line(stack.port) as connection:
        connection.send(with_host(stack, outer) + inner + get(stack, b"/public/after"))
        assert connection.answer().status == 404
        assert connection.answer().text == "/public/after"


@pytest.mark.parametrize("kind", [b"websocket", b"h2c", b"x"])
def test_upgrade(stack: Stack, kind: bytes) -> None:
    """An upgrade that we do not make is an ordinary request."""
    request = get(stack, b"/public", b"Connection: Upgrade", b"Upgrade: " + kind)
    assert exchange(stack.port, request).text == "/public"


def test_what_follows_an_upgrade(stack: Stack) -> None:
    """Behind upgrades that are not made the next requests are read, and no body is taken for a request."""
    stack.upstream.reset()
    asking = get(stack, b"/public/asks", b"Connection: Upgrade", b"Upgrade: h2c")
    inner = get(stack, b"/public/inner")
    start = b"POST /public/outer HTTP/1.1\r\nHOST:Content-Length: %d\r\n\r\n" % len(inner)
    with line(stack.port) as connection:
        connection.send(asking + asking + with_host(stack, start))
        assert [connection.answer().text for _ in range(2)] == ["/public/asks", "/public/asks"]
        assert connection.send(inner).answer().body == inner
    assert [request.target for request in stack.upstream.requests] == ["/public/asks"] * 2 + ["/public/outer"]


INSIDE = b"GET /public/inside HTTP/1.1\r\n\r\n"
Messages = list[tuple[bytes, int, bytes]]
MESSAGES: Messages = [
    (b"GET /public HTTP/1.1\r\nHOST:\r\n", 200, b"/public"),
    (b"\r\nGET /public HTTP/1.1\r\nHOST:\r\n", 200, b"/public"),
    (b"GET /public HTTP/1.1\r\nHOST:Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n", 200, b"/public"),
    (b"GET /none HTTP/1.1\r\nHOST:Connection: Upgrade\r\nUpgrade: x\r\n\r\n", 404, b""),
    (b"POST /public HTTP/1.1\r\nHOST:Content-Length: %d\r\n\r\n" % len(INSIDE) + INSIDE, 200, INSIDE),
    (b"POST /none HTTP/1.1\r\nHOST:Content-Length: %d\r\n\r\n" % len(INSIDE) + INSIDE, 404, b""),
    (b"POST /public HTTP/1.1\r\nHOST:Content-Length: 0\r\n\r\n", 200, b"/public"),
    (
        b"POST /public HTTP/1.1\r\nHOST:Transfer-Encoding: chunked\r\n\r\n"
        b"1;a=b\r\nx\r\n%x\r\n%b\r\n0\r\nT: v\r\n\r\n" % (len(INSIDE), INSIDE),
        200,
        b"x" + INSIDE,
    ),
]
"""Requests, and the status and body of the answer to each."""


@given(
    messages=st.lists(st.sampled_from(MESSAGES), min_size=2, max_size=5),
    cuts=st.lists(st.integers(0, 1000), max_size=8),
)
@settings(max_examples=60, deadline=None)
def test_pieces_do_not_matter(stack: Stack, messages: Messages, cuts: list[int]) -> None:
    """However the bytes of requests come in packets, each is answered once and no body is taken for one."""
    data = with_host(stack, b"".join(message for message, _, _ in messages))
    bounds = [0, *sorted(cut % len(data) for cut in cuts), len(data)]
    with line(stack.port) as connection:
        for start, end in pairwise(bounds):
            connection.send(data[start:end])
            time.sleep(0.001)
        for _, status, body in messages:
            answer = connection.answer()
            assert (answer.status, answer.body) == (status, body if status == 200 else answer.body)


@pytest.mark.parametrize("framing", [b"Content-Length: %d", b"Transfer-Encoding: chunked"])
def test_upgrade_with_a_body(stack: Stack, framing: bytes) -> None:
    """A body behind an upgrade is refused: to the parser it is none, and a request could hide in it."""
    stack.upstream.reset()
    inner = get(stack, b"/public/inner")
    lines = (b"Connection: Upgrade", b"Upgrade: x", framing % len(inner) if b"%" in framing else framing)
    request = get(stack, b"/public", *lines).replace(b"GET", b"POST", 1)
    with line(stack.port) as connection:
        assert connection.send(request + inner).answer().status == 400
        assert connection.closed()
    assert stack.upstream.requests == []


# -- limits -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "lines",
    [
        [b"X: " + b"y" * MAX_HEAD],
        [b"X-%d: y" % number for number in range(3000)],
        [b"Cookie: " + b"a=b; " * 5000],
        [b"X" * MAX_HEAD + b": y"],
    ],
    ids=["one huge header", "many headers", "cookies", "a huge name"],
)
def test_large_head(stack: Stack, lines: list[bytes]) -> None:
    """Heads over the limit get 431 and a closed connection."""
    with line(stack.port) as connection:
        answer = connection.send(get(stack, b"/health/live", *lines)).answer()
        assert (answer.status, answer.code) == (431, "headers_too_large")
        assert_bare(answer)
        assert connection.closed()


def test_large_target(stack: Stack) -> None:
    """The target counts as part of the head."""
    answer = exchange(stack.port, get(stack, b"/public?" + b"a" * MAX_HEAD))
    assert answer.code == "headers_too_large"


def test_head_within_the_limit(stack: Stack) -> None:
    """Just below the limit a head passes, again and again on one connection."""
    with line(stack.port) as connection:
        for _ in range(4):
            request = get(stack, b"/health/live", b"X: " + b"y" * (MAX_HEAD - 200))
            assert connection.send(request).answer().status == 200


@pytest.mark.parametrize("piece", [b"y" * 512, b"X: y\r\n" * 80], ids=["one header", "many headers"])
def test_head_without_end(stack: Stack, piece: bytes) -> None:
    """A head that drips on is cut off at the limit, not kept in memory."""
    with line(stack.port) as connection:
        connection.send(get(stack)[:-2] + b"X: ")
        sent = 0
        while sent < 3 * MAX_HEAD and not stop(connection.socket):
            connection.send(piece)
            sent += len(piece)
            time.sleep(0.001)
        assert connection.answer().status == 431, "without another byte"


def stop(sock: socket.socket) -> bool:
    """Whether the peer has said something."""
    sock.setblocking(False)
    try:
        return bool(sock.recv(1, socket.MSG_PEEK)) or True
    except BlockingIOError:
        return False
    except OSError:
        return True
    finally:
        sock.setblocking(True)


@pytest.mark.parametrize(
    ("start", "piece"),
    [
        (b"0\r\nX: ", b"y" * 4096),
        (b"0\r\n", b"X: y\r\n" * 500),
        (b"1;x=", b"y" * 4096),
        (b"1\r\nx\r\n", b"0" * 4096),
    ],
    ids=["a trailer", "many trailers", "a chunk extension", "a chunk size"],
)
def test_framing_without_end(stack: Stack, start: bytes, piece: bytes) -> None:
    """What is neither head nor body (trailers, chunk extensions) has a limit too: it is kept in memory."""
    data = b"POST /public HTTP/1.1\r\nHOST:Transfer-Encoding: chunked\r\n\r\n" + start
    with line(stack.port) as connection:
        connection.send(with_host(stack, data))
        sent = 0
        while sent < 1_000_000 and not stop(connection.socket):
            connection.send(piece)
            sent += len(piece)
            time.sleep(0.0002)
        assert until(lambda: stop(connection.socket), within=10), "without another byte"


def test_client_that_says_nothing(stack: Stack) -> None:
    """Many idle connections do not keep others out."""
    idle = [socket.create_connection(("127.0.0.1", stack.port)) for _ in range(200)]
    try:
        assert exchange(stack.port, get(stack)).status == 200
    finally:
        for connection in idle:
            connection.close()


def limits(*names: str, seconds: float = 0.5) -> dict[str, float]:
    """Such limits of the protocol, where the real ones are half a minute and more."""
    return {f"{name}_seconds": seconds for name in names}


@pytest.fixture(scope="module")
def impatient(module_store: Store) -> Iterator[Stack]:
    """A server that waits for half a second for what its client owes."""
    owed = limits("head", "body_pause")
    with running(module_store, toml=ROUTE, limits=owed) as stack:
        yield stack


@pytest.fixture(scope="module")
def untaken(module_store: Store) -> Iterator[Stack]:
    """A server that waits for half a second while its client takes nothing or sends what nobody asked for,
    and looks whether it does every two seconds."""
    bounds = limits("answer_pause", "unasked") | limits("head", seconds=2)
    with running(module_store, toml=ROUTE, limits=bounds) as stack:
        yield stack


@pytest.fixture(scope="module")
def steady(module_store: Store) -> Iterator[Stack]:
    """A server that waits for two seconds: longer than a busy machine makes a client pause, and shorter than
    what goes on for long takes in all."""
    names = ("head", "body_pause", "answer_pause", "unasked")
    with running(module_store, toml=ROUTE, limits=limits(*names, seconds=2.2)) as stack:
        yield stack


def drip(connection: Line, piece: bytes, within: float = 5) -> bool:
    """Send `piece` again and again; whether the server hangs up in time (later on a busy machine)."""
    watch = Stopwatch()
    connection.socket.settimeout(0.05)
    while watch.own < within:
        connection.send(piece)
        try:
            if connection.socket.recv(65536) == b"":
                return True
        except ConnectionResetError:  # it had not read all that was sent
            return True
        except TimeoutError:
            continue
    return False


OVERDUE = {
    "nothing": (b"", b""),
    "a head": (b"GET / HTTP/1.1\r\nHost: x\r\nX: ", b"x"),
    "a line": (b"GET /", b"x"),
    "header after header": (b"GET / HTTP/1.1\r\nHost: x\r\n", b"X: y\r\n"),
    "a silent body": (b"POST /public HTTP/1.1\r\nHOST Content-Length: 9\r\n\r\n1", b""),
}


@pytest.mark.parametrize(
    ("kind", "kept"),
    [(kind, kept) for kind in OVERDUE for kept in (False, True) if kind != "nothing" or not kept],
)
def test_client_that_owes_bytes(impatient: Stack, kind: str, kept: bool) -> None:
    """A head that drips and a body that stops end the connection, on a new one and on one that was kept."""
    start, piece = OVERDUE[kind]
    start, watch = start.replace(b"HOST ", host(impatient)), Stopwatch()
    with used(impatient) if kept else line(impatient.port) as connection:
        watch = Stopwatch() if kept else watch
        connection.send(start)
        assert drip(connection, piece)
        assert watch.elapsed > 0.4


@contextmanager
def used(stack: Stack) -> Iterator[Line]:
    """A connection that has served a request: at the second try, perhaps, where this machine stood still for
    longer than the server waits."""
    for last in (False, False, True):
        with line(stack.port) as connection:
            try:
                assert connection.send(get(stack)).answer().status == 200
            except Closed:
                assert not last
                continue
            yield connection
            return


def send_without_end(wire: Wire, _request: Request) -> object:
    """Sends, as long as somebody takes it."""
    wire.send(b"HTTP/1.1 200 OK\r\ncontent-length: 500000000\r\n\r\n")
    with suppress(OSError):
        for _ in range(500):
            wire.send(bytes(1_000_000))
    return False


@pytest.mark.parametrize("last", [False, True], ids=["kept", "closing"])
def test_client_that_does_not_read(untaken: Stack, last: bool) -> None:
    """An answer that its client does not take is given up, and holds no connection to the upstream."""
    untaken.upstream.reset()
    untaken.upstream.script = send_without_end
    with line(untaken.port) as connection:
        connection.send(get(untaken, b"/public", *([b"Connection: close"] if last else [])))
        assert until(lambda: untaken.upstream.requests)
        assert untaken.upstream.lost(untaken.upstream.requests[0], within=5)
        connection.socket.settimeout(5)
        with suppress(OSError):
            while connection.socket.recv(1_000_000):
                pass
    untaken.upstream.reset()


def test_stream_that_nobody_reads(untaken: Stack) -> None:
    """A stream may wait for its reader: its place and its session bound it."""
    untaken.upstream.reset()
    untaken.upstream.script = send_without_end
    with line(untaken.port) as connection:
        connection.send(get(untaken, b"/stream"))
        assert until(lambda: untaken.upstream.requests)
        assert not untaken.upstream.lost(untaken.upstream.requests[0], within=3)
    untaken.upstream.reset()


def test_reader_that_is_slow(steady: Stack) -> None:
    """Who takes a little now and then is waited for."""
    steady.upstream.reset()
    steady.upstream.answers(ok(bytes(12_000_000)))
    with line(steady.port) as connection:
        connection.send(get(steady, b"/public"))
        taken = 0
        while taken < 12_000_000:
            piece = connection.socket.recv(500_000)
            assert piece
            taken += len(piece)
            time.sleep(0.12)
    steady.upstream.reset()


def test_kept_connection_may_rest(steady: Stack) -> None:
    """Between requests nothing is owed; and neither a slow upstream nor a steady body ends a connection."""
    with line(steady.port) as connection:
        for _ in range(2):
            assert connection.send(get(steady)).answer().status == 200
            time.sleep(2.4)
        connection.send(b"POST /public HTTP/1.1\r\n" + host(steady) + b"Content-Length: 8\r\n\r\n")
        for number in range(8):
            connection.send(b"%d" % number)
            time.sleep(0.35)
        assert connection.answer().status == 200


@pytest.mark.parametrize("blank", [b"\r\n", b"\n", b"\r\n\r\n"])
def test_blank_lines_hold_no_connection(impatient: Stack, blank: bytes) -> None:
    """Blank lines between requests begin none, and let no connection rest longer than silence would."""
    watch = Stopwatch()
    with used(impatient) as connection:
        time.sleep(0.05)  # until the server, too, knows that it has answered
        assert drip(connection, blank, within=8)  # uvicorn's own patience with a silent connection is 5 s
        assert watch.elapsed > 4


def test_body_that_drips_after_its_answer(untaken: Stack) -> None:
    """What nobody asked for any more is read for a bounded time, however steadily it comes."""
    watch = Stopwatch()
    with line(untaken.port) as connection:
        connection.send(b"POST /nowhere HTTP/1.1\r\n" + host(untaken) + b"Content-Length: 900\r\n\r\n")
        assert connection.answer().status == 404
        assert drip(connection, b"x")
        assert watch.elapsed > 0.4


def test_small_body_that_drips(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    """A form that never ends is refused in a bounded time, without having held a thread."""
    monkeypatch.setattr("bff.asgi.CONTROL_BODY_SECONDS", 0.3)
    with line(stack.port) as connection:
        connection.send(b"POST /bff/callback HTTP/1.1\r\n" + host(stack) + b"Content-Length: 900\r\n\r\nx")
        answer = connection.answer()
    assert answer.status == 400
    assert "<code>bad_request</code>" in answer.text


def test_many_small_requests_at_once(stack: Stack) -> None:
    """Requests from many threads are all answered, each with its own answer."""
    wrong: list[str] = []

    def ask(name: int) -> None:
        with line(stack.port) as connection:
            for number in range(40):
                target = f"/public/{name}/{number}"
                if connection.send(get(stack, target.encode())).answer().text != target:
                    wrong.append(target)

    threads = [threading.Thread(target=ask, args=(name,)) for name in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert wrong == []


# -- the process ------------------------------------------------------------------------------------


@pytest.fixture
def process(stack: Stack) -> Iterator[ServeProcess]:
    """`bff serve` as a process of its own."""
    with serve_process(stack.provider, stack.store.url, stack.upstream, ROUTE) as found:
        yield found


def test_sigterm(stack: Stack, process: ServeProcess) -> None:
    """On SIGTERM `bff serve` finishes what is under way, and exits with 0 and without a stack trace."""
    stack.upstream.reset()

    def slow(wire: Wire, _request: Request) -> None:
        time.sleep(0.6)
        wire.send(ok(b"done"))

    stack.upstream.script = slow
    request = f"GET /public HTTP/1.1\r\nHost: localhost:{process.port}\r\nX-CSRF: 1\r\n\r\n".encode()
    with line(process.port) as idle, line(process.port) as busy:
        assert idle.send(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n").answer().status == 200
        busy.send(request)
        assert until(lambda: stack.upstream.requests)
        code, logged = process.stop()
        assert busy.answer().body == b"done"
    assert code == 0
    assert "Traceback" not in logged, logged
    assert not process.ready()


def test_drain(stack: Stack) -> None:
    """On SIGTERM readiness flips first, and for the set time requests are answered, on new connections and on
    old ones, each told to be the connection's last; a second SIGTERM changes nothing."""
    stack.upstream.reset()
    with serve_process(stack.provider, stack.store.url, stack.upstream, ROUTE, drain_seconds="7") as process:
        request = f"GET /public HTTP/1.1\r\nHost: localhost:{process.port}\r\nX-CSRF: 1\r\n\r\n".encode()
        with line(process.port) as old:
            assert old.send(request).answer().get("connection") != "close"
            started = Stopwatch()
            process.signal(signal.SIGTERM)
            assert until(lambda: not process.ready(), within=3)
            process.signal(signal.SIGTERM)
            answer = old.send(request).answer()
            assert (answer.status, answer.get("connection")) == (200, "close")
        with line(process.port) as new:
            assert new.send(request).answer().status == 200
        code, logged = process.ended()
        assert started.own < 17
        assert started.elapsed > 7
        assert (code, "Traceback" in logged) == (0, False)


def test_who_connected_at_the_last_moment(stack: Stack) -> None:
    """A connection on which nothing had come when the listener closed gets its answer, although no other is
    taken any more; one that stays silent does not hold the end up for long."""
    stack.upstream.reset()
    patient = "import bff.worker\nbff.worker.LAST_SECONDS *= 6"  # a second is over too soon on a busy machine
    with serve_process(stack.provider, stack.store.url, stack.upstream, ROUTE, before=patient) as process:
        request = f"GET /public HTTP/1.1\r\nHost: localhost:{process.port}\r\nX-CSRF: 1\r\n\r\n".encode()
        with line(process.port) as late, line(process.port):
            assert process.ready(), "who came before has been accepted, too"
            started = Stopwatch()
            process.signal(signal.SIGTERM)
            assert until(lambda: refused(process.port))
            answer = late.send(request).answer()
            assert (answer.status, answer.get("connection")) == (200, "close")
        code, logged = process.ended()
        assert started.own < 6 + 5
        assert (code, "Traceback" in logged) == (0, False)


def refused(port: int) -> bool:
    """Whether nobody listens there."""
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except ConnectionRefusedError:
        return True
    return False


TOLD_AT_ONCE = """
import os, signal
from bff.serving import serve

class Companion:
    def prepare(self):
        os.kill(os.getpid(), signal.SIGTERM)

    def stop(self):
        print("cleaned up")

serve(lambda: None, name="x", bind="127.0.0.1:0", workers=1, companion=Companion())
"""


def test_sigterm_before_it_has_begun() -> None:
    """Whoever stops it at once gets status 0 as well, and nothing stays behind."""
    done = subprocess.run(
        [sys.executable, "-c", TOLD_AT_ONCE], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "cleaned up" in done.stdout


@pytest.mark.parametrize("told", [True, False])
def test_a_worker_that_is_told_to_end_as_it_begins(told: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends, although the signal went into a queue that nobody reads, and is not waited for until the time
    for what is under way is over."""
    handlers: dict[int, object] = {}
    monkeypatch.setattr(signal, "signal", handlers.__setitem__)
    arbiter = SimpleNamespace(SIG_QUEUE=SimpleQueue())
    for number in (signal.SIGCHLD, *([signal.SIGTERM] if told else [])):
        arbiter.SIG_QUEUE.put(number)
    with pytest.raises(SystemExit, match="0") if told else nullcontext():
        _listen_to_signals(arbiter, None)  # type: ignore[arg-type]
    assert handlers == {signal.SIGTERM: signal.SIG_DFL}


def test_address_in_use() -> None:
    """An address in use is an OSError before anything is started."""
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OSError, match="in use"):
        serve(lambda: None, name="x", bind=f"127.0.0.1:{taken.getsockname()[1]}", workers=1)  # type: ignore[arg-type,return-value]


def test_log_lines(process: ServeProcess) -> None:
    """What it logs is JSON lines, and one of them says where it listens."""
    lines = [json.loads(text) for text in process.stop()[1].splitlines()]
    assert any(f"127.0.0.1:{process.port}" in entry.values() for entry in lines)


def test_many_files() -> None:
    """A server may have as many connections as the system allows, not as many as a shell has by default."""
    code = (
        "import resource as r; from bff.serving import allow_many_files;"
        "hard = r.getrlimit(r.RLIMIT_NOFILE)[1];"
        "r.setrlimit(r.RLIMIT_NOFILE, (64, hard)); allow_many_files(); print(r.getrlimit(r.RLIMIT_NOFILE)[0])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    assert int(found.stdout) == (65_536 if hard == resource.RLIM_INFINITY else min(hard, 65_536))
