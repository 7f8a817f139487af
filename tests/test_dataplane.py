"""Proxied routes over a running server: headers, bodies, trouble, and the token on its way."""

from __future__ import annotations

import contextlib
import hashlib
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from benchmarks.proxy.programs import free_port
from bff.tokens import TokenSet
from tests.support.browser import CSRF
from tests.support.provider import Reply, Seen
from tests.support.stack import Stack, Store, running, store
from tests.support.stopwatch import Stopwatch
from tests.support.upstream import Request, Wire, ok
from tests.support.wire import Answer, Closed, Line, line, until

TOML = """
[[routes]]
path = "/api"
upstream = "UPSTREAM/base"
methods = ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"]
response_headers = ["X-Extra", "Set-Cookie", "Server", "Clear-Site-Data"]

[[routes]]
path = "/api/files"
upstream = "UPSTREAM"
csrf = "fetch-metadata"

[[routes]]
path = "/public"
upstream = "UPSTREAM"
token = "none"
anonymous = true

[[routes]]
path = "/members"
upstream = "UPSTREAM"
token = "none"

[[routes]]
path = "/down"
upstream = "http://127.0.0.1:DOWN"
methods = ["GET", "POST"]

[[routes]]
path = "/slow"
upstream = "UPSTREAM"
timeout_seconds = 3
"""


@pytest.fixture(scope="module")
def module_store() -> Iterator[Store]:
    with store() as found:
        yield found


@pytest.fixture(scope="module")
def shared(module_store: Store) -> Iterator[Stack]:
    with running(
        module_store, toml=TOML.replace("DOWN", str(free_port())), max_body_bytes="5000000"
    ) as stack:
        yield stack


@pytest.fixture
def stack(shared: Stack) -> Stack:
    shared.upstream.reset()
    shared.provider.reset()
    return shared


@pytest.fixture
def hasty(module_store: Store) -> Iterator[Stack]:
    """One that gives an upstream two seconds."""
    with running(module_store, toml=TOML.replace("DOWN", "9"), upstream_timeout_seconds="2") as found:
        yield found


@pytest.fixture
def sid(stack: Stack) -> str:
    """The cookie of a signed-in browser."""
    return stack.plant()


def head(stack: Stack, sid: str, method: str = "GET", target: str = "/api", *lines: str) -> bytes:
    """The head of a request that may come in."""
    fields = [f"{method} {target} HTTP/1.1", f"Host: localhost:{stack.port}", "X-CSRF: 1"]
    fields += [f"Cookie: bff={sid}", *lines]
    return "\r\n".join(fields).encode() + b"\r\n\r\n"


def ask(
    stack: Stack, sid: str, method: str = "GET", target: str = "/api", *lines: str, body: bytes = b""
) -> Answer:
    """One request on a connection of its own."""
    with line(stack.port) as connection:
        connection.send(head(stack, sid, method, target, *lines) + body)
        return connection.answer(head_only=method == "HEAD")


# -- request headers --------------------------------------------------------------------------------


def test_token_goes_upstream(stack: Stack, sid: str) -> None:
    """The session's access token goes upstream, its cookie does not, and the answer has no token in it."""
    answer = ask(stack, sid, "GET", "/api/x?y=1")
    (seen,) = stack.upstream.requests
    assert (answer.status, seen.target) == (200, "/base/api/x?y=1")
    assert seen.get("authorization") == "Bearer planted"
    assert seen.get("host") == stack.upstream.url.removeprefix("http://")
    assert seen.all("cookie") == []
    assert "planted" not in str(answer)


