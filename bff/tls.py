"""TLS with files of one's own: a server's certificate and key, and authorities to believe."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Identity:
    """What a server shows: its certificate, with those that lead to its authority behind it, and the key."""

    certificate: Path
    key: Path


def identity(certificate: Path | None, key: Path | None) -> Identity | None:
    """Both files, or none where there is to be no TLS."""
    return None if certificate is None or key is None else Identity(certificate, key)


class FilesRefused(ValueError):
    """Files that cannot be used; the text says why, and quotes nothing of them."""


def server_context(identity: Identity) -> ssl.SSLContext:
    """TLS 1.2 and newer with these files, for HTTP/1.1. Raises FilesRefused."""
    for file, what in ((identity.certificate, "the certificate "), (identity.key, "the key ")):
        check_readable(file, what)  # OpenSSL's own words do not say which of them it could not read
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(identity.certificate, identity.key, password=_no_password)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise FilesRefused("the certificate is for another key") from None
        raise FilesRefused("they are not a certificate and a key in PEM") from None
    return context


def check_authorities(file: Path) -> None:
    """Return where `file` has certificates of authorities. Raises FilesRefused."""
    check_readable(file)
    try:
        ssl.create_default_context(cafile=file)
    except ssl.SSLError:
        raise FilesRefused("is not a PEM file with certificates") from None


def check_readable(file: Path, what: str = "") -> None:
    """Return where `file` can be read. Raises FilesRefused, whose text begins with `what`."""
    try:
        with file.open("rb"):
            pass
    except OSError as error:
        raise FilesRefused(f"{what}cannot be read: {error.strerror}") from None


def _no_password() -> str:
    """Or OpenSSL would ask at the terminal."""
    raise FilesRefused("the key is encrypted: give it without a password, in a file for this server alone")
