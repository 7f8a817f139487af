"""The upstream client on its own: connections, framing, time, and what it makes of odd answers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import certifi
import pytest

from benchmarks.proxy.programs import free_port
from bff.errors import BodyTooLarge, UpstreamTimeout, UpstreamUnreachable
from bff.guard import Proof
from bff.request import Headers
from bff.routes import PLAIN, Route, TLSFiles
from bff.upstream import Origin, Upstreams
from tests.support.stopwatch import Stopwatch
from tests.support.upstream import Request, ScriptedUpstream, Wire, ok, scripted_upstream
from tests.support.wire import happens, until

HOST: Headers = [(b"host", b"api.example")]


@pytest.fixture
def upstream() -> Iterator[ScriptedUpstream]:
    with scripted_upstream() as found:
        yield found


Got = tuple[int, Headers, bytes]


async def call(
    origin: Origin,
    method: str = "GET",
    target: bytes = b"/",
    body: AsyncIterator[bytes] | None = None,
    headers: Headers | None = None,
    patience: float = 10,
) -> Got:
    """One exchange, read to its end."""
    response = await origin.send(method, target, HOST + (headers or []), body, patience)
    try:
        return response.status, response.headers, b"".join([piece async for piece in response.body()])
    finally:
        response.finish()


def with_origin(upstream: ScriptedUpstream, talk: Callable[[Origin], Awaitable[object]]) -> None:
    """Run `talk` with connections to `upstream`, and close them."""

    async def run() -> None:
        origin = Origin(upstream.url)
        try:
            await talk(origin)
        finally:
            origin.close()

    asyncio.run(run())


def exchange(upstream: ScriptedUpstream, method: str = "GET", **options: object) -> Got:
    """One exchange on a connection of its own."""
    results: list[Got] = []

    async def talk(origin: Origin) -> None:
        results.append(await call(origin, method, **options))  # type: ignore[arg-type]

    with_origin(upstream, talk)
    return results[0]


async def pieces(*parts: bytes, then: Exception | None = None, pause: float = 0) -> AsyncIterator[bytes]:
    for part in parts:
        await asyncio.sleep(pause)
        yield part
    if then is not None:
        raise then


# -- what is sent -----------------------------------------------------------------------------------


def test_request_as_given(upstream: ScriptedUpstream) -> None:
    """Target and headers go out byte for byte, in order."""
    headers = [(b"x-a", b"1"), (b"x-a", b"2"), (b"x-utf8", "é".encode())]
    exchange(upstream, target=b"/%41/..;x?a=%2F&&b", headers=headers)
    (seen,) = upstream.requests
    assert (seen.method, seen.target) == ("GET", "/%41/..;x?a=%2F&&b")
    assert seen.headers == [
        ("host", "api.example"),
        ("x-a", "1"),
        ("x-a", "2"),
        ("x-utf8", "é".encode().decode("latin-1")),
    ]


@pytest.mark.parametrize("sized", [True, False])
def test_body_framing(upstream: ScriptedUpstream, sized: bool) -> None:
    """A body with a known length keeps it; another one is sent in chunks, and empty pieces end nothing."""
    headers = [(b"content-length", b"6")] if sized else []
    _, _, body = exchange(upstream, "POST", body=pieces(b"abc", b"", b"def"), headers=headers)
    (seen,) = upstream.requests
    assert body == seen.body == b"abcdef"
    assert seen.chunked is not sized
    assert seen.get("content-length") == ("6" if sized else "")


# -- how answers end --------------------------------------------------------------------------------

FRAMES: list[tuple[str, str, bytes, int, bytes, bool]] = [
    # name, method, the upstream's bytes, status, body, whether the connection may be used again
    ("length", "GET", ok(b"hello"), 200, b"hello", True),
    ("empty", "GET", ok(b""), 200, b"", True),
    (
        "chunked",
        "GET",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n",
        200,
        b"abcde",
        True,
    ),
    ("close", "GET", ok(b"hello", b"connection: close"), 200, b"hello", False),
    ("HTTP/1.0", "GET", ok(b"hello").replace(b"1.1", b"1.0"), 200, b"hello", False),
    ("204", "GET", b"HTTP/1.1 204 No Content\r\n\r\n", 204, b"", True),
    ("304 with a length", "GET", b"HTTP/1.1 304 Not Modified\r\ncontent-length: 9\r\n\r\n", 304, b"", True),
    ("HEAD with a length", "HEAD", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n", 200, b"", False),
    ("HEAD chunked", "HEAD", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", 200, b"", False),
    ("interim 103", "GET", b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n" + ok(b"x"), 200, b"x", True),
    ("interim 100 twice", "GET", b"HTTP/1.1 100 Continue\r\n\r\n" * 2 + ok(b"x"), 200, b"x", True),
    ("no reason phrase", "GET", b"HTTP/1.1 200\r\ncontent-length: 1\r\n\r\nx", 200, b"x", True),
    ("599", "GET", ok(b"x", status=b"599 Odd"), 599, b"x", True),
]


@pytest.mark.parametrize(
    ("method", "data", "status", "body", "again"), [row[1:] for row in FRAMES], ids=[row[0] for row in FRAMES]
)
def test_framing(
    upstream: ScriptedUpstream, method: str, data: bytes, status: int, body: bytes, again: bool
) -> None:
    """Each way to end a message is understood, and only a clean end keeps the connection."""
    upstream.answers(data)

    async def talk(origin: Origin) -> None:
        for _ in range(2):
            got, headers, read = await call(origin, method)
            assert (got, read) == (status, body)
            assert b"link" not in dict(headers)

    with_origin(upstream, talk)
    assert upstream.connections == (1 if again else 2)


def test_body_until_the_connection_ends(upstream: ScriptedUpstream) -> None:
    """A body without a frame ends where the upstream closes cleanly."""
    upstream.answers(b"HTTP/1.1 200 OK\r\n\r\nto the end", close=True)
    assert exchange(upstream)[2] == b"to the end"


@pytest.mark.parametrize("size", [1, 7, 60])
def test_answer_in_small_pieces(upstream: ScriptedUpstream, size: int) -> None:
    """However the bytes are cut on their way, the answer is the same."""
    data = (
        b"HTTP/1.1 200 OK\r\nx-a: one\r\nx-b: two\r\ntransfer-encoding: chunked\r\n\r\n"
        b"5\r\nhello\r\n7\r\n, world\r\n0\r\nx-trailer: t\r\n\r\n"
    )

    def script(wire: Wire, _request: Request) -> None:
        for start in range(0, len(data), size):
            wire.send(data[start : start + size])
            time.sleep(0.001)

    upstream.script = script
    status, headers, body = exchange(upstream)
    assert (status, body) == (200, b"hello, world")
    assert headers == [(b"x-a", b"one"), (b"x-b", b"two"), (b"transfer-encoding", b"chunked")]


def test_trailers_are_no_headers(upstream: ScriptedUpstream) -> None:
    """Trailers are dropped, also where they come in one packet with the head; none waits in the parser for
    the next answer on the connection."""
    upstream.answers(
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n"
        b"cache-control: public\r\nx-late: 1\r\n\r\n"
    )

    async def talk(origin: Origin) -> None:
        assert await call(origin) == (200, [(b"transfer-encoding", b"chunked")], b"x")
        upstream.answers(ok(b"next"))
        assert await call(origin) == (200, [(b"content-length", b"4")], b"next")

    with_origin(upstream, talk)
    assert upstream.connections == 1


EXTRA = [
    ok(b"second", b"set-cookie: a=b", status=b"201 Created"),
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"junk",
    b"\r\n\r\n",
    b"\x00",
]


@pytest.mark.parametrize("extra", EXTRA)
@pytest.mark.parametrize("pause", [0, 0.05])
def test_bytes_that_nobody_asked_for(upstream: ScriptedUpstream, extra: bytes, pause: float) -> None:
    """What follows a whole answer belongs to no request: dropped, and the connection with it (response
    splitting)."""

    said = []

    def script(wire: Wire, _request: Request) -> None:
        wire.send(ok(b"first") if pause else ok(b"first") + extra)
        time.sleep(pause)
        if pause:
            wire.send(extra)
        said.append(extra)

    upstream.script = script

    async def talk(origin: Origin) -> None:
        for number in range(2):
            status, headers, body = await call(origin)
            assert (status, headers, body) == (200, [(b"content-length", b"5")], b"first")
            assert await happens(lambda: len(said) == number + 1)  # noqa: B023 -- used at once
            await asyncio.sleep(pause)  # it is there, and is noticed

    with_origin(upstream, talk)
    assert upstream.connections == (1 if extra == b"\r\n\r\n" and not pause else 2)


@pytest.mark.parametrize("extra", [b"body of a HEAD", ok(b"second")])
def test_head_with_a_body(upstream: ScriptedUpstream, extra: bytes) -> None:
    """An upstream that sends a body to HEAD, against the rules, spoils nothing for the next request."""
    upstream.answers(b"HTTP/1.1 200 OK\r\ncontent-length: 14\r\n\r\n" + extra)

    async def talk(origin: Origin) -> None:
        assert await call(origin, "HEAD") == (200, [(b"content-length", b"14")], b"")
        upstream.answers(ok(b"next"))
        assert (await call(origin))[2] == b"next"

    with_origin(upstream, talk)


# -- answers that are none --------------------------------------------------------------------------

GARBAGE: dict[str, bytes] = {
    "nothing": b"",
    "text": b"hello\r\n\r\n",
    "HTTP/0.9": b"<html>",
    "HTTP/2": b"HTTP/2 200\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00",
    "no status": b"HTTP/1.1 OK\r\n\r\n",
    "long status": b"HTTP/1.1 2000 OK\r\n\r\n",
    "status beyond HTTP": ok(b"x", status=b"600 Odd"),
    "status 999": ok(b"x", status=b"999 Odd"),
    "a space before the colon": b"HTTP/1.1 200 OK\r\ncontent-length : 1\r\n\r\nx",
    "a NUL in a value": b"HTTP/1.1 200 OK\r\nx: a\x00b\r\ncontent-length: 1\r\n\r\nx",
    "an interim answer with a body": b"HTTP/1.1 199 Odd\r\ncontent-length: 5\r\n\r\nextra" + ok(b"x"),
    "two lengths": b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nxy",
    "a length and chunks": (
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n"
    ),
    "a negative length": b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
    "a length in words": b"HTTP/1.1 200 OK\r\ncontent-length: one\r\n\r\nx",
    "switches protocols": b"HTTP/1.1 101 Switching\r\nupgrade: x\r\nconnection: upgrade\r\n\r\nhello",
    "a head cut off": b"HTTP/1.1 200 OK\r\ncontent-le",
    "a huge header": b"HTTP/1.1 200 OK\r\nx: " + b"y" * 1_000_000 + b"\r\n\r\n",
    "many headers": b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 200_000 + b"\r\n",
    "a head without end": b"HTTP/1.1 200 OK\r\nx: " + b"y" * 2_000_000,
    "interim answers without end": b"HTTP/1.1 100 Continue\r\n\r\n" * 40_000,
}


@pytest.mark.parametrize("data", GARBAGE.values(), ids=GARBAGE)
def test_garbage(upstream: ScriptedUpstream, data: bytes) -> None:
    """What is no HTTP/1.1 answer, or has no end, is an upstream that cannot be reached."""
    upstream.answers(data, close=True)
    with pytest.raises(UpstreamUnreachable):
        exchange(upstream)


BROKEN: dict[str, bytes] = {
    "length": b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf",
    "no byte of it": b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n",
    "chunked": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n",
    "in a chunk": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n9\r\nhalf",
    "before the last line": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n0\r\n",
    "bad chunk": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\nzz\r\n",
    "chunk too long": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhalf\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN)
def test_body_that_breaks_off(upstream: ScriptedUpstream, data: bytes, reset: bool) -> None:
    """An answer that ends before its frame does is an error, not a short answer."""

    def script(wire: Wire, _request: Request) -> object:
        wire.send(data)
        time.sleep(0.02)
        if reset:
            wire.reset()
        return False

    upstream.script = script
    with pytest.raises(UpstreamUnreachable):
        exchange(upstream)


def test_reset_of_an_unframed_body(upstream: ScriptedUpstream) -> None:
    """A body without a frame that ends by a reset is broken: only a clean close is its end."""

    def script(wire: Wire, _request: Request) -> None:
        wire.send(b"HTTP/1.1 200 OK\r\n\r\nhalf")
        time.sleep(0.05)
        wire.reset()

    upstream.script = script
    with pytest.raises(UpstreamUnreachable):
        exchange(upstream)


def test_nobody_there() -> None:
    """A refused connection is told at once."""

    async def run() -> None:
        with pytest.raises(UpstreamUnreachable):
            await call(Origin(f"http://127.0.0.1:{free_port()}"))
        with pytest.raises(UpstreamUnreachable):
            await call(Origin("http://name.invalid:1"))

    asyncio.run(run())


# -- time -------------------------------------------------------------------------------------------


def hang(wire: Wire, request: Request) -> None:
    wire.body(request)
    time.sleep(6)


def test_no_head_in_time(upstream: ScriptedUpstream) -> None:
    """An upstream that does not answer in time: UpstreamTimeout, and its connection is closed."""
    upstream.script = hang
    started = Stopwatch()
    with pytest.raises(UpstreamTimeout):
        exchange(upstream, patience=0.2)
    assert started.own < 4
    assert started.elapsed > 0.15


def test_time_for_the_head_begins_after_the_body(upstream: ScriptedUpstream) -> None:
    """A slow sender does not use up the upstream's time."""
    body = pieces(b"a", b"b", b"c", b"d", pause=0.6)
    assert exchange(upstream, "POST", body=body, patience=2)[2] == b"abcd"
    upstream.script = hang
    with pytest.raises(UpstreamTimeout):
        exchange(upstream, "POST", body=pieces(b"a"), patience=0.2)