def test_what_passes_upstream(stack: Stack, sid: str) -> None:
    """Content, conditions and preferences pass; the browser's own authority and every other header do not."""
    sent = {
        "Accept": "text/csv",
        "Accept-Language": "de",
        "If-None-Match": '"x"',
        "Range": "bytes=0-9",
        "Idempotency-Key": "k1",
        "User-Agent": "test",
        "X-Request-Id": "abcdef-123",
        "Authorization": "Bearer stolen",
        "Proxy-Authorization": "Basic x",
        "Forwarded": "for=6.6.6.6",
        "X-Forwarded-For": "6.6.6.6",
        "X-Forwarded-User": "admin",
        "X_Forwarded_User": "admin",
        "X-Auth-Request-User": "admin",
        "X-Real-IP": "6.6.6.6",
        "Origin": f"http://localhost:{stack.port}",
        "Sec-Fetch-Site": "same-origin",
        "TE": "trailers",
        "Keep-Alive": "timeout=5",
        "Traceparent": "no trace",
        "Tracestate": "a=1",
        "X-Custom": "1",
        "X-HTTP-Method-Override": "DELETE",
    }
    ask(stack, sid, "GET", "/api", *[f"{name}: {value}" for name, value in sent.items()])
    (seen,) = stack.upstream.requests
    assert sorted(name for name, _ in seen.headers) == sorted(
        ["accept", "accept-language", "if-none-match", "range", "idempotency-key", "user-agent", "host"]
        + ["authorization", "x-request-id", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"]
        + ["x-forwarded-prefix", "traceparent"]
    )
    assert seen.get("authorization") == "Bearer planted"
    assert seen.get("x-request-id") == "abcdef-123"
    assert seen.get("x-forwarded-for") == "127.0.0.1"


@pytest.mark.parametrize(
    "names", ["Authorization", "X-Forwarded-Host", "close, authorization", "Host, cookie"]
)
def test_connection_cannot_strip_ours(stack: Stack, sid: str, names: str) -> None:
    """`Connection: Authorization` makes us drop nothing that we add."""
    ask(stack, sid, "GET", "/api", f"Connection: {names}")
    (seen,) = stack.upstream.requests
    assert seen.get("authorization") == "Bearer planted"
    assert seen.get("x-forwarded-host") == f"localhost:{stack.port}"


def test_connection_strips_theirs(stack: Stack, sid: str) -> None:
    """A header that Connection names is for this hop only, except the length of the body."""
    lines = ("Connection: accept, content-length", "Accept: text/csv", "Content-Length: 2")
    ask(stack, sid, "POST", "/api", *lines, body=b"ab")
    (seen,) = stack.upstream.requests
    assert (seen.all("accept"), seen.body) == ([], b"ab")


def test_routes(stack: Stack, sid: str) -> None:
    """The longest path wins, at segment boundaries only; a base path is put in front."""
    assert ask(stack, sid, "GET", "/api/files/1").text == "/api/files/1"
    assert ask(stack, sid, "GET", "/api/filesystem").text == "/base/api/filesystem"
    assert ask(stack, sid, "GET", "/apis").code == "route_not_found"
    assert ask(stack, sid, "GET", "/weather/%7Ea?%41=%2f").text == "/weather/~a?%41=%2f"


def test_routes_without_a_token(stack: Stack, sid: str) -> None:
    """`anonymous` needs no session, `token = "none"` alone does; neither sends a token."""
    assert ask(stack, "A" * 43, "GET", "/public").status == 200
    assert ask(stack, sid, "GET", "/members").status == 200
    assert ask(stack, "A" * 43, "GET", "/members").code == "session_expired"
    assert [seen.all("authorization") for seen in stack.upstream.requests] == [[], []]
    assert [seen.all("cookie") for seen in stack.upstream.requests] == [[], []]


def test_fetch_metadata(stack: Stack, sid: str) -> None:
    """Where the route says so, the browser's word replaces our header, for GET and HEAD only."""
    browser = stack.browser()
    browser.cookies["bff"] = sid
    same = {"Sec-Fetch-Site": "same-origin"}
    assert browser.get("/api/files", same).status == 200
    assert browser.get("/api/files", {"Sec-Fetch-Site": "none"}).code == "csrf_required"
    assert browser.get("/api", same).code == "csrf_required"


def test_preflight(stack: Stack, sid: str) -> None:
    """A preflight is refused like any other foreign request; only a route that lists OPTIONS passes ours."""
    preflight = ["Origin: https://evil.example", "Access-Control-Request-Method: GET"]
    answer = ask(stack, sid, "OPTIONS", "/api", *preflight)
    assert answer.code == "csrf_required"
    assert not [name for name, _ in answer.headers if name.startswith("access-control-")]
    assert ask(stack, sid, "OPTIONS", "/api").status == 200
    assert ask(stack, sid, "OPTIONS", "/weather").code == "method_not_allowed"


# -- response headers -------------------------------------------------------------------------------


def test_what_passes_back(stack: Stack, sid: str) -> None:
    """Of the upstream's headers those pass that are documented, and the route's own; never what acts with
    our origin's authority, though the route asks for it."""
    passing = {
        "content-type": "text/csv; charset=utf-8",
        "content-language": "de",
        "content-disposition": "attachment",
        "cache-control": "private, max-age=60",
        "etag": '"x"',
        "last-modified": "Wed, 01 Jan 2025 00:00:00 GMT",
        "vary": "accept",
        "retry-after": "7",
        "location": "https://elsewhere.example/x",
        "link": "</x>; rel=next",
        "date": "Wed, 01 Jan 2025 00:00:00 GMT",
        "www-authenticate": 'Bearer error="insufficient_scope"',
        "deprecation": "@1",
        "sunset": "Wed, 01 Jan 2031 00:00:00 GMT",
        "ratelimit-policy": "10",
        "x-ratelimit-left": "3",
        "x-total-count": "99",
        "x-request-id": "r-1",
        "x-extra": "1",
    }
    dropped = {
        "set-cookie": "__Host-bff=evil",
        "server": "nginx",
        "service-worker-allowed": "/",
        "clear-site-data": '"cookies"',
        "refresh": "0; url=https://evil.example",
        "access-control-allow-origin": "*",
        "access-control-allow-credentials": "true",
        "x-powered-by": "PHP",
        "x-frame-options": "ALLOWALL",
        "strict-transport-security": "max-age=0",
        "keep-alive": "timeout=5",
        "proxy-authenticate": "Basic",
        "trailer": "x",
        "alt-svc": "h3",
        "content-security-policy": "default-src *",
        "cross-origin-opener-policy": "unsafe-none",
        "x-content-type-options": "",
    }
    lines = [f"{name}: {value}".encode() for name, value in (passing | dropped).items()]
    stack.upstream.answers(ok(b"x", *lines))
    answer = ask(stack, sid)
    got = dict(answer.headers)
    assert len(got) == len(answer.headers), "nothing twice"
    assert passing.items() <= got.items()
    assert got.keys() - passing.keys() == {
        "content-length",
        "content-security-policy",
        "cross-origin-opener-policy",
        "cross-origin-resource-policy",
        "x-content-type-options",
    }
    assert got["content-security-policy"].startswith("default-src 'none'")
    assert (got["cross-origin-opener-policy"], got["x-content-type-options"]) == ("same-origin", "nosniff")


def test_nothing_is_stored_by_default(stack: Stack, sid: str) -> None:
    """Where the upstream does not say, a user's data may not be stored."""
    assert ask(stack, sid).get("cache-control") == "no-store"


@pytest.mark.parametrize("status", [200, 201, 301, 304, 400, 401, 403, 404, 418, 429, 500, 503, 599])
def test_status_passes(stack: Stack, sid: str, status: int) -> None:
    """An upstream's own status passes as it is, errors and redirects too."""
    data = b"HTTP/1.1 %d Whatever\r\ncontent-length: %d\r\n\r\n" % (status, 0 if status == 304 else 3)
    stack.upstream.answers(data + (b"" if status == 304 else b"own"))
    answer = ask(stack, sid)
    assert (answer.status, answer.body) == (status, b"" if status == 304 else b"own")
    assert answer.whole


@pytest.mark.parametrize("status", [b"600 Odd", b"999 Odd"])
def test_status_that_is_none(stack: Stack, sid: str, status: bytes) -> None:
    """A status that HTTP does not have is a broken upstream, not a fault of ours."""
    stack.upstream.answers(ok(b"x", status=status))
    assert ask(stack, sid).code == "upstream_unreachable"


@pytest.mark.parametrize(
    "field",
    [
        b"x-extra: a\x01b",
        b"x-extra: a\x7fb",
        b"x-extra: caf\xe9",
        b"x-extra: \xff",
        b"etag: \t x",
        b"location: \x0b",
    ],
)
def test_odd_header_values(stack: Stack, sid: str, field: bytes) -> None:
    """A header value that HTTP does not allow ends in 502 or passes, and is never a 500."""
    stack.upstream.answers(ok(b"x", field))
    assert ask(stack, sid).status in (200, 502)


# -- framing ----------------------------------------------------------------------------------------


def test_head(stack: Stack, sid: str) -> None:
    """HEAD goes upstream as HEAD; its length passes, and no body is waited for."""
    stack.upstream.answers(b"HTTP/1.1 200 OK\r\ncontent-length: 1234\r\n\r\n")
    with line(stack.port) as connection:
        connection.send(head(stack, sid, "HEAD"))
        assert connection.answer(head_only=True).get("content-length") == "1234"
        stack.upstream.answers(ok(b"next"))
        assert connection.send(head(stack, sid)).answer().body == b"next"
    assert [seen.method for seen in stack.upstream.requests] == ["HEAD", "GET"]


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 304 Not Modified\r\netag: x\r\n\r\n",
        b"HTTP/1.1 304 Not Modified\r\ncontent-length: 1234\r\n\r\n",
    ],
)
def test_answers_without_a_body(stack: Stack, sid: str, data: bytes) -> None:
    """204 and 304 have no body, whatever their headers say, and the connection goes on."""
    stack.upstream.answers(data)
    with line(stack.port) as connection:
        answer = connection.send(head(stack, sid)).answer()
        assert answer.status in (204, 304)
        assert answer.get("transfer-encoding") == ""
        stack.upstream.answers(ok(b"next"))
        assert connection.send(head(stack, sid)).answer().body == b"next"


