"""Which URLs may be asked for keys, and which origins may call."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import SplitResult, urlsplit

# RFC 3986 characters only. Judged before parsing: urlsplit drops tabs and newlines, and a
# backslash is a slash to some readers and not to others.
_URL_CHARACTERS = re.compile(r"[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]+")
_HOST = re.compile(r"[a-z0-9._-]+|[0-9a-f:.]+")
_DEFAULT_PORTS = {"http": 80, "https": 443}


class URLRefused(ValueError):
    """A URL that is not used; the text says why and quotes nothing of it."""


def check_url(url: str, *, allow_http: bool) -> None:
    """Refuse (`URLRefused`) what is not an absolute http(s) URL without user, query and fragment.

    Plain http passes where `allow_http` says so, and to a loopback host always: nobody is in
    between there.
    """
    parts = _split(url)
    if parts.username is not None or parts.password is not None:
        raise URLRefused("carries a user name or password")
    if "?" in url or "#" in url:
        raise URLRefused("has a query or a fragment")
    if parts.scheme == "http" and not allow_http and not is_loopback(parts.hostname or ""):
        raise URLRefused("is plain http and its host is not on loopback")


def check_origin(origin: str) -> None:
    """Refuse (`URLRefused`) what a browser would never send as `Origin` (RFC 6454 §6.2)."""
    parts = _split(origin)
    if f"{parts.scheme}://{parts.netloc}" != origin or origin != origin.lower():
        raise URLRefused("is more than scheme, host and port in lower case")
    if "@" in parts.netloc or parts.netloc.endswith(":"):
        raise URLRefused("is more than scheme, host and port in lower case")
    if not _HOST.fullmatch(parts.hostname or ""):
        raise URLRefused("does not name one host")
    if parts.port == _DEFAULT_PORTS[parts.scheme]:
        raise URLRefused("names the default port, which browsers leave out")


def is_loopback(host: str) -> bool:
    """Whether `host` (no port, no brackets) is this machine by its very name or number."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _split(url: str) -> SplitResult:
    if not _URL_CHARACTERS.fullmatch(url):
        raise URLRefused("has a character that does not belong in a URL")
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise URLRefused("is not a URL") from None
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname:
        raise URLRefused("is not an absolute http or https URL with a host")
    return parts