def test_body_that_stops(upstream: ScriptedUpstream) -> None:
    """A body in which nothing moves for the whole patience is given up; one that trickles is not."""

    def stops(wire: Wire, _request: Request) -> None:
        wire.send(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf")
        time.sleep(1)

    upstream.script = stops
    with pytest.raises(UpstreamTimeout):
        exchange(upstream, patience=0.2)

    def trickles(wire: Wire, _request: Request) -> None:
        wire.send(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n")
        for letter in b"hello":
            time.sleep(0.5)
            wire.send(bytes([letter]))

    upstream.script = trickles
    assert exchange(upstream, patience=2)[2] == b"hello"


def test_upstream_that_does_not_read(upstream: ScriptedUpstream) -> None:
    """An upstream that takes the connection but not the body does not hold the request for ever."""
    upstream.script = lambda _wire, _request: time.sleep(8)
    parts = [b"x" * 1_000_000] * 40
    started = Stopwatch()
    with pytest.raises(UpstreamTimeout):
        exchange(upstream, "POST", body=pieces(*parts), patience=0.3)
    assert started.own < 4


# -- connections ------------------------------------------------------------------------------------


def test_connection_is_used_again(upstream: ScriptedUpstream) -> None:
    """Exchanges one after the other share a connection."""

    async def talk(origin: Origin) -> None:
        for number in range(5):
            assert (await call(origin, target=b"/%d" % number))[2] == b"/%d" % number

    with_origin(upstream, talk)
    assert upstream.connections == 1


def test_exchanges_at_once(upstream: ScriptedUpstream) -> None:
    """Exchanges at the same time have a connection each."""

    async def talk(origin: Origin) -> None:
        bodies = await asyncio.gather(*(call(origin, target=b"/%d" % n) for n in range(10)))
        assert [body for _, _, body in bodies] == [b"/%d" % n for n in range(10)]

    with_origin(upstream, talk)
    assert upstream.connections == 10


def test_stale_connection(upstream: ScriptedUpstream) -> None:
    """A kept connection that the upstream closed meanwhile is no error: the request goes out once more."""

    def closes_quietly(wire: Wire, request: Request) -> object:
        wire.send(ok(request.target.encode()))
        time.sleep(0.05)
        return False

    upstream.script = closes_quietly

    async def talk(origin: Origin) -> None:
        for number in range(3):
            assert (await call(origin, target=b"/%d" % number))[2] == b"/%d" % number
            await asyncio.sleep(0.1)

    with_origin(upstream, talk)


@pytest.mark.parametrize("reset", [False, True])
def test_connection_that_dies_under_the_request(upstream: ScriptedUpstream, reset: bool) -> None:
    """A connection that is closed just as the request goes out is replaced, once, for a GET."""

    def script(wire: Wire, request: Request) -> object:
        if len([r for r in upstream.requests if r.connection == request.connection]) > 1:
            if reset:
                wire.reset()
            return False
        wire.send(ok(request.target.encode()))
        return True

    upstream.script = script

    async def talk(origin: Origin) -> None:
        assert (await call(origin, target=b"/1"))[2] == b"/1"
        assert (await call(origin, target=b"/2"))[2] == b"/2"

    with_origin(upstream, talk)
    assert [r.target for r in upstream.requests] == ["/1", "/2", "/2"]


@pytest.mark.parametrize("method", ["POST", "PATCH"])
def test_what_must_not_be_repeated(upstream: ScriptedUpstream, method: str) -> None:
    """A request that may not be sent twice never goes out on a connection that could be stale."""

    async def talk(origin: Origin) -> None:
        await call(origin)
        await call(origin, method)

    with_origin(upstream, talk)
    assert upstream.connections == 2
    upstream.requests.clear()
    upstream.script = lambda _wire, _request: False
    with pytest.raises(UpstreamUnreachable):
        exchange(upstream, method)
    assert len(upstream.requests) == 1


def test_fresh_connection_that_fails(upstream: ScriptedUpstream) -> None:
    """A new connection on which nothing comes back is an error, not a reason to try again and again."""
    upstream.script = lambda _wire, _request: False
    with pytest.raises(UpstreamUnreachable):
        exchange(upstream)
    assert len(upstream.requests) == 1


def test_answer_that_nobody_reads(upstream: ScriptedUpstream) -> None:
    """An exchange that is given up half-way takes its connection with it."""
    upstream.answers(ok(b"x" * 2_000_000))

    async def talk(origin: Origin) -> None:
        response = await origin.send("GET", b"/", HOST, None, 10)
        async for _ in response.body():
            break
        response.finish()
        upstream.answers(ok(b"next"))
        assert (await call(origin))[2] == b"next"

    with_origin(upstream, talk)
    assert upstream.connections == 2


def test_back_pressure(upstream: ScriptedUpstream) -> None:
    """While nobody takes the body, the upstream is held up: memory stays flat."""
    sent: list[int] = []

    def script(wire: Wire, _request: Request) -> None:
        wire.send(b"HTTP/1.1 200 OK\r\ncontent-length: 30000000\r\n\r\n")
        for _ in range(300):
            wire.send(b"x" * 100_000)
            sent.append(100_000)

    upstream.script = script

    async def talk(origin: Origin) -> None:
        response = await origin.send("GET", b"/", HOST, None, 10)
        await asyncio.sleep(0.3)
        assert sum(sent) < 12_000_000, "what is under way fits into socket buffers"
        assert sum([len(piece) async for piece in response.body()]) == 30_000_000
        response.finish()

    with_origin(upstream, talk)


# -- early answers ----------------------------------------------------------------------------------


def early(wire: Wire, _request: Request) -> None:
    """Answers before the body has come, and does not read it."""
    wire.send(ok(b"too much", status=b"413 Content Too Large"))
    time.sleep(0.3)


def test_early_answer(upstream: ScriptedUpstream) -> None:
    """An answer that comes before the body is sent ends the sending."""
    upstream.script = early
    status, _, body = exchange(upstream, "POST", body=pieces(*[b"x" * 1000] * 50, pause=0.02), patience=2)
    assert (status, body) == (413, b"too much")


def test_early_answer_and_close(upstream: ScriptedUpstream) -> None:
    """An upstream that answers early and hangs up is heard all the same."""

    def script(wire: Wire, request: Request) -> object:
        early(wire, request)
        return False

    upstream.script = script
    status, _, body = exchange(upstream, "POST", body=pieces(*[b"x" * 1000] * 50, pause=0.02), patience=2)
    assert (status, body) == (413, b"too much")


def test_half_sent_request_is_not_followed_by_another(upstream: ScriptedUpstream) -> None:
    """Where a body broke off after an early answer, the connection is closed: the next request would be
    read as the rest of that body (request smuggling)."""

    def script(wire: Wire, request: Request) -> None:
        wire.send(ok(b"early" if request.method == "POST" else b"next"))
        wire.body(request)

    upstream.script = script

    async def talk(origin: Origin) -> None:
        body = pieces(b"half", then=BodyTooLarge(), pause=0.05)
        response = await origin.send("POST", b"/", [*HOST, (b"content-length", b"1000")], body, 10)
        assert b"".join([piece async for piece in response.body()]) == b"early"
        await asyncio.sleep(0.15)
        response.finish()
        assert (await call(origin))[2] == b"next"

    with_origin(upstream, talk)
    assert upstream.connections == 2


def test_body_that_fails(upstream: ScriptedUpstream) -> None:
    """A client's body that breaks off before any answer is that error, and nothing whole goes upstream."""
    with pytest.raises(BodyTooLarge):
        exchange(upstream, "POST", body=pieces(b"half", then=BodyTooLarge(), pause=0.05))
    assert until(lambda: upstream.requests)
    assert upstream.lost(upstream.requests[0])
    assert upstream.requests[0].body in (b"", b"half")


def test_cancelled_call(upstream: ScriptedUpstream) -> None:
    """A call that is cancelled closes its connection at once."""

    def waits(wire: Wire, _request: Request) -> object:
        return wire.file.read(1) != b""

    upstream.script = waits

    async def talk(origin: Origin) -> None:
        task = asyncio.create_task(call(origin, patience=30))
        assert await happens(lambda: bool(upstream.requests))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

        assert upstream.lost(upstream.requests[0])

    with_origin(upstream, talk)


# -- origins ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "host", "base", "address"),
    [
        ("http://api.example", b"api.example", b"", ("api.example", 80)),
        ("https://api.example", b"api.example", b"", ("api.example", 443)),
        ("http://api.example:8080/base", b"api.example:8080", b"/base", ("api.example", 8080)),
        ("http://[::1]:8080", b"[::1]:8080", b"", ("::1", 8080)),
    ],
)
def test_origin(url: str, host: bytes, base: bytes, address: tuple[str, int]) -> None:
    """Host, base path and address follow from the URL; https is spoken with verification."""
    origin = Origin(url)
    assert (origin.host, origin.base_path, origin._address) == (host, base, address)
    assert (origin._tls is not None) is url.startswith("https")
    if origin._tls is not None:
        assert origin._tls.check_hostname


def test_origins_are_shared() -> None:
    """Routes to the same upstream share its connections, where they are secured in the same way."""
    upstreams = Upstreams()

    def origin(path: str, url: str, tls: TLSFiles = PLAIN) -> Origin:
        return upstreams.origin(
            Route(path, url, ("GET",), "user", Proof.HEADER, 1, frozenset(), False, tls=tls)
        )

    assert origin("/1", "http://a") is origin("/1", "http://a")
    assert origin("/1", "http://a") is origin("/2", "http://a")
    assert origin("/1", "http://a") is not origin("/3", "http://b")
    assert origin("/4", "https://a") is not origin(
        "/5", "https://a", TLSFiles(certificate=None, ca=Path(certifi.where()))
    )
    upstreams.close()
