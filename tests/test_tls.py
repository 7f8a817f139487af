"""TLS in the process itself, and authorities of one's own: what is taken, and what stops the start."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import requests
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from bff.answers import CommonHeaders
from bff.provider.transport import BoundedAdapter, mount
from bff.resource_api import settings as resource_api
from bff.resource_api.jwt.transport import Watchdog, watched_session
from bff.routes import build
from bff.settings import SettingsError, load
from bff.tls import FilesRefused, Identity, check_authorities, server_context
from tests.support.authority import Authority, Signed
from tests.support.tls import client_context, handshake
from tests.test_cli import _a_clean_environment, run
from tests.test_settings import BASE
from tests.test_upstream_tls import secured

__all__ = ["_a_clean_environment"]  # for every test here, too

SECRET = "s3cr3t-in-the-file"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def signed(authority: Authority) -> Signed:
    return authority.sign("app", "localhost")


def identity(signed: Signed) -> Identity:
    return Identity(signed.certificate, signed.key)


def test_a_certificate_is_shown(authority: Authority, signed: Signed) -> None:
    """A client gets it, over TLS 1.2 or 1.3, and agrees on HTTP/1.1: nothing else is spoken here."""
    client = client_context(authority.file)
    client.set_alpn_protocols(["h2", "http/1.1"])
    made = handshake(server_context(identity(signed)), client, "localhost")
    assert made.selected_alpn_protocol() == "http/1.1"
    assert made.version() == "TLSv1.3"


def test_old_versions_are_refused(signed: Signed) -> None:
    """RFC 8996: neither TLS 1.0 nor 1.1."""
    assert server_context(identity(signed)).minimum_version.name in ("TLSv1_2", "TLSv1_3")


def _encrypt(signed: Signed) -> None:
    key = load_pem_private_key(signed.key.read_bytes(), None)
    password = BestAvailableEncryption(b"x")
    signed.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, password))


def _swap(signed: Signed) -> None:
    other = Authority(signed.key.parent, "elsewhere").sign("other", "localhost")
    signed.key.write_bytes(other.key.read_bytes())


def _turn_to_folder(signed: Signed) -> None:
    signed.key.unlink()
    signed.key.mkdir()


BROKEN: dict[str, tuple[Callable[[Signed], object], str]] = {
    "no certificate": (lambda signed: signed.certificate.unlink(), "the certificate cannot be read: No such"),
    "no key": (lambda signed: signed.key.unlink(), "the key cannot be read: No such file"),
    "a folder": (_turn_to_folder, "the key cannot be read: Is a directory"),
    "an encrypted key": (_encrypt, "the key is encrypted"),
    "another's key": (_swap, "the certificate is for another key"),
    "junk for a key": (lambda signed: signed.key.write_text(SECRET), "not a certificate and a key in PEM"),
    "junk for a certificate": (
        lambda signed: signed.certificate.write_text(SECRET),
        "not a certificate and a key in PEM",
    ),
}


@pytest.mark.parametrize(("breaks", "words"), BROKEN.values(), ids=BROKEN)
def test_files_that_are_no_good(signed: Signed, breaks: Callable[[Signed], object], words: str) -> None:
    """The text says which file and why, and nothing of what is in it."""
    breaks(signed)
    with pytest.raises(FilesRefused, match=words) as refused:
        server_context(identity(signed))
    assert SECRET not in str(refused.value)


SERVERS = {
    "BFF": ("serve", BASE),
    "API": ("api", {"API_ISSUER": "https://issuer.example", "API_CLIENT_IDS": "client"}),
    "IDP": ("idp", {"BFF_ENV": "development"}),
}


@pytest.mark.parametrize("prefix", SERVERS)
@pytest.mark.parametrize(("breaks", "words"), BROKEN.values(), ids=BROKEN)
def test_they_stop_every_server(
    signed: Signed, prefix: str, breaks: Callable[[Signed], object], words: str
) -> None:
    """Each of the three ends with status 2 before it listens, and names its settings."""
    breaks(signed)
    command, environ = SERVERS[prefix]
    files = {f"{prefix}_TLS_CERT_FILE": str(signed.certificate), f"{prefix}_TLS_KEY_FILE": str(signed.key)}
    result = run(command, **environ, **files)
    assert result.exit_code == 2, result.output
    assert f"{prefix}_TLS_" in result.output
    assert words.removeprefix("the certificate ").removeprefix("the key ") in result.output
    assert SECRET not in result.output


@pytest.mark.parametrize("prefix", SERVERS)
@pytest.mark.parametrize("kind", ["CERT", "KEY"])
def test_one_file_without_the_other(signed: Signed, prefix: str, kind: str) -> None:
    """A server that was to speak TLS must not speak plain HTTP because a setting was forgotten."""
    file = signed.certificate if kind == "CERT" else signed.key
    command, environ = SERVERS[prefix]
    result = run(command, **environ, **{f"{prefix}_TLS_{kind}_FILE": str(file)})
    assert result.exit_code == 2
    assert f"{prefix}_TLS_" in result.output


def test_the_bff_s_settings(signed: Signed) -> None:
    """Both files make an identity; links are kept, since renewal turns them elsewhere."""
    link = signed.certificate.with_name("current.crt")
    link.symlink_to(signed.certificate)
    files = {"BFF_TLS_CERT_FILE": str(link), "BFF_TLS_KEY_FILE": str(signed.key)}
    assert load(BASE | files).tls == Identity(link, signed.key)
    assert load(BASE).tls is None


def test_tls_and_a_public_url_without(signed: Signed) -> None:
    """Browsers would be sent to http, where nobody answers."""
    files = {"BFF_TLS_CERT_FILE": str(signed.certificate), "BFF_TLS_KEY_FILE": str(signed.key)}
    plain = {"BFF_ENV": "development", "BFF_PUBLIC_URL": "http://localhost:5003"}
    with pytest.raises(SettingsError, match="BFF_TLS_CERT_FILE must be left out"):
        load(BASE | files | plain)


@pytest.mark.parametrize(
    "content", [None, "", "junk", "-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----"]
)
def test_authorities_that_are_none(tmp_path: Path, content: str | None) -> None:
    """A file that would make every connection fail, or trust nobody, is told at the start."""
    file = tmp_path / "authorities.pem"
    if content is not None:
        file.write_text(content)
    with pytest.raises(FilesRefused):
        check_authorities(file)
    api = {"BFF_API_URL": "https://api"}
    for name in ("BFF_OIDC_CA_FILE", "BFF_API_CA_FILE"):
        with pytest.raises(SettingsError, match=name):
            load(BASE | api | {name: str(file)})

    api = {"API_ISSUER": "https://issuer.example", "API_CLIENT_IDS": "client"}
    with pytest.raises(resource_api.SettingsError, match="API_ISSUER_CA_FILE"):
        resource_api.load(api | {"API_ISSUER_CA_FILE": str(file)})


@pytest.mark.parametrize("side", ["bff", "api"])
def test_they_take_the_place_of_all_others(
    authority: Authority, tmp_path: Path, side: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Calls to the provider trust them and nobody else, whatever REQUESTS_CA_BUNDLE says; without them the
    same server is refused."""
    other = Authority(tmp_path, "other")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(other.file))

    def ask(url: str, file: Path | None) -> int:
        with Watchdog(5) as watchdog:
            session = requests.Session() if side == "bff" else watched_session(watchdog, file)
            if side == "bff":
                mount(session, BoundedAdapter(5, file))
            with session:
                return session.get(url, timeout=5).status_code

    with secured(authority.sign("idp", "127.0.0.1")) as url:
        assert ask(url, authority.file) == 200
        for file in (None, other.file):
            with pytest.raises(requests.exceptions.SSLError):
                ask(url, file)


