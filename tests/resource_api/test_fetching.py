"""What an issuer may answer when its keys are asked for, and what is refused."""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from bff.resource_api.jwt.fetching import FetchFailed, FetchLimits, discovery_url, fetch_keys
from tests.forge import Forge
from tests.resource_api.issuer import DISCOVERY, JWKS, Answer, LocalIssuer, send

LIMITS = FetchLimits(connect=1, read=0.5, total=1)


@pytest.fixture
def server() -> Iterator[LocalIssuer]:
    """A fresh issuer for each test."""
    issuer = LocalIssuer()
    issuer.jwks = Forge(issuer.issuer).jwks()
    yield issuer
    issuer.close()


def fetch(issuer: str, *, allow_http: bool = False) -> list[str]:
    """The kids that came."""
    keys = fetch_keys(issuer, {"RS256"}, LIMITS, allow_http=allow_http)
    return sorted(kid for kid, _ in keys)


def plain(body: bytes, status: int = 200, **headers: str) -> Answer:
    """An answer with this body."""
    return lambda handler: send(handler, status, body, **headers)


def drip(handler: BaseHTTPRequestHandler) -> None:
    """A byte now and then: never long enough apart for a read timeout."""
    handler.send_response(200)
    handler.end_headers()
    for _ in range(100):
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
        endless,
        cut_short,
    ],
)
def test_a_bad_answer_is_a_failed_fetch(server: LocalIssuer, answer: Answer) -> None:
    """At either address: no redirect is followed, no limit passed, and it is over in time."""
    for path in (DISCOVERY, JWKS):
        server.answers = {path: answer}
        began = time.monotonic()
        with pytest.raises(FetchFailed):
            fetch(server.issuer)
        assert time.monotonic() - began < LIMITS.total + 1


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
    with pytest.raises(FetchFailed):
        fetch(server.issuer)
    assert server.fetches == 0


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
