"""What an issuer may answer when its keys are asked for, and what is refused."""

from __future__ import annotations

import gzip
import json
import socket
import ssl
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from bff.resource_api.jwt.fetching import FetchFailed, FetchLimits, _jwks_uri, discovery_url, fetch_keys
from tests.forge import Forge, signer
from tests.resource_api.issuer import DISCOVERY, JWKS, Answer, LocalIssuer, send
from tests.support.stopwatch import Stopwatch
from tests.support.wire import until

LIMITS = FetchLimits(connect=2, read=2, total=2)


@pytest.fixture
def server() -> Iterator[LocalIssuer]:
    """A fresh issuer for each test."""
    issuer = LocalIssuer()
    issuer.jwks = Forge(issuer.issuer).jwks()
    yield issuer
    issuer.close()


def fetch(issuer: str, limits: FetchLimits = LIMITS, *, allow_http: bool = False) -> list[str]:
    """The kids that came."""
    keys = fetch_keys(issuer, {"RS256"}, limits, allow_http=allow_http)
    return sorted(kid for kid, _ in keys)


def plain(body: bytes, status: int = 200, **headers: str) -> Answer:
    """An answer with this body."""
    return lambda handler: send(handler, status, body, **headers)


def drip(handler: BaseHTTPRequestHandler) -> None:
    """A byte now and then: never long enough apart for a read timeout."""
    handler.send_response(200)
    handler.end_headers()
    for _ in range(300):
        handler.wfile.write(b" ")
        handler.wfile.flush()
        time.sleep(0.1)


def drip_head(handler: BaseHTTPRequestHandler) -> None:
    """A header that never ends, though no read waits long for it."""
    handler.wfile.write(b"HTTP/1.0 200 OK\r\nX-Drip: ")
    for _ in range(300):
        handler.wfile.write(b"x")
        handler.wfile.flush()
        time.sleep(0.1)


def interim(handler: BaseHTTPRequestHandler) -> None:
    """One interim answer after the other, and never the final one."""
    for _ in range(300):
        handler.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        handler.wfile.flush()
        time.sleep(0.1)


def unending(handler: BaseHTTPRequestHandler) -> None:
    """A whole document without a length, on a connection that then stays open, a blank at a time."""
    handler.send_response(200)
    handler.end_headers()
    host = handler.headers["Host"]
    document = {"issuer": f"http://{host}", "jwks_uri": f"http://{host}{JWKS}", "keys": []}
    handler.wfile.write(json.dumps(document).encode())
    for _ in range(300):
        handler.wfile.write(b" ")
        handler.wfile.flush()
        time.sleep(0.1)


def endless(handler: BaseHTTPRequestHandler) -> None:
    """As much as is read."""
    handler.send_response(200)
    handler.end_headers()
    while True:
        handler.wfile.write(b" " * 65536)


def cut_short(handler: BaseHTTPRequestHandler) -> None:
    """Less than was promised."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b"{}")


def chunked(body: bytes) -> Answer:
    """A good body in chunks."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.protocol_version = "HTTP/1.1"
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.send_header("Connection", "close")
        handler.end_headers()
        for at in range(0, len(body), 100):
            piece = body[at : at + 100]
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        handler.wfile.write(b"0\r\n\r\n")

    return answer


@pytest.mark.parametrize(
    "answer",
    [
        plain(b"{}", 404),
        plain(b"{}", 500),
        plain(b"{}", 204),
        plain(b"{}", 302, Location="http://127.0.0.1:1/"),
        plain(b"not JSON"),
        plain(b"[]"),
        plain(b""),
        plain(b'{"keys": [], "keys": []}'),
        plain(b'{"keys": {}}'),
        plain(b'{"keys": null}'),
        plain(json.dumps({"keys": [{}] * 101}).encode()),
        plain(b'{"keys": []' + b" " * 300_000 + b"}"),
        plain(gzip.compress(b'{"keys": []}'), Content_Encoding="gzip"),
        plain(b"[" * 100_000),
        drip,
        drip_head,
        interim,
        unending,
        endless,
        cut_short,
    ],
)
def test_a_bad_answer_is_a_failed_fetch(server: LocalIssuer, answer: Answer) -> None:
    """At either address: no redirect is followed, no limit passed, and it is over in time."""
    for path in (DISCOVERY, JWKS):
        server.answers = {path: answer}
        began = Stopwatch()
        with pytest.raises(FetchFailed):
            fetch(server.issuer)
        assert began.own < LIMITS.total + 2


