"""WebSockets over the running server: who may open one, what passes, and when it ends."""

from __future__ import annotations

import contextlib
import random
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bff.errors import BadRequest, UpstreamUnreachable
from bff.websocket import accept, answer_headers, check, is_handshake
from tests.fakes import head
from tests.support.authority import Authority
from tests.support.browser import CSRF
from tests.support.stack import Stack, Store, running, store
from tests.support.stopwatch import Stopwatch
from tests.support.upstream import Request, Wire, ok
from tests.support.websocket import (
    BINARY,
    CLOSE,
    PING,
    TEXT,
    WebSocket,
    agree,
    echo_frames,
    frame,
    read_frame,
    websocket,
)
from tests.support.wire import at_rest, line, until
from tests.test_streams import ABSOLUTE, ENDINGS, IDLE

TOML = """
[[routes]]
path = "/socket"
upstream = "UPSTREAM"
stream = "websocket"

[[routes]]
path = "/plain"
upstream = "UPSTREAM"
csrf = "fetch-metadata"

[[routes]]
path = "/events"
upstream = "UPSTREAM"
stream = "sse"
"""


@pytest.fixture(scope="module")
def module_store() -> Iterator[Store]:
    with store() as found:
        yield found


@pytest.fixture(scope="module")
def shared(module_store: Store) -> Iterator[Stack]:
    with running(
        module_store,
        toml=TOML,
        streams_per_session="3",
        session_idle_seconds=str(IDLE),
        session_max_seconds=str(ABSOLUTE),
    ) as stack:
        yield stack


@pytest.fixture
def stack(shared: Stack) -> Iterator[Stack]:
    shared.upstream.reset()
    shared.upstream.script = echo_frames
    yield shared
    shared.clock.ahead = 0
    shared.upstream.hang_up()
    assert until(lambda: shared.streams._taken == 0), "all places are free again"


@pytest.fixture
def sid(stack: Stack) -> str:
    """The cookie of a signed-in browser."""
    return stack.plant(lives=1e6)


def sent(stack: Stack, sid: str | None, **more: str | None) -> dict[str, str | None]:
    """The headers of a browser's handshake, beside those of the protocol."""
    honest = {"Host": f"localhost:{stack.port}", "Origin": stack.origin}
    return honest | {"Cookie": f"bff={sid}" if sid else None} | more


