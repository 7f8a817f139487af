"""The server where TLS ends in it: the same strictness on decrypted bytes, renewal, and noise."""

from __future__ import annotations

import shutil
import signal
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from benchmarks.proxy.programs import free_port
from tests.support.authority import Authority, Signed
from tests.support.process import ServeProcess, serve_process
from tests.support.provider import scripted_provider
from tests.support.stack import store
from tests.support.upstream import ScriptedUpstream, scripted_upstream
from tests.support.websocket import BINARY, CLOSE, echo_frames, frame, read_frame
from tests.support.wire import Line, exchange, line, until
from tests.test_serving import CHUNKS, MAX_HEAD, REFUSED, ROUTE, TARGETS, assert_bare

SOCKET = """
[[routes]]
path = "/socket"
upstream = "UPSTREAM"
stream = "websocket"
token = "none"
anonymous = true
"""


@dataclass
class Secured:
    """`bff serve` on TLS, and what is around it."""

    process: ServeProcess
    authority: Authority
    signed: Signed
    upstream: ScriptedUpstream
    beside: int
    """The port of the forward-auth listener."""

    @property
    def port(self) -> int:
        return self.process.port

    def host(self) -> bytes:
        return b"Host: localhost:%d\r\nX-CSRF: 1\r\n" % self.port

    def get(self, target: bytes, *lines: bytes) -> bytes:
        fields = b"".join(field + b"\r\n" for field in lines)
        return b"GET " + target + b" HTTP/1.1\r\n" + self.host() + fields + b"\r\n"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    folder = tmp_path_factory.mktemp("tls")
    authority = Authority(folder)
    signed = authority.sign("bff", "localhost")
    with store() as held, scripted_provider() as provider, scripted_upstream() as upstream:
        settings = {"tls_cert_file": str(signed.certificate), "tls_key_file": str(signed.key)}
        settings |= {"max_header_bytes": str(MAX_HEAD), "trusted_proxies": "127.0.0.1/32"}
        settings |= {"forward_auth_bind": f"127.0.0.1:{(beside := free_port())}"}
        with serve_process(
            provider, held.url, upstream, ROUTE + SOCKET, authorities=str(authority.file), **settings
        ) as process:
            yield Secured(process, authority, signed, upstream, beside)


def test_answers_over_tls(served: Secured) -> None:
    """Proxied answers come back whole, one after the other on one connection, large bodies too."""
    with line(served.port, authorities=served.authority.file) as connection:
        connection.send(b"".join(served.get(b"/public/%d" % number) for number in range(10)))
        assert [connection.answer().text for _ in range(10)] == [f"/public/{number}" for number in range(10)]
        body = b"x" * 3_000_000
        head = b"POST /public HTTP/1.1\r\n" + served.host() + b"Content-Length: %d\r\n\r\n" % len(body)
        assert connection.send(head + body).answer().body == body


@pytest.mark.parametrize(
    "name",
    [
        "no Host",
        "two Hosts",
        "a length and chunks",
        "two lengths",
        "a signed length",
        "chunks twice",
        "a folded header",
        "a space before the colon",
        "a bare CR in a value",
        "HTTP/2",
        "the preface of HTTP/2",
        "CONNECT",
    ],
)
def test_what_could_be_read_in_two_ways(served: Secured, name: str) -> None:
    """Smuggling is refused inside TLS as it is outside, and the connection closed."""
    served.upstream.reset()
    with line(served.port, authorities=served.authority.file) as connection:
        answer = connection.send(REFUSED[name].replace(b"HOST:", served.host())).answer()
        assert 400 <= answer.status < 500
        assert_bare(answer)
        assert answer.get("connection") == "close"
        assert connection.closed()
    assert served.upstream.requests == []


@pytest.mark.parametrize(
    "name", ["no hexadecimal", "a sign", "more than it says", "a bare LF after the size"]
)
def test_bad_chunks(served: Secured, name: str) -> None:
    """Nor is a chunked body with a mistake in it taken for a whole one."""
    data = b"POST /public HTTP/1.1\r\n" + served.host() + b"Transfer-Encoding: chunked\r\n\r\n" + CHUNKS[name]
    with line(served.port, authorities=served.authority.file) as connection:
        assert connection.send(data).answer().status == 400
        assert connection.closed()


@pytest.mark.parametrize("target", TARGETS[:8])
def test_raw_target(served: Secured, target: bytes) -> None:
    """A target that is no plain path on this server is refused."""
    answer = exchange(served.port, served.get(target), authorities=served.authority.file)
    assert 400 <= answer.status < 500
    assert_bare(answer)