def test_chunks_down(stack: Stack, sid: str) -> None:
    """A chunked answer comes through as soon as its pieces are there, without its trailers."""
    gate = threading.Event()

    def script(wire: Wire, request: Request) -> None:
        wire.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n")
        gate.wait(5)
        wire.send(b"6\r\nsecond\r\n0\r\nx-extra: late\r\n\r\n")

    stack.upstream.script = script
    with line(stack.port) as connection:
        connection.send(head(stack, sid))
        status, headers = connection._head()
        assert (status, connection._file.readline(), connection._file.read(7)) == (
            200,
            b"5\r\n",
            b"first\r\n",
        )
        gate.set()
        answer = Answer(status, headers)
        connection._body(answer)
    assert (answer.body, answer.trailers, answer.whole) == (b"second", b"", True)
    assert "x-extra" not in dict(headers)


def test_body_that_ends_with_the_connection(stack: Stack, sid: str) -> None:
    """An unframed body comes through framed."""
    stack.upstream.answers(b"HTTP/1.0 200 OK\r\n\r\nto the end", close=True)
    answer = ask(stack, sid)
    assert (answer.body, answer.whole) == (b"to the end", True)


def test_body_up(stack: Stack, sid: str) -> None:
    """A body with a length arrives whole and with that length."""
    body = bytes(range(256)) * 4000
    answer = ask(stack, sid, "POST", "/api", f"Content-Length: {len(body)}", "Content-Type: x/y", body=body)
    (seen,) = stack.upstream.requests
    assert (answer.body, seen.body) == (body, body)
    assert (seen.get("content-length"), seen.get("content-type"), seen.chunked) == (
        str(len(body)),
        "x/y",
        False,
    )


