"""Discovery and JWKS: what is believed, and what is refused with a reason."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
import requests

from bff.errors import ProviderUnavailable
from bff.provider import transport
from bff.provider.client import Provider
from bff.provider.metadata import discovery_url, fetch_jwks, fetch_metadata
from bff.provider.transport import BoundedAdapter, get_json
from tests.support.client import begin, client_of
from tests.support.provider import ABSENT, HTML, Reply, ScriptedProvider, scripted_provider
from tests.support.stopwatch import Stopwatch


@pytest.fixture
def scripted() -> Iterator[ScriptedProvider]:
    with scripted_provider() as provider:
        yield provider


def refused(provider: Provider) -> str:
    """Why discovery was refused, as the operator's log says."""
    with pytest.raises(ProviderUnavailable) as caught:
        provider.metadata.get()
    assert caught.value.detail, "the person is told something"
    return caught.value.reason


@pytest.mark.parametrize(
    ("issuer", "url"),
    [
        ("https://idp.example", "https://idp.example/.well-known/openid-configuration"),
        ("https://idp.example/", "https://idp.example/.well-known/openid-configuration"),
        ("https://idp.example/pool/", "https://idp.example/pool/.well-known/openid-configuration"),
        ("https://idp.example/pool", "https://idp.example/pool/.well-known/openid-configuration"),
    ],
)
def test_address_of_the_document(issuer: str, url: str) -> None:
    """The document lies below the issuer, and no slash is doubled."""
    assert discovery_url(issuer) == url


@pytest.mark.parametrize("path", ["", "/", "/pool", "/pool/"])
def test_issuer_as_it_stands(path: str) -> None:
    """An issuer is accepted exactly as configured, with or without a trailing slash."""
    with scripted_provider(path=path) as scripted:
        assert client_of(scripted).metadata.get().issuer == scripted.base + path


@pytest.mark.parametrize(
    "change", [lambda issuer: issuer + "/", lambda issuer: issuer.upper(), lambda _: "https://evil.example"]
)
def test_another_issuer(scripted: ScriptedProvider, change: Any) -> None:
    """A document for any other issuer is refused, though only a slash or a letter's case differs."""
    scripted.discovery["issuer"] = change(scripted.issuer)
    assert "another issuer" in refused(client_of(scripted))


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("issuer", ABSENT),
        ("issuer", ["https://idp.example"]),
        ("authorization_endpoint", ABSENT),
        ("authorization_endpoint", 7),
        ("token_endpoint", None),
        ("jwks_uri", {"uri": "https://idp.example/jwks"}),
        ("revocation_endpoint", ["https://idp.example/revoke"]),
        ("id_token_signing_alg_values_supported", "RS256"),
        ("id_token_signing_alg_values_supported", [1]),
        ("authorization_response_iss_parameter_supported", "true"),
        ("token_endpoint", "ftp://idp.example/token"),
        ("token_endpoint", "javascript:alert(1)"),
        ("authorization_endpoint", "/authorize"),
        ("authorization_endpoint", "https://["),
        ("jwks_uri", ""),
    ],
)
def test_member_of_a_wrong_kind(scripted: ScriptedProvider, member: str, value: object) -> None:
    """A member that is missing, of a wrong type or no web address makes the document unusable."""
    scripted.discovery[member] = value
    assert "discovery document" in refused(client_of(scripted))


NO_ADDRESSES = [
    "",
    "/path",
    "data:text/html,hi",
    "http://127.0.0.1:99999999/x",
    "http://127.0.0.1:0/x",
    "http://127.0.0.1:x/x",
    "http://127.0.0.1:9/a\ud800",
    "http://127.0.0.1:9/a\r\nX-Y: z",
    "http://127.0.0.1:9/a\x00b",
    "http://127.0.0.1:9/a b",
    "http://127.0.0.1:9/é",
    "http://127.0.0.1:9/x#fragment",
    "http://127.0.0.1:9/x#",
    "http://127.0.0.1:9;report-uri http://evil.example/;/a",
    "http://127.0.0.1:9;script-src/a",
    "http://ho\x01st é/a",
    "http://höst/a",
    "http://user:secret@127.0.0.1:9/x",
    "http://good.example\\@evil.example/",
    "http://[::1/a",
    "http:///x",
]


