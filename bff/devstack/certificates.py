"""`bff dev --https`: which part shows which certificate, and who has to trust it."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

from bff.devstack.authority import Authority, covers
from bff.devstack.processes import StackFailed

_OF = {
    "BFF": ("BFF_PUBLIC_URL",),
    "API": ("BFF_API_URL",),
    "IDP": ("IDP_ISSUER", "IDP_PUBLIC_URL", "IDP_BACKEND_URL"),
}
"""The settings that say under which addresses a part is reached."""


def tls_settings(
    authority: Authority, given: Mapping[str, str], urls: Mapping[str, str], *, local_idp: bool
) -> dict[str, str]:
    """Settings by which all parts speak TLS and trust each other, where `given` has nothing else.

    `urls` are the addresses that are in force, by their settings' names. Raises StackFailed for one that the
    authority cannot sign for, OSError where files cannot be written.
    """
    settings: dict[str, str] = {}
    for part, names in _OF.items():
        theirs = f"{part}_TLS_CERT_FILE" in given or f"{part}_TLS_KEY_FILE" in given
        elsewhere = (part == "IDP" and not local_idp) or (part == "API" and "BFF_API_URL" in given)
        reached = {} if theirs or elsewhere else {name: urls[name] for name in names if name in urls}
        for name, url in reached.items():
            _check(part, name, url)
        if theirs:
            continue
        hosts = {hostname(name, url) for name, url in reached.items()}
        identity = authority.identity(part.lower(), hosts)
        settings[f"{part}_TLS_CERT_FILE"] = str(identity.certificate)
        settings[f"{part}_TLS_KEY_FILE"] = str(identity.key)
        if reached:
            settings |= dict.fromkeys(_TRUSTED_BY[part], str(authority.file))
    return settings


_TRUSTED_BY = {
    "BFF": (),
    "API": ("BFF_API_CA_FILE",),
    "IDP": ("BFF_OIDC_CA_FILE", "API_ISSUER_CA_FILE"),
}
"""The settings by which other parts trust a part's certificate."""


def hostname(setting: str, url: str) -> str:
    """The host of an address, without brackets; "" where it names none. Raises StackFailed."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        raise StackFailed(f"{setting} is no address: see its brackets, as in http://[::1]:5003") from None


def _check(part: str, name: str, url: str) -> None:
    setting = "API_BIND" if name == "BFF_API_URL" else name
    host = hostname(setting, url)
    if not url.lower().startswith("https:"):
        raise StackFailed(f"{setting} is not https, as --https needs it. Change it, or leave it out.")
    if not covers(host):
        raise StackFailed(
            f"{setting} names {host or 'no host'}, but the local authority signs for localhost, names below "
            f"it, 127.0.0.1 and [::1] only. Take one of these, or set {part}_TLS_CERT_FILE and "
            f"{part}_TLS_KEY_FILE to a certificate of your own."
        )