def chunked(*parts: bytes, trailer: bytes = b"") -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(p), p) for p in parts) + b"0\r\n" + trailer + b"\r\n"


def test_chunks_up(stack: Stack, sid: str) -> None:
    """A chunked body arrives chunked, without its trailers."""
    trailer = b"Authorization: Bearer stolen\r\nX-CSRF: 1\r\n"
    body = chunked(b"one", b"two" * 1000, trailer=trailer)
    answer = ask(stack, sid, "POST", "/api", "Transfer-Encoding: chunked", body=body)
    (seen,) = stack.upstream.requests
    assert answer.body == seen.body == b"one" + b"two" * 1000
    assert seen.chunked
    assert seen.all("content-length") == []
    assert seen.all("authorization") == ["Bearer planted"]


def test_trailers_prove_nothing(stack: Stack, sid: str) -> None:
    """What is missing in the head cannot be brought in by a trailer."""
    request = f"POST /api HTTP/1.1\r\nHost: localhost:{stack.port}\r\nCookie: bff={sid}\r\n"
    data = request.encode() + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(b"x", trailer=b"X-CSRF: 1\r\n")
    with line(stack.port) as connection:
        assert connection.send(data).answer().code == "csrf_required"


def test_megabytes_both_ways(stack: Stack, sid: str) -> None:
    """A few megabytes up and down at the same time arrive unharmed."""
    size = 4_000_000

    def script(wire: Wire, request: Request) -> None:
        wire.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size)
        left = size
        while left:
            piece = wire.file.read(min(left, 65_536))
            wire.send(piece)
            left -= len(piece)

    stack.upstream.script = script
    body = hashlib.shake_128(b"seed").digest(size)
    with line(stack.port) as connection:
        sender = threading.Thread(
            target=connection.send, args=(head(stack, sid, "POST", "/api", f"Content-Length: {size}") + body,)
        )
        sender.start()
        answer = connection.answer()
        sender.join(10)
    assert answer.whole
    assert answer.body == body