@pytest.mark.parametrize("url", NO_ADDRESSES, ids=ascii)
def test_endpoint_that_is_no_address(scripted: ScriptedProvider, url: str) -> None:
    """What could break a header, a policy or a parser refuses the document, or is left out where the
    provider can be used without it."""
    for member in ("authorization_endpoint", "jwks_uri", "pushed_authorization_request_endpoint"):
        scripted.discovery = {member: url}
        assert f"{member} that is no address" in refused(client_of(scripted))
    for member in ("userinfo_endpoint", "revocation_endpoint", "end_session_endpoint"):
        scripted.discovery = {member: url}
        assert getattr(client_of(scripted).metadata.get(), member) is None


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:9/x?p=1&p=2&q=a%20b;c",
        "https://[2001:db8::1]:8443/x",
        "https://IDP_1.example/a;b",
        "HTTPS://idp.example",
    ],
)
def test_endpoint_that_is_an_address(scripted: ScriptedProvider, url: str) -> None:
    """What browsers and servers take is kept as it is written."""
    scripted.discovery["end_session_endpoint"] = url
    assert client_of(scripted).metadata.get().end_session_endpoint == url


@pytest.mark.parametrize(
    "member",
    [
        "authorization_endpoint",
        "token_endpoint",
        "jwks_uri",
        "userinfo_endpoint",
        "revocation_endpoint",
        "end_session_endpoint",
    ],
)
def test_https_of_every_endpoint(scripted: ScriptedProvider, member: str) -> None:
    """Where https is required, one endpoint on plain http refuses the whole document, and is named."""
    for name, value in scripted.metadata().items():
        if isinstance(value, str) and name != "issuer":
            scripted.discovery[name] = value.replace("http:", "https:")
    adapter = BoundedAdapter(2)
    assert fetch_metadata(adapter, scripted.issuer, require_https=True).token_endpoint.startswith("https:")
    scripted.discovery[member] = "http://idp.example/x"
    with pytest.raises(ProviderUnavailable, match=f"{member} that is not https"):
        fetch_metadata(adapter, scripted.issuer, require_https=True)
    assert fetch_metadata(adapter, scripted.issuer, require_https=False).issuer == scripted.issuer


def test_production_requires_https(scripted: ScriptedProvider) -> None:
    """A client in production asks for https of every endpoint, one in development does not."""
    provider = client_of(scripted)
    production = provider._settings.model_copy(update={"env": "production"})
    assert provider.metadata.get().issuer == scripted.issuer
    with pytest.raises(ProviderUnavailable, match="not https"):
        Provider(production).metadata.get()


@pytest.mark.parametrize(
    "reply",
    [
        HTML,
        Reply(404, {"error": "not_found"}),
        Reply(500, {"issuer": "x"}),
        Reply(302, b"", {"Location": "/elsewhere"}),
        Reply(302, b"", {"Location": "/\xff"}),
        Reply(302, b"", {"Location": "http://[::1/"}),
        Reply(302, b" " * 1_048_577, {"Location": "/elsewhere"}),
        Reply(200, b"[]"),
        Reply(200, b"null"),
        Reply(200, b""),
        Reply(200, b"{"),
        Reply(200, b"\xff\xfe"),
        Reply(200, b"[" * 200_000),
        Reply(200, b"{" + b" " * 1_048_576 + b"}"),
        Reply(drop=True),
        Reply(200, b"{}", {"Content-Length": "900"}),
        Reply(200, b"junk", {"Content-Encoding": "gzip"}),
        Reply(delay=8),
    ],
    ids=lambda reply: f"{reply.status} {reply.raw()[:12]!r} {reply.headers or ''} {reply.delay or ''}",
)
@pytest.mark.parametrize("endpoint", ["discovery", "jwks"])
def test_answer_of_no_use(scripted: ScriptedProvider, endpoint: str, reply: Reply) -> None:
    """HTML, redirects, errors, garbage, huge, late and broken answers count as a provider out of reach."""
    scripted.replies[endpoint] = reply
    provider = client_of(scripted)
    started = Stopwatch()
    provider.prepare()
    assert not provider.known()
    assert started.own < 3
    assert scripted.count("/elsewhere") == 0, "no redirect is followed"


def test_slow_drip(scripted: ScriptedProvider) -> None:
    """An answer that comes byte by byte is cut off at the total deadline, not at a pause between bytes."""
    scripted.replies["discovery"] = Reply(body=scripted.metadata(), drip=0.05)
    started = Stopwatch()
    refused(client_of(scripted))
    assert started.own < 3.5
    assert started.elapsed > 1.5


def test_head_that_drips(scripted: ScriptedProvider) -> None:
    """A head without end is cut off at the deadline too, on a new connection and on one that was kept."""
    provider = client_of(scripted)
    for number in range(2):
        scripted.replies["discovery"] = Reply(head_drip=0.02)
        started = Stopwatch()
        with pytest.raises(ProviderUnavailable) as caught:
            provider._fetch_metadata()
        assert started.own < 3.5
        assert started.elapsed > 1.5
        assert "AnswerBroken" in caught.value.reason
        del scripted.replies["discovery"]
        assert provider._fetch_metadata().issuer == scripted.issuer, f"round {number}"