def test_the_time_is_for_both_documents_together(server: LocalIssuer) -> None:
    """An issuer that takes its time twice is not given the time twice."""

    limits = FetchLimits(connect=4, read=4, total=4)

    def slow(path: str) -> Answer:
        document = json.dumps(server._document(path)).encode()

        def answer(handler: BaseHTTPRequestHandler) -> None:
            handler.send_response(200)
            handler.end_headers()
            for at in range(0, len(document), len(document) // 6):
                handler.wfile.write(document[at : at + len(document) // 6])
                handler.wfile.flush()
                time.sleep(0.35)

        return answer

    server.answers = {DISCOVERY: slow(DISCOVERY)}
    assert fetch(server.issuer, limits) == ["access-1", "id-1"]
    server.answers[JWKS] = slow(JWKS)
    began = Stopwatch()
    with pytest.raises(FetchFailed):
        fetch(server.issuer, limits)
    assert began.own < limits.total + 2


@contextmanager
def listener(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """A bare TCP server for one connection; its port."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def run() -> None:
            with suppress(OSError):
                connection, _ = server.accept()
                with connection:
                    serve(connection)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        yield int(server.getsockname()[1])
    thread.join(5)


def over_tls(certificate: Path, serve: Callable[[ssl.SSLSocket], None]) -> Callable[[socket.socket], None]:
    """A server that shows this certificate."""

    def run(connection: socket.socket) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        with context.wrap_socket(connection, server_side=True) as secured:
            serve(secured)

    return run


def test_a_drip_inside_tls_is_cut(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The socket that TLS wraps is the one that is cut."""
    certificate = self_signed(tmp_path)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))

    def serve(connection: ssl.SSLSocket) -> None:
        connection.recv(4096)
        connection.sendall(b"HTTP/1.0 200 OK\r\nX-Drip: ")
        for _ in range(300):
            connection.sendall(b"x")
            time.sleep(0.1)

    with listener(over_tls(certificate, serve)) as port:
        began = Stopwatch()
        with pytest.raises(FetchFailed, match="took too long"):
            fetch(f"https://127.0.0.1:{port}")
        assert began.own < LIMITS.total + 2


def test_a_handshake_that_drips_is_over_in_time() -> None:
    """A record of the handshake that arrives byte by byte has no more time than the rest."""

    def serve(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(b"\x16\x03\x03\x40\x00")
        for _ in range(300):
            connection.sendall(b"x")
            time.sleep(0.1)

    with listener(serve) as port:
        began = Stopwatch()
        with pytest.raises(FetchFailed):
            fetch(f"https://127.0.0.1:{port}")
        assert began.own < LIMITS.total + 2


def test_a_proxy_that_drips_is_cut(server: LocalIssuer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between us and the issuer there may be a proxy, and it has no more time than the issuer."""
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", server.origin)
    server.answers = {"http://issuer.example" + DISCOVERY: drip_head}
    began = Stopwatch()
    with pytest.raises(FetchFailed, match="took too long"):
        fetch("http://issuer.example", allow_http=True)
    assert began.own < LIMITS.total + 2


def test_a_fetch_leaves_nothing_behind(server: LocalIssuer) -> None:
    """No timer and no descriptor stays, whether it succeeded or was cut."""

    def left() -> tuple[int, int]:
        timers = [thread for thread in threading.enumerate() if isinstance(thread, threading.Timer)]
        return len(timers), len(list(Path("/proc/self/fd").iterdir()))

    before = left()
    kinds: list[dict[str, Answer]] = [{}, {DISCOVERY: drip_head}, {JWKS: plain(b"{}", 500)}]
    for answers in kinds:
        server.answers = answers
        with suppress(FetchFailed):
            fetch(server.issuer)
    server.answers = {}
    fetch_keys(server.issuer, {"RS256"}, FetchLimits(total=60), allow_http=False)
    # The server's own threads, in this process too, need a moment to notice.
    assert until(lambda: left() <= before, within=10)


def test_an_untrusted_certificate_is_a_failed_fetch(tmp_path: Path) -> None:
    """The issuer must prove that it is itself."""
    certificate = self_signed(tmp_path)
    with (
        listener(over_tls(certificate, lambda _: None)) as port,
        pytest.raises(FetchFailed, match="SSLError"),
    ):
        fetch(f"https://127.0.0.1:{port}")


KEY_USAGE = x509.KeyUsage(
    digital_signature=True,
    key_cert_sign=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    crl_sign=False,
    encipher_only=False,
    decipher_only=False,
)


def self_signed(folder: Path) -> Path:
    """A certificate that nobody vouches for, with its key, as PEM."""
    key = signer("tls").key
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(1))
        .not_valid_after(now + timedelta(1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(KEY_USAGE, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path = folder / "server.pem"
    path.write_bytes(private + certificate.public_bytes(Encoding.PEM))
    return path


def endless_redirect(handler: BaseHTTPRequestHandler) -> None:
    """Elsewhere, with as much of a body as is read."""
    handler.send_response(302)
    handler.send_header("Location", "/elsewhere")
    handler.end_headers()
    while True:
        handler.wfile.write(b" " * 65536)


@pytest.mark.parametrize(
    "answer",
    [
        endless_redirect,
        plain(gzip.compress(b" " * 30_000_000), 302, Location="/elsewhere", Content_Encoding="gzip"),
        plain(b"", 302, Location="http://[::1/"),
        plain(b"", 302, Location="/\xff"),
        plain(b"", 307, Location="http://a b"),
    ],
)
def test_nothing_of_a_redirect_is_read(server: LocalIssuer, answer: Answer) -> None:
    """Its status is enough: neither its body nor its address is looked at, whatever they are."""
    for path in (DISCOVERY, JWKS):
        server.answers = {path: answer}
        tracemalloc.start()
        with pytest.raises(FetchFailed, match="answer 30"):
            fetch(server.issuer)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 10_000_000


def test_a_redirect_is_not_followed(server: LocalIssuer) -> None:
    """Not even to the right place: it could be any place."""
    server.answers = {JWKS: plain(b"", 302, Location="/elsewhere")}
    with pytest.raises(FetchFailed):
        fetch(server.issuer)
    assert "/elsewhere" not in server.asked


@pytest.mark.parametrize(
    "metadata",
    [
        {"issuer": "https://evil.example"},
        {"issuer": None},
        {"issuer": []},
        {"jwks_uri": None},
        {"jwks_uri": 1},
        {"jwks_uri": ""},
        {"jwks_uri": "/jwks.json"},
        {"jwks_uri": "file:///etc/passwd"},
        {"jwks_uri": "ftp://127.0.0.1/jwks.json"},
        {"jwks_uri": "http://keys.example/jwks.json"},
        {"jwks_uri": "https://user:pw@keys.example/jwks.json"},
        {"jwks_uri": "https://keys.example\\@evil.example/"},
        {"jwks_uri": "https://keys.example/\nHost: evil.example"},
        {"jwks_uri": "https://[::1"},
        {"jwks_uri": "https://keys.example:99999/"},
    ],
)
def test_a_bad_discovery_document_is_refused(server: LocalIssuer, metadata: dict[str, Any]) -> None:
    """Another issuer's document or a key address that is not https leads to no further request."""
    server.metadata = metadata
    with pytest.raises(FetchFailed, match="discovery document"):
        fetch(server.issuer)
    assert server.fetches == 0


def test_an_https_issuer_s_keys_are_not_on_this_machine() -> None:
    """Plain http on loopback is for an issuer on loopback, not for one that points us at our own ports."""
    issuer = "https://issuer.example"
    metadata = {"issuer": issuer, "jwks_uri": "http://127.0.0.1:6379/jwks.json"}
    with pytest.raises(FetchFailed, match="plain http"):
        _jwks_uri(metadata, issuer, allow_http=False)
    assert _jwks_uri(metadata, issuer, allow_http=True) == metadata["jwks_uri"]
    metadata["jwks_uri"] = "https://keys.example/jwks?tenant=1"
    assert _jwks_uri(metadata, issuer, allow_http=False) == metadata["jwks_uri"]


def test_the_issuer_is_compared_to_the_letter(server: LocalIssuer) -> None:
    """A slash more or less is another issuer."""
    with pytest.raises(FetchFailed, match="to the letter"):
        fetch(server.issuer + "/")


@pytest.mark.parametrize(
    ("issuer", "url"),
    [
        ("https://i.example", "https://i.example/.well-known/openid-configuration"),
        ("https://i.example/", "https://i.example/.well-known/openid-configuration"),
        ("https://i.example/a/", "https://i.example/a/.well-known/openid-configuration"),
        ("https://i.example/a", "https://i.example/a/.well-known/openid-configuration"),
    ],
)
def test_a_slash_is_not_doubled(issuer: str, url: str) -> None:
    """A slash at the issuer's end joins without a second one."""
    assert discovery_url(issuer) == url


@pytest.mark.parametrize("path", ["", "/", "/pool", "/pool/"])
def test_keys_come_from_any_issuer_path(path: str) -> None:
    """With and without a path or a slash, the issuer's keys are found."""
    server = LocalIssuer(path)
    server.jwks = Forge(server.issuer).jwks()
    assert fetch(server.issuer) == ["access-1", "id-1"]
    server.close()


def test_a_chunked_answer_is_read(server: LocalIssuer) -> None:
    """Whole, though it comes in pieces."""
    server.answers = {JWKS: chunked(json.dumps(server.jwks).encode())}
    assert fetch(server.issuer) == ["access-1", "id-1"]


def test_nobody_listening_is_a_failed_fetch() -> None:
    """A refused connection is an outage, not a crash."""
    server = LocalIssuer()
    server.close()
    with pytest.raises(FetchFailed):
        fetch(server.issuer)


def test_the_machine_has_no_say(server: LocalIssuer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No password of a .netrc is sent, and loopback is asked directly, past any proxy."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login someone password hunter2\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    seen: list[str | None] = []
    document = json.dumps(server.jwks).encode()

    def answer(handler: BaseHTTPRequestHandler) -> None:
        seen.append(handler.headers.get("Authorization"))
        send(handler, 200, document)

    server.answers = {JWKS: answer}
    assert fetch(server.issuer) == ["access-1", "id-1"]
    assert seen == [None]