def test_continue(stack: Stack, sid: str) -> None:
    """`Expect: 100-continue` is answered by us when the request may come in, and goes no further."""
    with line(stack.port) as connection:
        connection.send(head(stack, sid, "POST", "/api", "Content-Length: 5", "Expect: 100-continue"))
        assert connection._head()[0] == 100
        assert connection.send(b"hello").answer().body == b"hello"
    assert stack.upstream.requests[0].all("expect") == []


@pytest.mark.parametrize(
    ("version", "expected"), [("1.0", "100-continue"), ("1.1", "a-miracle"), ("1.1", "")]
)
def test_no_continue_where_none_is_expected(stack: Stack, sid: str, version: str, expected: str) -> None:
    """HTTP/1.0 has no interim answers, and no other expectation brings one (RFC 9110 §10.1.1)."""
    lines = ("Content-Length: 2", f"Expect: {expected}", "Connection: close")
    request = head(stack, sid, "POST", "/api", *lines).replace(b"HTTP/1.1", f"HTTP/{version}".encode())
    with line(stack.port) as connection:
        connection.send(request + b"ok")
        answer = connection.answer()
    assert (answer.status, answer.interim, answer.body) == (200, [], b"ok")


@pytest.mark.parametrize(("target", "status"), [("/api", 401), ("/nothing", 404)])
def test_no_continue_for_the_refused(stack: Stack, target: str, status: int) -> None:
    """A request that is refused is not asked for its body."""
    with line(stack.port) as connection:
        lines = ("Content-Length: 5", "Expect: 100-continue")
        answer = connection.send(head(stack, "A" * 43, "POST", target, *lines)).answer()
    assert (answer.status, answer.interim) == (status, [])


# -- limits -----------------------------------------------------------------------------------------


def test_declared_body_too_large(stack: Stack, sid: str) -> None:
    """A body that is declared too large is refused before the upstream hears of it, and before it is sent."""
    answer = ask(stack, sid, "POST", "/api", "Content-Length: 5000001")
    assert (answer.status, answer.code) == (413, "body_too_large")
    assert stack.upstream.requests == []
    assert ask(stack, sid, "POST", "/api", "Content-Length: 5000000", body=b"x" * 5_000_000).status == 200


def test_chunked_body_too_large(stack: Stack, sid: str) -> None:
    """A chunked body that grows past the limit is cut off, and the upstream sees no whole request."""
    whole: list[bytes] = []
    stack.upstream.script = lambda wire, request: whole.append(wire.body(request))
    with line(stack.port) as connection:
        connection.send(head(stack, sid, "POST", "/api", "Transfer-Encoding: chunked"))
        piece = b"10000\r\n" + b"x" * 65_536 + b"\r\n"
        sender = threading.Thread(target=lambda: [connection.send(piece) for _ in range(100)])
        sender.start()
        answer = connection.answer()
        sender.join(10)
    assert (answer.status, answer.code) == (413, "body_too_large")
    assert stack.upstream.lost(stack.upstream.requests[0])
    assert whole == []