WHOLE = {
    "a length": (b"Content-Length: 9\r\n\r\n", b'{"a": 12}', True),
    "chunks": (b"Transfer-Encoding: chunked\r\n\r\n", b'9\r\n{"a": 12}\r\n0\r\n\r\n', True),
    "chunks without an end": (b"Transfer-Encoding: chunked\r\n\r\n", b'9\r\n{"a": 12}\r\n', False),
    "less than its length": (b"Content-Length: 9\r\n\r\n", b'{"a": 1}', False),
    "no length": (b"Connection: close\r\n\r\n", b'{"a": 12}', False),
}


@pytest.mark.parametrize(("head", "body", "whole"), WHOLE.values(), ids=WHOLE)
def test_process_that_stands_still(
    head: bytes, body: bytes, whole: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer that has come whole is used, although the process stood still until after the deadline: it
    may hold tokens that come but once. One whose end nobody can tell is not."""
    read = transport._read

    def read_late(response: requests.Response) -> bytes:
        time.sleep(2.5)
        return read(response)

    monkeypatch.setattr(transport, "_read", read_late)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        answer = b"HTTP/1.1 200 OK\r\n" + head + body
        threading.Thread(target=_answer_and_hold, args=(listener, answer), daemon=True).start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        if whole:
            assert get_json(BoundedAdapter(2), url) == {"a": 12}
        else:
            with pytest.raises(transport.AnswerBroken):
                get_json(BoundedAdapter(2), url)


def _answer_and_hold(listener: socket.socket, answer: bytes) -> None:
    """Answer the first request at once, and keep the connection."""
    with listener.accept()[0] as connection:
        connection.recv(65536)
        connection.sendall(answer)
        connection.recv(65536)


def test_handshake_that_drips() -> None:
    """Nor does a TLS handshake that comes byte by byte outlive the deadline."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=_drip_a_handshake, args=(listener,), daemon=True).start()
        started = Stopwatch()
        with pytest.raises(requests.ReadTimeout):
            get_json(BoundedAdapter(0.5), f"https://127.0.0.1:{listener.getsockname()[1]}/")
        assert started.own < 3
        assert started.elapsed > 0.3


def _drip_a_handshake(listener: socket.socket) -> None:
    connection, _ = listener.accept()
    with connection, suppress(OSError):
        connection.sendall(b"\x16\x03\x03\x40\x00")  # a record of 16 KiB begins
        while True:
            connection.sendall(b"\x00")
            time.sleep(0.02)


@pytest.mark.parametrize("keys", [None, {}, "keys", 7])
def test_jwks_without_keys(scripted: ScriptedProvider, keys: object) -> None:
    """A JWKS whose `keys` is no array is unusable, and what is in an array but no object is left out."""
    scripted.replies["jwks"] = Reply(body={"keys": keys})
    with pytest.raises(ProviderUnavailable):
        fetch_jwks(BoundedAdapter(2), scripted.base + "/jwks")
    scripted.replies["jwks"] = Reply(
        body={"keys": [keys, {"kty": "RSA"}] if keys != {} else [{"kty": "RSA"}]}
    )
    assert fetch_jwks(BoundedAdapter(2), scripted.base + "/jwks") == [{"kty": "RSA"}]


def test_recovery(scripted: ScriptedProvider) -> None:
    """A provider that was down at first is asked again after a pause, and then used."""
    now = [1000.0]
    provider = client_of(scripted, lambda: now[0])
    scripted.replies["discovery"] = Reply(503)
    with pytest.raises(ProviderUnavailable):
        begin(provider)
    del scripted.replies["discovery"]
    with pytest.raises(ProviderUnavailable):
        begin(provider)
    assert scripted.count("discovery") == 1, "it is left in peace for a moment"
    now[0] += 3
    assert begin(provider)[0].startswith(scripted.base + "/authorize?")


def test_connections_are_kept(scripted: ScriptedProvider) -> None:
    """Calls share connections, and no proxy variable or cookie of an earlier answer goes along."""
    scripted.replies["jwks"] = Reply(body=scripted.jwks(), headers={"Set-Cookie": "a=b"})
    provider = client_of(scripted)
    provider.prepare()
    provider._jwks.renew(provider._jwks.get(), "test")
    assert all("cookie" not in seen.headers for seen in scripted.seen)