def test_large_head(served: Secured) -> None:
    """The limit counts decrypted bytes, however they were cut into records."""
    with line(served.port, authorities=served.authority.file) as connection:
        answer = connection.send(served.get(b"/public", b"X: " + b"y" * MAX_HEAD)).answer()
        assert (answer.status, answer.code) == (431, "headers_too_large")
        assert connection.closed()


def test_body_that_looks_like_a_request(served: Secured) -> None:
    """A request inside a refused body is not served."""
    inner = served.get(b"/public/inner")
    outer = b"POST /nothing HTTP/1.1\r\n" + served.host() + b"Content-Length: %d\r\n\r\n" % len(inner)
    with line(served.port, authorities=served.authority.file) as connection:
        connection.send(outer + inner + served.get(b"/public/after"))
        assert connection.answer().status == 404
        assert connection.answer().text == "/public/after"


@pytest.mark.parametrize(
    "data", [b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", b"\x16\x03\x01", b"\x00" * 999]
)
def test_no_plain_http(served: Secured, data: bytes) -> None:
    """Nothing is answered to who does not speak TLS, and the server goes on."""
    with socket.create_connection(("127.0.0.1", served.port), 5) as raw:
        raw.sendall(data)
        raw.shutdown(socket.SHUT_WR)
        heard = b""
        while piece := raw.recv(4096):
            heard += piece
    assert b"HTTP" not in heard
    assert served.process.ready()


def test_old_versions_are_refused(served: Secured) -> None:
    """RFC 8996: no TLS 1.1, whatever the client offers."""
    context = ssl.create_default_context(cafile=served.authority.file)
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.minimum_version = ssl.TLSVersion.TLSv1_1
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    with (
        socket.create_connection(("127.0.0.1", served.port), 5) as raw,
        pytest.raises((ssl.SSLError, ConnectionError)),
    ):
        context.wrap_socket(raw, server_hostname="localhost")


def test_websockets(served: Secured) -> None:
    """A tunnel works with TLS on the browser's side, and ends cleanly with large messages under way."""
    served.upstream.script = echo_frames
    lines = [b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Version: 13"]
    lines += [b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==", b"Origin: https://localhost:%d" % served.port]
    big = b"x" * 2_000_000
    with line(served.port, authorities=served.authority.file) as connection:
        assert connection.send(served.get(b"/socket", *lines))._head()[0] == 101
        for payload in (b"hello", big):
            connection.send(frame(payload, mask=True))
            assert read_frame(connection._file) == (True, BINARY, payload)
        connection.send(frame(b"", CLOSE, mask=True))
        assert read_frame(connection._file) == (True, CLOSE, b"")
        assert connection.closed()
    served.upstream.reset()


def test_the_listener_beside_it_is_plain(served: Secured) -> None:
    """The forward-auth listener is for a proxy on a network of ours, and needs no certificate."""
    asked = b"GET /bff/forward-auth HTTP/1.1\r\nHost: x\r\nX-Original-URI: /nothing\r\n"
    answer = exchange(served.beside, asked + b"X-Original-Method: GET\r\n\r\n")
    assert (answer.status, answer.code) == (404, "route_not_found")


def serial(served: Secured) -> int:
    """The number of the certificate that is shown now."""
    connection = Line(served.port, authorities=served.authority.file)
    try:
        shown = connection.socket.getpeercert()  # type: ignore[attr-defined]
        return int(shown["serialNumber"], 16)
    finally:
        connection.close()


def test_renewal(served: Secured) -> None:
    """SIGHUP takes up a renewed certificate; a broken one leaves the old one in force, and says so. Nothing
    of all this is a stack trace."""
    arbiter = served.process
    before = serial(served)
    renewed = served.authority.sign("renewed", "localhost")
    shutil.copy(renewed.key, served.signed.key)
    arbiter.tell_arbiter(signal.SIGHUP)  # caught between the two files
    assert until(lambda: "certificate_not_renewed" in arbiter.output(), within=10)
    assert until(arbiter.ready, within=10)
    assert serial(served) == before
    shutil.copy(renewed.certificate, served.signed.certificate)
    arbiter.tell_arbiter(signal.SIGHUP)
    assert until(lambda: serial(served) != before, within=15)
    assert "the certificate is for another key" in arbiter.output()
    assert "Traceback" not in arbiter.output()
