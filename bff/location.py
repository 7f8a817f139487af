"""Where an upstream's answers point to, as the browser must read it. Pure.

An upstream knows itself by an address that means nothing outside: what points there is written anew as a path
of this origin. A redirect to anywhere else is not passed on: the browser would follow it with this origin's
authority, or leave the app.
"""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from bff.errors import UpstreamUnreachable
from bff.request import Headers

POINTERS = frozenset((b"location", b"content-location", b"link"))
_REDIRECTS = frozenset((300, 301, 302, 303, 305, 307, 308))
_TARGET = re.compile(rb"<([^<>]*)>")  # RFC 8288 §3
# As a browser reads it: tabs and line breaks vanish, a backslash is a slash, and two of them begin a host.
_PATH = re.compile(r"/(?![/\\])[^\x00-\x20\x7f\\]*\Z")
_RELATIVE = re.compile(r"(?![/\\])(?![A-Za-z][A-Za-z0-9+.-]*:)[^\x00-\x20\x7f\\]*\Z")


class Pointing:
    """The two addresses of one route: where its upstream is, and where the browser believes it to be."""

    def __init__(self, upstream: str, public_url: str) -> None:
        """`upstream` is the base URL of the upstream, `public_url` our own origin."""
        self._upstream, self._public = _origin(upstream), _origin(public_url)
        self._base = urlsplit(upstream).path

    def mapped(self, headers: Headers, status: int) -> Headers:
        """The headers of an answer, with what they point to mapped. Raises UpstreamUnreachable for a redirect
        that leads elsewhere."""
        return [self._mapped(header, status) for header in headers]

    def _mapped(self, header: tuple[bytes, bytes], status: int) -> tuple[bytes, bytes]:
        name, value = header
        if name == b"link":
            return name, _TARGET.sub(self._link, value)
        if name not in POINTERS:
            return header
        target = self.public(value)
        if target is None and name == b"location" and status in _REDIRECTS:
            raise UpstreamUnreachable(
                "It answered with a redirect to another place, which is not passed on.",
                reason="a redirect that leads elsewhere",
            )
        return name, target or value

    def public(self, reference: bytes) -> bytes | None:
        """A URI reference as the browser must read it; None where it leads elsewhere."""
        text = reference.decode("latin-1")
        if _RELATIVE.match(text):
            return reference  # the browser resolves it against the path that it has asked for
        path = text if text.startswith("/") else self._path_of(text)
        if path is None or not _PATH.match(path):
            return None
        if path is text or _origin(text) == self._upstream:
            path = self._without_base(path)
        return path.encode("latin-1") if _PATH.match(path) else None

    def _path_of(self, url: str) -> str | None:
        """Path, query and fragment of an absolute URL of the upstream or of this server."""
        try:
            if _origin(url) not in (self._upstream, self._public):
                return None
        except ValueError:
            return None
        rest = url.partition("://")[2][len(urlsplit(url).netloc) :]
        return rest if rest.startswith("/") else "/" + rest

    def _without_base(self, path: str) -> str:
        """What the browser asks for to reach a path of the upstream; nothing where it cannot."""
        after = path.removeprefix(self._base)
        if after == path and self._base:
            return ""
        return after if after.startswith("/") else "/" + after if not after or after[0] in "?#" else ""

    def _link(self, match: re.Match[bytes]) -> bytes:
        return b"<" + (self.public(match[1]) or match[1]) + b">"


def _origin(url: str) -> tuple[str, str, int | None]:
    """Scheme, host and port. Raises ValueError."""
    parts = urlsplit(url)
    if "@" in parts.netloc or "://" not in url:
        raise ValueError("this is no origin")
    return parts.scheme, parts.hostname or "", parts.port or {"http": 80, "https": 443}.get(parts.scheme)