@pytest.mark.parametrize("target", ["/api", "/nothing"])
@pytest.mark.parametrize("framing", ["Content-Length: 900000000", "Transfer-Encoding: chunked"])
def test_body_after_the_answer(stack: Stack, sid: str, target: str, framing: str) -> None:
    """Whoever goes on sending after the answer hears it, and is cut off before long."""
    with line(stack.port) as connection:
        connection.send(head(stack, sid, "POST", target, framing))
        piece = b"x" * 65_536 if "Length" in framing else b"10000\r\n" + b"x" * 65_536 + b"\r\n"
        sent = 0
        with contextlib.suppress(OSError):
            while sent < 60_000_000:
                connection.socket.sendall(piece)
                sent += 65_536
        assert sent < 30_000_000
        assert connection.answer().status == (413 if target == "/api" else 404)


# -- trouble upstream -------------------------------------------------------------------------------


def test_upstream_down(stack: Stack, sid: str) -> None:
    """Nobody there: 502, with a body or without."""
    assert ask(stack, sid, "GET", "/down").code == "upstream_unreachable"
    answer = ask(stack, sid, "POST", "/down", "Content-Length: 5", body=b"hello")
    assert (answer.status, answer.code) == (502, "upstream_unreachable")


@pytest.mark.parametrize(
    "data",
    [
        b"garbage\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * 1_000_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nxy",
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\nx",
        b"",
    ],
    ids=[
        "garbage",
        "huge head",
        "two lengths",
        "switches protocols",
        "coded chunks",
        "coded, without chunks",
        "nothing",
    ],
)
def test_garbage(stack: Stack, sid: str, data: bytes) -> None:
    """What is no answer of HTTP is a 502."""
    stack.upstream.answers(data, close=True)
    answer = ask(stack, sid)
    assert (answer.status, answer.code) == (502, "upstream_unreachable")


def test_slow_upstream(hasty: Stack) -> None:
    """No answer in time: 504; a route with a time of its own waits longer."""

    def script(wire: Wire, request: Request) -> None:
        time.sleep(2.4)
        wire.send(ok(b"late"))

    hasty.upstream.script = script
    sid = hasty.plant()
    assert ask(hasty, sid, "GET", "/slow").body == b"late"
    answer = ask(hasty, sid)
    assert (answer.status, answer.code) == (504, "upstream_timeout")


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\nzz\r\n",
    ],
    ids=["length", "chunked", "bad chunk"],
)
def test_answer_that_breaks_off(stack: Stack, sid: str, data: bytes, reset: bool) -> None:
    """An answer that breaks off reaches the browser broken: a cut answer must not look whole."""

    def script(wire: Wire, _request: Request) -> object:
        wire.send(data)
        time.sleep(0.05)
        if reset:
            wire.reset()
        return False

    stack.upstream.script = script
    try:
        answer = ask(stack, sid)
    except Closed:
        return
    assert not answer.whole or answer.status == 502


