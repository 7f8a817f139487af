"""nginx as a plain reverse proxy in front of the BFF."""

from __future__ import annotations

import json
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from benchmarks.proxy.programs import free_port
from tests.proxies.front import reverse_proxy
from tests.support.browser import CSRF, Browser
from tests.support.stack import Stack, running, store
from tests.support.stopwatch import Stopwatch
from tests.support.upstream import Request, Wire, scripted_upstream
from tests.support.wire import Line, exchange, line

pytestmark = pytest.mark.e2e

TOML = """
[[routes]]
path = "/api"
upstream = "UPSTREAM"
methods = ["GET", "POST"]
"""


@dataclass
class Site:
    """nginx in front of a BFF."""

    stack: Stack
    port: int
    tls_port: int
    authority: Path

    def browser(self) -> Browser:
        return Browser(self.port, self.stack.origin)


@pytest.fixture(scope="module")
def shared() -> Iterator[Site]:
    port, tls_port = free_port(), free_port()
    with (
        store() as own_store,
        running(
            own_store, toml=TOML, public_url=f"http://localhost:{port}", trusted_proxies="127.0.0.1/32"
        ) as stack,
        reverse_proxy(port, stack.port, tls_port) as authority,
    ):
        yield Site(stack, port, tls_port, authority)


@pytest.fixture
def site(shared: Site) -> Site:
    shared.stack.upstream.reset()
    return shared


def test_sign_in_and_a_proxied_request(site: Site) -> None:
    """The whole way through both: sign-in, the user, a route, and no token on the way back."""
    browser = site.stack.sign_in(site.browser())
    assert browser.api("/bff/user").status == 200
    assert browser.api("/api/a%20b?c=%2F").body == b"/api/a%20b?c=%2F"
    (asked,) = site.stack.upstream.requests
    token = asked.get("authorization").removeprefix("Bearer ")
    assert len(token) > 8
    assert all(token not in repr(answer) for answer in browser.transcript)
    assert browser.request("POST", "/api", CSRF, b"x" * 300_000).body == b"x" * 300_000


def test_whom_the_bff_believes(site: Site) -> None:
    """The address that nginx sees counts, and what a client claims of itself does not."""
    claimed = {
        "X-Forwarded-For": "192.0.2.1",
        "X-Forwarded-Host": "evil.example",
        "Forwarded": "for=192.0.2.1",
    }
    browser = site.stack.sign_in(site.browser())
    assert browser.get("/api", CSRF | claimed).status == 200
    (asked,) = site.stack.upstream.requests
    assert asked.get("x-forwarded-for") == "127.0.0.1"
    assert asked.get("x-forwarded-host") == f"localhost:{site.port}"
    assert asked.all("forwarded") == []
    assert browser.get("/api", CSRF | {"Host": "evil.example"}).status == 400


@pytest.mark.parametrize("target", ["/api/../x", "//api", "/api/%2e%2e/x", "/api%2fx", "/api/%00"])
def test_paths_reach_the_bff_as_they_came(site: Site, target: str) -> None:
    """nginx mends no path: the BFF refuses it, or would not know what it judged."""
    answer = site.browser().api(target)
    assert answer.status == 400
    assert site.stack.upstream.requests == []


def received(connection: Line, wanted: bytes) -> bytes:
    """What comes, until `wanted` is in it."""
    got = b""
    while wanted not in got:
        piece = connection.socket.recv(4096)
        assert piece, got
        got += piece
    return got


@pytest.mark.parametrize("framing", [b"transfer-encoding: chunked", b"content-length: 27"])
def test_answers_come_at_once(site: Site, framing: bytes) -> None:
    """Nothing is held back on the way: each piece of an answer is there before the next is sent."""
    chunked = framing.endswith(b"chunked")
    seen = threading.Event()

    def stream(wire: Wire, _request: Request) -> bool:
        wire.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n" + framing + b"\r\n\r\n")
        for number in range(3):
            piece = b"data: %d\n\n" % number
            wire.send(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
            if not seen.wait(5):
                return False
            seen.clear()
        wire.send(b"0\r\n\r\n" if chunked else b"")
        return True

    site.stack.upstream.script = stream
    cookie = f"bff={site.stack.plant()}"
    head = f"GET /api HTTP/1.1\r\nHost: localhost:{site.port}\r\nX-CSRF: 1\r\nCookie: {cookie}\r\n\r\n"
    with line(site.port) as connection:
        connection.socket.settimeout(3)
        connection.send(head.encode())
        for number in range(3):
            received(connection, b"data: %d\n\n" % number)
            seen.set()


def test_refusals_are_the_bffs(site: Site) -> None:
    """Problem documents and error pages pass as they are."""
    assert site.browser().api("/api").code == "not_signed_in"
    assert (
        site.browser().get("/bff/callback?state=x&code=y").get("content-type") == "text/html; charset=utf-8"
    )
    large = {"Content-Length": "10000000", "Expect": "100-continue"}
    assert site.browser().request("POST", "/api", large).status == 403


def test_over_tls(site: Site) -> None:
    """The same over TLS, with a certificate that is verified."""
    context = ssl.create_default_context(cafile=site.authority)
    url = f"https://localhost:{site.tls_port}/api"
    asked = urllib.request.Request(url, headers=CSRF | {"Host": f"localhost:{site.port}"})
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(asked, context=context, timeout=5)
    with refused.value as answer:
        assert (answer.status, json.load(answer)["code"]) == (401, "not_signed_in")


def test_websockets_are_upgraded() -> None:
    """The upgrade reaches what is behind, and then bytes pass both ways at once; other requests keep their
    connection."""

    def talk(wire: Wire, request: Request) -> bool:
        if request.get("upgrade") != "websocket":
            wire.send(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
            return True
        assert request.get("connection").lower() == "upgrade"
        wire.send(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n")
        for _ in range(3):
            wire.send(wire.file.read(4).upper())
        return False

    port = free_port()
    with scripted_upstream() as behind:
        behind.script = talk
        with reverse_proxy(port, behind.port, free_port()), line(port) as connection:
            assert exchange(port, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").status == 200
            assert behind.requests[-1].all("upgrade") == []
            connection.send(b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
            assert received(connection, b"\r\n\r\n").startswith(b"HTTP/1.1 101 ")
            for word in (b"ping", b"pong", b"pang"):
                connection.send(word)
                started = Stopwatch()
                assert connection.socket.recv(4) == word.upper()
                assert started.own < 1