def refused(stack: Stack, headers: dict[str, str | None], target: str = "/socket") -> tuple[int, str]:
    """Status and code of a handshake that is no handshake to us."""
    with line(stack.port) as connection:
        honest = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
        fields = honest | {"Sec-WebSocket-Key": "A" * 22 + "=="} | headers
        lines = [f"GET {target} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items() if value)]
        answer = connection.send("\r\n".join(lines).encode() + b"\r\n\r\n").answer()
        return answer.status, answer.code if answer.status >= 400 else answer.text


# -- the handshake ----------------------------------------------------------------------------------


def test_what_passes(stack: Stack, sid: str) -> None:
    """The upstream sees our token and the browser's offers, no cookie and nobody's word about addresses; the
    browser sees what was agreed."""

    def choosy(wire: Wire, request: Request) -> object:
        agree(wire, request, b"sec-websocket-protocol: chat", b"set-cookie: x=1", b"server: secret")
        return echo_frames_of(wire)

    stack.upstream.script = choosy
    offers = {"Sec-WebSocket-Protocol": "chat, superchat", "Sec-WebSocket-Extensions": "permessage-deflate"}
    more = {"X-Forwarded-For": "6.6.6.6", "Authorization": "Bearer stolen", "X-Custom": "x"}
    with websocket(stack.port, "/socket/a?b=1", sent(stack, sid, **offers, **more)) as opened:
        assert opened.status == 101
        assert opened.header("sec-websocket-protocol") == ["chat"]
        assert opened.header("x-content-type-options") == ["nosniff"]
        for name in ("set-cookie", "server", "transfer-encoding", "content-length"):
            assert opened.header(name) == []
        opened.send(b"hello", TEXT)
        assert opened.receive() == (True, TEXT, b"hello")
    (seen,) = stack.upstream.requests
    assert (seen.target, seen.get("authorization")) == ("/socket/a?b=1", "Bearer planted")
    assert seen.get("sec-websocket-key") == opened.key
    assert seen.get("sec-websocket-protocol") == "chat, superchat"
    assert seen.get("sec-websocket-extensions") == "permessage-deflate"
    assert (seen.get("connection").lower(), seen.get("upgrade")) == ("upgrade", "websocket")
    assert seen.get("x-forwarded-for") == "127.0.0.1"
    for name in ("cookie", "origin", "x-custom"):
        assert seen.all(name) == []
    assert stack.upstream.lost(seen), "what the browser closes is closed"


def echo_frames_of(wire: Wire) -> object:
    """Sends every frame back, after the handshake."""
    while (found := read_frame(wire.file)) is not None:
        wire.send(frame(found[2], found[1], fin=found[0]))
    return False


ORIGINS: dict[str, tuple[dict[str, str | None], int]] = {
    "ours": ({}, 101),
    "ours, as a browser says": ({"Sec-Fetch-Site": "same-origin"}, 101),
    "none": ({"Origin": None}, 403),
    "none, with our header": ({"Origin": None, "X-CSRF": "1"}, 403),
    "none, with the browser's word": ({"Origin": None, "Sec-Fetch-Site": "same-origin"}, 403),
    "foreign": ({"Origin": "https://evil.example"}, 403),
    "foreign, with our header": ({"Origin": "https://evil.example", "X-CSRF": "1"}, 403),
    "null": ({"Origin": "null"}, 403),
    "another scheme": ({"Origin": "ws://localhost"}, 403),
    "another port": ({"Origin": "http://localhost:1"}, 403),
    "a sibling": ({"Sec-Fetch-Site": "same-site"}, 403),
}


@pytest.mark.parametrize("case", ORIGINS)
def test_origin(stack: Stack, sid: str, case: str) -> None:
    """A WebSocket needs our Origin, whatever else comes along (cross-site WebSocket hijacking)."""
    headers, status = ORIGINS[case]
    with websocket(stack.port, "/socket", sent(stack, sid) | headers) as opened:
        assert opened.status == status
    assert len(stack.upstream.requests) == (status == 101)


@pytest.mark.parametrize(
    ("headers", "refusal"),
    [
        ({"Cookie": None}, (401, "not_signed_in")),
        ({"Cookie": "bff=" + "x" * 43}, (401, "session_expired")),
        ({"Sec-WebSocket-Version": "8"}, (400, "bad_request")),
        ({"Sec-WebSocket-Version": None}, (400, "bad_request")),
        ({"Sec-WebSocket-Key": None}, (400, "bad_request")),
        ({"Sec-WebSocket-Key": "short"}, (400, "bad_request")),
        ({"Sec-WebSocket-Key": "A" * 22 + "==, x"}, (400, "bad_request")),
        ({"Sec-WebSocket-Key": "A" * 22 + "==", "sec-websocket-key": "B" * 22 + "=="}, (400, "bad_request")),
        ({"Content-Length": "5"}, (400, "bad_request")),
        ({"Transfer-Encoding": "chunked"}, (400, "bad_request")),
        ({"Host": "evil.example"}, (400, "bad_request")),
        ({"Service-Worker": "script"}, (403, "csrf_required")),
    ],
)
def test_refusals(stack: Stack, sid: str, headers: dict[str, str | None], refusal: tuple[int, str]) -> None:
    """What is no handshake of a signed-in browser is refused before the upstream hears of it."""
    assert refused(stack, sent(stack, sid) | headers) == refusal
    assert stack.upstream.requests == []


def test_the_version_that_would_do(stack: Stack, sid: str) -> None:
    """The answer to another version names ours (RFC 6455 §4.4)."""
    with websocket(stack.port, "/socket", sent(stack, sid, **{"Sec-WebSocket-Version": "14"})) as opened:
        assert (opened.status, opened.header("sec-websocket-version")) == (400, ["13"])


def test_other_answers_pass(stack: Stack, sid: str) -> None:
    """An upstream that does not agree says so to the browser, and the connection is closed."""
    stack.upstream.answers(ok(b"no", b"content-type: text/plain", status=b"403 Forbidden"))
    with websocket(stack.port, "/socket", sent(stack, sid), early=b"GET /plain HTTP/1.1\r\n\r\n") as opened:
        assert (opened.status, opened.header("content-type")) == (403, ["text/plain"])
        assert opened.header("connection") == ["close"]
        assert opened.line._file.read() == b"no"
    assert len(stack.upstream.requests) == 1, "what came after the handshake is no request"


AGREED = b"HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n"
TRICKS = {
    "no Accept": AGREED + b"\r\n",
    "a wrong Accept": AGREED + b"sec-websocket-accept: " + b"A" * 27 + b"=\r\n\r\n",
    "no Upgrade": b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
    "another protocol": b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n",
}


@pytest.mark.parametrize("trick", TRICKS)
def test_a_false_agreement(stack: Stack, sid: str, trick: str) -> None:
    """An upstream that switches without having read our handshake is in error: no tunnel is opened."""
    stack.upstream.answers(TRICKS[trick], close=True)
    assert refused(stack, sent(stack, sid)) == (502, "upstream_unreachable")


def test_no_tunnel_on_other_routes(stack: Stack, sid: str) -> None:
    """Elsewhere the wish for another protocol goes no further; an upstream that fulfils it is in error."""
    same = sent(stack, sid, **{"Sec-Fetch-Site": "same-origin"})
    stack.upstream.answers(ok(b"plain"))
    for target in ("/plain", "/events"):
        assert refused(stack, same, target)[0] == 200
    assert [seen.all("upgrade") for seen in stack.upstream.requests] == [[], []]
    stack.upstream.script = echo_frames_unasked
    for target in ("/plain", "/events"):
        assert refused(stack, same, target) == (502, "upstream_unreachable")


def echo_frames_unasked(wire: Wire, _request: Request) -> object:
    wire.send(AGREED + b"\r\n")
    return False


def test_other_requests_of_the_route(stack: Stack, sid: str) -> None:
    """A request that asks for no WebSocket is an ordinary one, as long-polling fallbacks need it."""
    stack.upstream.reset()
    browser = stack.browser()
    browser.cookies["bff"] = sid
    assert browser.api("/socket/poll").text == "/socket/poll"
    assert browser.get("/socket/poll", {"Origin": stack.origin}).status == 200
    assert browser.get("/socket/poll").code == "csrf_required"
    assert browser.request("POST", "/socket", CSRF).code == "method_not_allowed"
    assert refused(stack, sent(stack, sid, Upgrade="h2c", **CSRF)) == (200, "/socket")


def test_an_old_http_opens_none(stack: Stack, sid: str) -> None:
    """HTTP/1.0 knows no upgrade."""
    fields = ["GET /socket HTTP/1.0", "Connection: Upgrade", "Upgrade: websocket"]
    fields += ["Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: " + "A" * 22 + "=="]
    fields += [f"{name}: {value}" for name, value in sent(stack, sid).items()]
    with line(stack.port) as connection:
        answer = connection.send("\r\n".join(fields).encode() + b"\r\n\r\n").answer()
    assert (answer.status, answer.code) == (400, "bad_request")


# -- bytes ------------------------------------------------------------------------------------------


def test_frames_pass_as_they_are(stack: Stack, sid: str) -> None:
    """Fragments, pings between them, empty frames and one of 8 MB come back as they were sent."""
    big = random.Random(1).randbytes(8_000_000)
    with websocket(stack.port, "/socket", sent(stack, sid)) as opened:
        for payload, opcode, fin in [
            (b"begin", TEXT, False),
            (b"ping", PING, True),
            (b"", 0, False),
            (b"end", 0, True),
        ]:
            opened.send(payload, opcode, fin=fin)
            assert opened.receive() == (fin, opcode, payload)
        threading.Thread(target=opened.send, args=(big,), daemon=True).start()
        assert opened.receive() == (True, BINARY, big)
        opened.send(b"\x03\xe8", CLOSE)
        assert opened.receive() == (True, CLOSE, b"\x03\xe8")
        assert opened.line.closed()


def test_bytes_in_small_pieces(stack: Stack, sid: str) -> None:
    """However the bytes of a frame are cut, they arrive."""
    whole = frame(b"x" * 300, TEXT, mask=True)
    with websocket(stack.port, "/socket", sent(stack, sid)) as opened:
        for octet in range(len(whole)):
            opened.line.send(whole[octet : octet + 1])
        assert opened.receive() == (True, TEXT, b"x" * 300)


def test_early_bytes_wait(stack: Stack, sid: str) -> None:
    """What the browser sends before the 101 goes upstream after it, and what the upstream says with it is not
    lost."""
    heard_early = []

    def slow(wire: Wire, request: Request) -> object:
        wire.socket.settimeout(0.3)
        try:
            heard_early.append(wire.socket.recv(1))
        except TimeoutError:
            heard_early.append(b"")
        wire.socket.settimeout(None)
        agree(wire, request, then=frame(b"welcome", TEXT))
        return echo_frames_of(wire)

    stack.upstream.script = slow
    early = frame(b"early", TEXT, mask=True)
    with websocket(stack.port, "/socket", sent(stack, sid), early=early) as opened:
        assert opened.receive() == (True, TEXT, b"welcome")
        assert opened.receive() == (True, TEXT, b"early")
    assert heard_early == [b""]


def test_an_early_flood_is_not_stored(stack: Stack, sid: str) -> None:
    """Somebody who sends without end before the 101 is not read further."""
    stack.upstream.script = lambda wire, _: wire.file.read()
    with line(stack.port) as connection:
        fields = [f"{name}: {value}" for name, value in sent(stack, sid).items()]
        fields += ["Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"]
        fields += ["Sec-WebSocket-Key: " + "A" * 22 + "=="]
        connection.send("\r\n".join(["GET /socket HTTP/1.1", *fields, "", ""]).encode())
        connection.socket.settimeout(0.5)
        taken = 0
        with contextlib.suppress(OSError):
            while taken < 50_000_000:
                taken += connection.socket.send(b"x" * 65_536)
        assert taken < 20_000_000


@pytest.mark.parametrize("direction", ["down", "up"])
def test_back_pressure(stack: Stack, sid: str, direction: str) -> None:
    """What one end does not take is not read from the other; once it reads, all of it comes."""
    size, moved = 60_000_000, list[int]()

    def script(wire: Wire, request: Request) -> object:
        agree(wire, request)
        if direction == "down":
            pour(wire.socket)
        else:
            assert go_on.wait(60)
            drain(wire.socket)
        return False

    def pour(sender: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while sum(moved) < size:
                moved.append(sender.send(b"x" * 65_536))

    def drain(reader: socket.socket) -> None:
        while sum(arrived) < size and (piece := reader.recv(1_000_000)):
            arrived.append(len(piece))

    go_on, arrived = threading.Event(), list[int]()
    stack.upstream.script = script
    with websocket(stack.port, "/socket", sent(stack, sid)) as opened:
        assert opened.status == 101
        if direction == "up":
            threading.Thread(target=pour, args=(opened.line.socket,), daemon=True).start()
        assert until(lambda: sum(moved) > 100_000)
        assert at_rest(lambda: sum(moved)), "it is held back"
        assert sum(moved) < 25_000_000
        go_on.set()
        if direction == "down":
            drain(opened.line.socket)
        assert until(lambda: sum(arrived) >= size, 15), sum(arrived)


def test_the_browser_says_its_last(stack: Stack, sid: str) -> None:
    """A browser that ends its direction still hears what the upstream has to say."""

    def late(wire: Wire, request: Request) -> object:
        agree(wire, request)
        assert read_frame(wire.file) == (True, TEXT, b"bye")
        assert wire.file.read() == b"", "the end is passed on"
        time.sleep(0.2)
        wire.send(frame(b"last words", TEXT))
        return False

    stack.upstream.script = late
    with websocket(stack.port, "/socket", sent(stack, sid)) as opened:
        opened.send(b"bye", TEXT)
        opened.line.socket.shutdown(socket.SHUT_WR)
        assert opened.receive() == (True, TEXT, b"last words")
        assert opened.receive() is None


def test_the_upstream_says_its_last(stack: Stack, sid: str) -> None:
    """An upstream that ends its direction still hears the browser."""
    heard = []

    def early(wire: Wire, request: Request) -> object:
        agree(wire, request, then=frame(b"over", TEXT))
        wire.socket.shutdown(socket.SHUT_WR)
        heard.append(wire.file.read())
        return False

    stack.upstream.script = early
    with websocket(stack.port, "/socket", sent(stack, sid)) as opened:
        assert opened.receive() == (True, TEXT, b"over")
        assert opened.receive() is None
        opened.line.send(b"and out")
    assert until(lambda: heard == [b"and out"])


def test_a_crash_of_the_upstream(stack: Stack, sid: str) -> None:
    """A connection that breaks takes the other along."""

    def crash(wire: Wire, request: Request) -> object:
        agree(wire, request)
        wire.file.read(1)
        wire.reset()
        return False

    stack.upstream.script = crash
    with websocket(stack.port, "/socket", sent(stack, sid)) as opened:
        opened.line.send(b"x")
        assert opened.line.closed()


def test_half_open_is_bounded(stack: Stack, sid: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer that never closes its half does not keep the other for ever."""
    monkeypatch.setattr("bff.tunnel.LAST_WORDS_SECONDS", 0.3)

    def deaf(wire: Wire, request: Request) -> object:
        agree(wire, request)
        time.sleep(8)
        return False

    stack.upstream.script = deaf
    with websocket(stack.port, "/socket", sent(stack, sid)) as opened:
        opened.line.socket.shutdown(socket.SHUT_WR)
        assert opened.line.closed(5)


def test_over_tls(module_store: Store, tmp_path: Path) -> None:
    """The same with an upstream over TLS, which knows no half-closed connection: the end of one direction is
    the end of both."""
    authority = Authority(tmp_path)
    signed = authority.sign("api", "127.0.0.1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(signed.certificate, signed.key)
    ended, big = threading.Event(), b"x" * 3_000_000
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        raw, _ = listener.accept()
        with contextlib.suppress(OSError), context.wrap_socket(raw, server_side=True) as connection:
            wire = Wire(connection, 1)
            request = wire.head()
            assert request is not None
            echo_frames(wire, request)
            wire.close()
        ended.set()

    with listener:
        threading.Thread(target=serve, daemon=True).start()
        toml = TOML.replace('"UPSTREAM"', f'"https://127.0.0.1:{listener.getsockname()[1]}"', 1)
        toml = toml.replace(
            'stream = "websocket"', f'stream = "websocket"\nupstream_ca_file = "{authority.file}"'
        )
        with running(module_store, toml=toml) as stack:
            with websocket(stack.port, "/socket", sent(stack, stack.plant())) as opened:
                threading.Thread(target=opened.send, args=(big,), daemon=True).start()
                assert opened.receive() == (True, BINARY, big)
                opened.line.socket.shutdown(socket.SHUT_WR)
                assert opened.line.closed(5)
            assert ended.wait(10)


# -- the end ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ENDINGS)
def test_ends_with_the_session(stack: Stack, sid: str, ending: str) -> None:
    """Within two seconds of the session's end both connections are closed."""
    with websocket(stack.port, "/socket", sent(stack, sid)) as opened:
        opened.send(b"x", TEXT)
        assert opened.receive() == (True, TEXT, b"x")
        ENDINGS[ending][0](stack, sid)
        assert opened.line.closed(2)
    assert stack.upstream.lost(stack.upstream.requests[0])


def test_a_flood_does_not_hold_up_the_end(stack: Stack, sid: str) -> None:
    """A browser that takes nothing loses its connection like any other."""

    def flood(wire: Wire, request: Request) -> object:
        agree(wire, request)
        while True:
            wire.send(b"x" * 65_536)

    stack.upstream.script = flood
    with websocket(stack.port, "/socket", sent(stack, sid)) as opened:
        assert opened.status == 101
        time.sleep(0.5)
        ENDINGS["revoked"][0](stack, sid)
        assert stack.upstream.lost(stack.upstream.requests[0], 2)


def test_bounded(stack: Stack, sid: str) -> None:
    """WebSockets count as streams; a place that is left is free again."""
    with contextlib.ExitStack() as sockets:
        opened = [sockets.enter_context(websocket(stack.port, "/socket", sent(stack, sid))) for _ in range(4)]
        assert [each.status for each in opened] == [101, 101, 101, 429]

    def free() -> bool:
        time.sleep(0.05)
        with websocket(stack.port, "/socket", sent(stack, sid)) as again:
            return again.status == 101

    assert until(free)


def test_shutting_down(module_store: Store) -> None:
    """When the server ends, WebSockets end at once, and the session lives on."""
    with running(module_store, toml=TOML) as stack:
        stack.upstream.script = echo_frames
        opened = WebSocket(stack.port, "/socket", sent(stack, stack.plant()))
        assert opened.status == 101
        keys, start = stack.sessions(), Stopwatch()
    assert start.own < 1.5
    assert len(keys) == 1
    assert opened.line.closed()
    opened.close()


# -- pure -------------------------------------------------------------------------------------------


def test_the_example_of_the_standard() -> None:
    """The key and the answer of RFC 6455 §1.3."""
    assert accept(b"dGhlIHNhbXBsZSBub25jZQ==") == b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


UPGRADE, SOCKET = ("Connection", "keep-alive, Upgrade"), ("Upgrade", "WebSocket")


@pytest.mark.parametrize(
    ("headers", "method", "expected"),
    [
        ([UPGRADE, SOCKET], "GET", True),
        ([UPGRADE, ("Upgrade", "h2c, websocket")], "GET", True),
        ([UPGRADE, SOCKET], "POST", False),
        ([SOCKET], "GET", False),
        ([UPGRADE], "GET", False),
        ([("Connection", "upgraded"), SOCKET], "GET", False),
        ([UPGRADE, ("Upgrade", "websockets")], "GET", False),
    ],
)
def test_what_asks_for_a_websocket(headers: list[tuple[str, str]], method: str, expected: bool) -> None:
    """GET with both headers, each a list in any case (RFC 6455 §4.2.1)."""
    assert is_handshake(head(*headers, method=method)) is expected


def test_answers_to_another_key() -> None:
    """Only the one answer to this key opens the tunnel, and it must come once."""
    request = head(("Sec-WebSocket-Version", "13"), ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="))
    check(request)
    right = (b"sec-websocket-accept", b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
    assert right in answer_headers(request, [right])
    for wrong in ([], [right, right], [(right[0], right[1].lower())]):
        with pytest.raises(UpstreamUnreachable):
            answer_headers(request, wrong)
    with pytest.raises(BadRequest):
        check(head(("Sec-WebSocket-Version", "13")))