def test_body_that_stops(hasty: Stack) -> None:
    """An answer in which nothing moves any more is cut off, not held open for ever."""

    def script(wire: Wire, _request: Request) -> None:
        wire.send(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nhalf")
        time.sleep(9)

    hasty.upstream.script = script
    started = Stopwatch()
    answer = ask(hasty, hasty.plant())
    assert (answer.status, answer.whole) == (200, False)
    assert started.own < 6


def test_early_answer(stack: Stack, sid: str) -> None:
    """An upstream that refuses a body before it has come is heard at once."""
    heard = threading.Event()

    def script(wire: Wire, _request: Request) -> object:
        wire.send(ok(b"no", b"connection: close", status=b"403 Forbidden"))
        heard.wait(20)
        return False

    stack.upstream.script = script
    with line(stack.port) as connection:
        connection.send(head(stack, sid, "POST", "/api", "Content-Length: 1000000") + b"x" * 1000)
        answer = connection.answer()
        heard.set()
    assert (answer.status, answer.body) == (403, b"no")


def test_stale_connection(stack: Stack, sid: str) -> None:
    """A kept connection that the upstream has closed is replaced without the browser noticing."""
    assert ask(stack, sid).status == 200
    for _ in range(3):
        stack.upstream.hang_up()
        assert ask(stack, sid).status == 200


def test_two_answers_to_one_request(stack: Stack, sid: str) -> None:
    """A second answer that nobody asked for reaches nobody: neither its headers nor its body."""
    second = ok(b"second", b"x-extra: smuggled", status=b"201 Created")
    stack.upstream.script = lambda wire, request: wire.send(ok(request.target.encode()) + second)
    for number in range(5):
        answer = ask(stack, sid, "GET", f"/api/{number}")
        assert (answer.status, answer.text, answer.get("x-extra")) == (200, f"/base/api/{number}", "")


def test_browser_that_leaves(stack: Stack, sid: str) -> None:
    """When the browser hangs up, its upstream call ends at once, while waiting and while streaming."""

    def waits(wire: Wire, request: Request) -> None:
        wire.socket.settimeout(3)
        assert wire.file.read(1) == b""
        raise OSError

    def streams(wire: Wire, request: Request) -> None:
        wire.send(b"HTTP/1.1 200 OK\r\ncontent-length: 900000000\r\n\r\n")
        while True:
            wire.send(b"x" * 65_536)

    scripts: list[Callable[[Wire, Request], None]] = [waits, streams]
    for script in scripts:
        stack.upstream.reset()
        stack.upstream.script = script
        with line(stack.port) as connection:
            connection.send(head(stack, sid, "GET", "/slow"))
            assert until(lambda: stack.upstream.requests)
            if script is streams:
                connection._file.read(100_000)
        assert stack.upstream.lost(stack.upstream.requests[0], within=2), script.__name__


def test_browser_that_leaves_while_sending(stack: Stack, sid: str) -> None:
    """Half a body and a hang-up: the upstream never sees a whole request."""
    with line(stack.port) as connection:
        connection.send(head(stack, sid, "POST", "/api", "Content-Length: 1000") + b"half")
        assert until(lambda: stack.upstream.requests)
    assert stack.upstream.lost(stack.upstream.requests[0])
    assert len(stack.upstream.requests) == 1
    assert len(stack.upstream.requests[0].body) < 1000


def test_soak(stack: Stack, sid: str) -> None:
    """Eight browsers on kept connections, some answers broken off: nobody gets another's answer."""
    mixed: list[str] = []

    def script(wire: Wire, request: Request) -> object:
        body = wire.body(request)
        if request.get("content-type") == "x/break":
            wire.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % (len(body) + 5) + body)
            return False
        data = ok(body)
        if request.get("content-type") == "x/double":
            data += ok(b"x" * len(body))
        wire.send(data)
        return True

    stack.upstream.script = script

    def browse(name: int) -> None:
        connection = Line(stack.port)
        for number in range(60):
            body = f"{name}-{number}-".encode() * (1 + (name * 7 + number * 13) % 900)
            kind = {5: "x/break", 11: "x/double"}.get(number % 17, "x/y")
            lines = (f"Content-Length: {len(body)}", f"Content-Type: {kind}")
            try:
                answer = connection.send(head(stack, sid, "PUT", "/api", *lines) + body).answer()
            except Closed:
                answer = Answer(0, [], whole=False)
            if kind == "x/break":
                if answer.whole and answer.status == 200:
                    mixed.append(f"{name}-{number} looked whole")
                connection.close()
                connection = Line(stack.port)
            elif answer.body != body:
                mixed.append(f"{name}-{number} got {answer.status} {answer.body[:20]!r}")
        connection.close()

    threads = [threading.Thread(target=browse, args=(name,)) for name in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(90)
    assert mixed == []
    assert len(stack.upstream.requests) == 480


# -- where answers point to ---------------------------------------------------------------------------


def test_redirects_of_an_upstream(stack: Stack, sid: str) -> None:
    """To itself they are mapped, base path and all; to elsewhere they are 502 and not shown."""
    stack.upstream.answers(
        ok(b"", b"location: " + stack.upstream.url.encode() + b"/base/api/7", status=b"303 X")
    )
    answer = ask(stack, sid, "GET", "/api")
    assert (answer.status, answer.get("location")) == (303, "/api/7")
    stack.upstream.answers(ok(b"", b"location: https://evil.example/x", status=b"302 X"))
    answer = ask(stack, sid, "GET", "/api")
    assert (answer.status, answer.code) == (502, "upstream_unreachable")
    assert "evil" not in str(answer)


# -- tokens -----------------------------------------------------------------------------------------


def test_refresh_beside_the_request(stack: Stack) -> None:
    """Inside the leeway nobody waits: the old token is used, and the new one by the next request."""
    browser = stack.sign_in(stack.browser())
    first = browser.api("/weather")
    old = stack.upstream.requests[-1].get("authorization")
    stack.clock.ahead += 250

    go_on = threading.Event()

    def slowly(seen: Seen) -> Reply:
        go_on.wait(10)
        return stack.provider._token(seen)

    stack.provider.replies["token"] = slowly
    started = Stopwatch()
    second = browser.api("/weather")
    assert started.own < 3
    go_on.set()
    assert (first.status, second.status) == (200, 200)
    assert stack.upstream.requests[-1].get("authorization") == old
    assert until(lambda: stack.provider.count("token") == 2)
    assert until(
        lambda: (
            browser.api("/weather").status == 200 and stack.upstream.requests[-1].get("authorization") != old
        )
    )


def test_dead_token_is_renewed_first(stack: Stack) -> None:
    """With a dead token the request waits for the refresh; many at once cause one redeem."""
    browser = stack.sign_in(stack.browser())
    stack.provider.seen.clear()
    stack.clock.ahead += 301
    threads = [threading.Thread(target=browser.api, args=("/weather",)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert [answer.status for answer in browser.transcript[-8:]] == [200] * 8
    assert stack.provider.count("token") == 1
    assert len({seen.get("authorization") for seen in stack.upstream.requests}) == 1


@pytest.mark.parametrize(
    ("reply", "status", "code"),
    [
        (Reply(400, {"error": "invalid_grant"}), 401, "session_expired"),
        (Reply(401, {"error": "invalid_client"}), 503, "provider_unavailable"),
        (Reply(500), 503, "provider_unavailable"),
        (Reply(drop=True), 503, "provider_unavailable"),
    ],
)
def test_refresh_that_fails(stack: Stack, reply: Reply, status: int, code: str) -> None:
    """Only a parsed `invalid_grant` signs out; anything else is 503 with a time, and no cookie is touched."""
    browser = stack.sign_in(stack.browser())
    stack.clock.ahead += 301
    stack.provider.replies["token"] = reply
    answer = browser.api("/weather")
    assert (answer.status, answer.code) == (status, code)
    assert answer.all("set-cookie") == []
    if status == 503:
        assert int(answer.get("retry-after")) > 0
        assert browser.api("/bff/user").status == 200, "still signed in"
    else:
        assert answer.json()["login_url"] == "/bff/login"
    assert stack.upstream.requests == []


def test_token_without_an_end(stack: Stack) -> None:
    """A token of unknown lifetime counts as good."""
    browser = stack.browser()
    browser.cookies["bff"] = stack.plant(
        TokenSet(access_token="endless", refresh_token="r", obtained_at=stack.clock() - 9e6)
    )
    assert browser.get("/weather", CSRF).status == 200
    assert stack.upstream.requests[-1].get("authorization") == "Bearer endless"


def test_websocket(stack: Stack, sid: str) -> None:
    """A WebSocket handshake on a route that is none gets no upgrade, and breaks nothing."""
    lines = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: x")
    answer = ask(stack, sid, "GET", "/api", *lines)
    assert answer.status in (200, 400, 403, 426)
    assert [seen.all("upgrade") for seen in stack.upstream.requests] in ([], [[]])