def test_authorities_for_an_api_without_tls(authority: Authority) -> None:
    """They would have no effect, and their author thinks that the connection is safe."""
    with pytest.raises(SettingsError, match="BFF_API_CA_FILE is for a BFF_API_URL"):
        load(BASE | {"BFF_API_CA_FILE": str(authority.file)})


def test_the_weather_route_trusts_them(authority: Authority) -> None:
    """BFF_API_CA_FILE is to the built-in route what `upstream_ca_file` is to others."""
    settings = load(BASE | {"BFF_API_URL": "https://api", "BFF_API_CA_FILE": str(authority.file)})
    route = build(settings).find("/weather")
    assert route is not None
    assert route.tls.ca == authority.file  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("url", "env", "said"),
    [
        ("https://localhost:5003", "development", "max-age=0"),
        ("https://app.localhost:5003", "development", "max-age=0"),
        ("https://localhost:5003", "production", "max-age=31536000"),
        ("https://app.example.com", "development", "max-age=31536000"),
        ("https://notlocalhost", "development", "max-age=31536000"),
        ("http://localhost:5003", "development", None),
    ],
)
def test_strict_transport_security_on_localhost(url: str, env: str, said: str | None) -> None:
    """HSTS knows no ports: a stack on localhost must not bind whatever else runs there, for a year."""
    settings = load(BASE | {"BFF_PUBLIC_URL": url, "BFF_ENV": env})
    headers = dict(CommonHeaders(secure=settings.secure, local=settings.local).add([], ours=False))
    assert headers.get(b"strict-transport-security") == (said and said.encode())
