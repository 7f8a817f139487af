"""The certificate authority of `bff dev --https`: made once, kept beside the stack's other state.

Whoever trusts it trusts everybody who can read its key. So it can sign for nothing but this machine's own
names (RFC 5280 §4.2.1.10), for web servers only, and ends after a year.
"""

from __future__ import annotations

import os
import re
import secrets
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address, ip_network
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from bff.tls import Identity

AUTHORITY_DAYS, AUTHORITY_RENEWED_DAYS = 365, 30
"""How long an authority is good for, and how many days before its end a start makes another one."""
CERTIFICATE_DAYS, CERTIFICATE_RENEWED_DAYS = 28, 14
"""The same for what it signs: shorter than an authority has left at any start."""
NAME = "localhost"
ADDRESSES = ("127.0.0.1", "::1")
_NAME = re.compile(r"bff-dev-[0-9a-f]{8}")
_OURS = re.compile(rf"([a-z0-9_]([a-z0-9_-]{{0,61}}[a-z0-9])?\.)*{NAME}")
"""Names in ASCII, label by label (RFC 1123 §2.1, and `_`): no certificate takes others."""

_Held = tuple[x509.Certificate, ec.EllipticCurvePrivateKey]


def covers(host: str) -> bool:
    """Whether the authority can sign for a host name or address (without brackets)."""
    return (len(host) <= 253 and _OURS.fullmatch(host) is not None) or host in ADDRESSES


@dataclass(frozen=True)
class Authority:
    """An authority that can sign; `new` says that it was made just now, so that no browser knows it."""

    file: Path
    """Its certificate, in PEM."""
    name: str
    ends: datetime
    new: bool
    _held: _Held = field(repr=False)
    former: str | None = None
    """The one whose place it takes, where that can still be read: browsers may trust it yet."""

    def identity(self, name: str, hosts: Iterable[str], now: datetime | None = None) -> Identity:
        """A certificate and key for the part of this name, which answers to localhost and to `hosts`: those
        of an earlier start where they still will do. Raises OSError."""
        now = now or datetime.now(UTC)
        names = _alternative_names(hosts)
        found = Identity(self.file.with_name(f"{name}.crt"), self.file.with_name(f"{name}.key"))
        held = _read(found, now, CERTIFICATE_RENEWED_DAYS)
        if held is None or not self._signed(held[0], names):
            key = ec.generate_private_key(ec.SECP256R1())
            _write(found, (self._sign(name, key, names, now), key))
        return found

    def _signed(self, certificate: x509.Certificate, names: x509.SubjectAlternativeName) -> bool:
        try:
            certificate.verify_directly_issued_by(self._held[0])
            return certificate.extensions.get_extension_for_class(type(names)).value == names
        except (InvalidSignature, ValueError, TypeError, x509.ExtensionNotFound):
            return False

    def _sign(
        self, name: str, key: ec.EllipticCurvePrivateKey, names: x509.SubjectAlternativeName, now: datetime
    ) -> x509.Certificate:
        authority, signing_key = self._held
        identifier = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        builder = _builder(f"bff dev: {name}", key, now, CERTIFICATE_DAYS)
        return (
            builder.issuer_name(authority.subject)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(digital_signature=True), critical=True)
            .add_extension(names, critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False
            )
            .sign(signing_key, SHA256())
        )


def open_authority(folder: Path, now: datetime | None = None) -> Authority:
    """The authority that `folder` keeps, or a new one where there is none that will do: it is near its end,
    broken, or has a key that others could have read. Raises OSError."""
    now = now or datetime.now(UTC)
    folder.mkdir(mode=0o700, exist_ok=True)
    files = Identity(folder / "authority.crt", folder / "authority.key")
    kept = _read(files, now, AUTHORITY_RENEWED_DAYS)
    held = kept or _make(now)
    former = None if kept else _name_in(files.certificate)
    if kept is None:
        _write(files, held)
    name, ends = _common_name(held[0]), held[0].not_valid_after_utc
    return Authority(files.certificate, name, ends, kept is None, held, former)


def _name_in(file: Path) -> str | None:
    """The authority's name in a certificate of ours. It is to be shown in a command: nothing else will do."""
    try:
        name = _common_name(x509.load_pem_x509_certificate(file.read_bytes()))
    except (OSError, ValueError):
        return None
    return name if _NAME.fullmatch(name) else None


def _common_name(certificate: x509.Certificate) -> str:
    (name,) = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(name.value)


def _make(now: datetime) -> _Held:
    # Browsers look authorities up by name: two of one name and different keys would be in each other's way.
    name = f"bff-dev-{secrets.token_hex(4)}"
    key = ec.generate_private_key(ec.SECP256R1())
    permitted = [x509.DNSName(NAME), *(x509.IPAddress(ip_network(each)) for each in ADDRESSES)]
    builder = _builder(name, key, now, AUTHORITY_DAYS)
    certificate = (
        builder.issuer_name(_name(name))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(key_cert_sign=True), critical=True)
        .add_extension(x509.NameConstraints(permitted, None), critical=True)
        .sign(key, SHA256())
    )
    return certificate, key


def _builder(name: str, key: ec.EllipticCurvePrivateKey, now: datetime, days: int) -> x509.CertificateBuilder:
    """What every certificate of ours has: for web servers only, valid from a little earlier on, since clocks
    differ."""
    return (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _usage(*, digital_signature: bool = False, key_cert_sign: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        key_cert_sign=key_cert_sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


def _alternative_names(hosts: Iterable[str]) -> x509.SubjectAlternativeName:
    names = dict.fromkeys((NAME, *sorted(set(hosts) - set(ADDRESSES))))
    addresses = [x509.IPAddress(ip_address(each)) for each in ADDRESSES]
    return x509.SubjectAlternativeName([*map(x509.DNSName, names), *addresses])


def _read(files: Identity, now: datetime, days: int) -> _Held | None:
    """What the files hold, if it fits together, is nobody else's to read, and good for so many days more."""
    try:
        if files.key.stat().st_mode & 0o077:
            return None
        key = load_pem_private_key(files.key.read_bytes(), password=None)
        certificate = x509.load_pem_x509_certificate(files.certificate.read_bytes())
        fits = certificate.public_key() == key.public_key()
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm):
        return None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not fits:
        return None
    begun = certificate.not_valid_before_utc <= now
    return (certificate, key) if begun and certificate.not_valid_after_utc - now > timedelta(days) else None


def _write(files: Identity, held: _Held) -> None:
    """The key first: with a certificate that is not its own it counts as broken, and is made anew."""
    certificate, key = held
    _replace(files.key, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    _replace(files.certificate, certificate.public_bytes(Encoding.PEM))


def _replace(path: Path, content: bytes) -> None:
    """Never half a file, and never one that others can read, whatever was there before."""
    descriptor, name = tempfile.mkstemp(dir=path.parent)  # mode 0600
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    Path(name).replace(path)
