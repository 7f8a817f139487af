"""The connection to an upstream over TLS: verified, with an authority and a certificate of one's own."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import uvloop

from bff.errors import UpstreamUnreachable
from bff.routes import PLAIN, TLSFiles
from bff.settings import RouteSettings
from bff.upstream import Origin
from tests.support.authority import Authority, Signed
from tests.support.upstream import ok


@contextmanager
def secured(
    signed: Signed, clients: Path | None = None, answer: bytes = ok(b"over TLS"), *, polite: bool = False
) -> Iterator[str]:
    """An upstream over TLS on loopback, which asks for a certificate of these `clients`; its URL. A `polite`
    one ends TLS before it ends TCP."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(signed.certificate, signed.key)
    if clients is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(clients)
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with suppress(OSError):
            while True:
                raw, _ = listener.accept()
                with suppress(OSError), context.wrap_socket(raw, server_side=True) as connection:
                    connection.recv(65536)
                    connection.sendall(answer)
                    if polite:
                        connection.unwrap().close()

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield f"https://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.close()


def ask(url: str, tls: TLSFiles = PLAIN) -> bytes:
    """The body of the upstream's answer."""

    async def once() -> bytes:
        response = await Origin(url, tls).send("GET", b"/", [(b"host", b"x")], None, 5)
        body = b"".join([piece async for piece in response.body()])
        response.finish()
        return body

    return uvloop.run(once())


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def test_an_authority_of_ones_own(authority: Authority) -> None:
    """With the route's `upstream_ca_file` an upstream is trusted that the system does not know."""
    with secured(authority.sign("api", "127.0.0.1")) as url:
        assert ask(url, TLSFiles(ca=authority.file)) == b"over TLS"
        with pytest.raises(UpstreamUnreachable, match="connecting: SSLCertVerificationError"):
            ask(url)


def test_the_name_is_verified(authority: Authority) -> None:
    """A certificate of the right authority for another host is no good."""
    with secured(authority.sign("api", "api.example")) as url, pytest.raises(UpstreamUnreachable):
        ask(url, TLSFiles(ca=authority.file))


def test_another_authority(authority: Authority, tmp_path: Path) -> None:
    """The given authority takes the place of all others."""
    other = Authority(tmp_path, "other")
    with secured(other.sign("api", "127.0.0.1")) as url, pytest.raises(UpstreamUnreachable):
        ask(url, TLSFiles(ca=authority.file))


@pytest.mark.parametrize("polite", [True, False])
def test_a_body_that_ends_with_the_connection(authority: Authority, polite: bool) -> None:
    """It is whole where TLS was ended; the end of TCP alone may be anybody's (RFC 9112 §9.8)."""
    answer = b"HTTP/1.1 200 OK\r\n\r\nover TLS"
    with secured(authority.sign("api", "127.0.0.1"), answer=answer, polite=polite) as url:
        if polite:
            assert ask(url, TLSFiles(ca=authority.file)) == b"over TLS"
        else:
            with pytest.raises(UpstreamUnreachable):
                ask(url, TLSFiles(ca=authority.file))


def test_a_certificate_of_ours(authority: Authority) -> None:
    """An upstream that asks for a certificate gets the route's, and without one refuses."""
    client = authority.sign("bff")
    with secured(authority.sign("api", "127.0.0.1"), clients=authority.file) as url:
        assert ask(url, TLSFiles(authority.file, client.certificate, client.key)) == b"over TLS"
        with pytest.raises(UpstreamUnreachable):
            ask(url, TLSFiles(ca=authority.file))


def route(**keys: object) -> RouteSettings:
    return RouteSettings.model_validate({"path": "/x", "upstream": "https://api"} | keys)


def test_files_that_stop_the_start(authority: Authority, tmp_path: Path) -> None:
    """What cannot be used is said at the start, without a word of what is in the files."""
    client, other = authority.sign("bff"), authority.sign("other")
    junk = tmp_path / "junk"
    junk.write_text("-----BEGIN SECRET-----")
    route(
        upstream_ca_file=authority.file, upstream_cert_file=client.certificate, upstream_key_file=client.key
    )
    bad: list[dict[str, object]] = [
        {"upstream_ca_file": tmp_path / "missing"},
        {"upstream_ca_file": junk},
        {"upstream_cert_file": client.certificate},
        {"upstream_key_file": client.key},
        {"upstream_cert_file": client.certificate, "upstream_key_file": other.key},
        {"upstream_cert_file": junk, "upstream_key_file": client.key},
        {"upstream": "http://api", "upstream_ca_file": authority.file},
    ]
    for keys in bad:
        with pytest.raises(ValueError, match="upstream_c") as problem:
            route(**keys)
        assert "SECRET" not in str(problem.value)
