"""Who may come in: pure rules on the head of a request, and the headers that every answer carries."""

from __future__ import annotations

import enum
import re
from urllib.parse import quote, unquote, urlsplit

from bff.errors import BadRequest, CSRFRequired
from bff.request import RequestHead

MAX_RETURN_URL_BYTES = 2048


class Proof(enum.Enum):
    """What a request must show so that no other site can have sent it with the user's cookie."""

    NONE = "none"
    HEADER = "header"
    """`X-CSRF: 1`: a foreign page cannot set it without a preflight, which is refused (RFC 10017 §6.1)."""
    FORM = "form"
    """For POST the header, or an equal `Origin`, which a form of ours brings; links are judged elsewhere."""
    FETCH_METADATA = "fetch-metadata"
    """The header, or `Sec-Fetch-Site: same-origin` for GET and HEAD: pictures and downloads."""
    STREAM = "stream"
    """The header, or `Sec-Fetch-Site: same-origin`, or an equal `Origin`: an EventSource sends no header."""
    WEBSOCKET = "websocket"
    """An equal `Origin`, always: neither a preflight nor CORS stands between a page and a WebSocket."""


class Guard:
    """The rules that need to know our own origin."""

    def __init__(self, public_url: str) -> None:
        """`public_url` is the origin that browsers use."""
        self._origin = public_url.encode()
        self._host = urlsplit(public_url).netloc.encode()

    def check_host(self, host: bytes | None) -> None:
        """Refuse a request for another host: DNS rebinding, and caches poisoned by a false Host."""
        if host != self._host and (host is None or host.lower() != self._host):
            raise BadRequest("The Host of this request is not the one that this server answers to.")

    def check_origin(self, head: RequestHead, proof: Proof) -> None:
        """Refuse what another site may have caused. Raises CSRFRequired."""
        if head.has(b"service-worker"):
            # A script registered as a service worker could answer for every later page of this origin.
            raise CSRFRequired("Nothing here may become a service worker.")
        if proof is Proof.NONE or (proof is Proof.FORM and head.method != "POST"):
            return
        if proof is Proof.FORM and not head.has(b"x-csrf"):
            if not self.same_origin(head):
                raise CSRFRequired("Signing out needs the header X-CSRF: 1, or a form of this site.")
            return
        if head.has(b"origin") and head.single(b"origin") != self._origin:
            raise CSRFRequired("The request comes from another origin.")
        site = None
        if head.has(b"sec-fetch-site"):
            site = head.single(b"sec-fetch-site")
            if site != b"same-origin":
                raise CSRFRequired("The request comes from another site.")
        if not self._is_shown(head, proof, site):
            needed = "the Origin of this site" if proof is Proof.WEBSOCKET else "the header X-CSRF: 1"
            raise CSRFRequired(f"The request needs {needed}.")

    def _is_shown(self, head: RequestHead, proof: Proof, site: bytes | None) -> bool:
        """Whether the proof is there. `Origin` and `site`, where they came, have been found to be ours."""
        if proof is Proof.WEBSOCKET:
            return self.same_origin(head)
        if head.single(b"x-csrf") == b"1":
            return True
        if proof is Proof.STREAM:
            return site == b"same-origin" or self.same_origin(head)
        return proof is Proof.FETCH_METADATA and site == b"same-origin" and head.method in ("GET", "HEAD")

    def same_origin(self, head: RequestHead) -> bool:
        """Whether a form post or a stream comes from a page of ours. `Origin: null` is never ours."""
        return head.single(b"origin") == self._origin


_RETURN_URL = re.compile(r"/(?![/\\])[^\x00-\x20\x7f\\]*\Z")
_SCHEME = re.compile(r"/+https?:", re.IGNORECASE)
_IGNORED = dict.fromkeys([*range(0x21), 0x7F])  # what some software between us and the page would drop
_OUTSIDE = "returnUrl must be a path on this site, as in /path?query."


def safe_return_url(value: str) -> str:
    """`value` in ASCII, if whoever follows it stays on this origin and out of `/bff/`; else BadRequest.

    A URL parser must not judge this: parsers and browsers disagree on exactly the inputs that matter.
    Browsers drop tabs and newlines, read a backslash as a slash, and resolve dot segments (also written
    `%2e`), so all that could mean another host is refused outright, and what is left is resolved here.
    """
    try:
        octets = value.encode("utf-8")
    except UnicodeEncodeError:
        raise BadRequest(_OUTSIDE) from None
    if len(octets) > MAX_RETURN_URL_BYTES:
        raise BadRequest("returnUrl is longer than 2,048 bytes.")
    paths = _readings(re.split(r"[?#]", value, maxsplit=1)[0])
    if not _RETURN_URL.match(value) or any(path.startswith("//") or _SCHEME.match(path) for path in paths):
        raise BadRequest(_OUTSIDE)
    if any((path.lower() + "/").startswith("/bff/") for path in paths):
        raise BadRequest("returnUrl must not lead to /bff/, or signing in could go round in circles.")
    return "".join(c if c.isascii() else quote(c) for c in value)


def _readings(path: str) -> tuple[str, str]:
    """`path` with its dot segments resolved: as a browser does it, and as the most lenient reader could.

    Both are needed: a browser splits before it decodes, so that `/x%2Fy/../bff/` leads to `/bff/`; who
    decodes first, drops blanks and takes a backslash for a slash sees `/bff/` elsewhere.
    """
    lenient = unquote(path, "latin-1").translate(_IGNORED).replace("\\", "/")
    browser = [unquote(segment, "latin-1") for segment in path.split("/")]
    return _resolve(browser), _resolve(lenient.split("/"))


def _resolve(segments: list[str]) -> str:
    kept: list[str] = []
    for segment in segments[1:]:
        if segment == "..":
            kept = kept[:-1]
        elif segment != ".":
            kept.append(segment)
    return "/" + "/".join(kept)


def security_headers(*, secure: bool, local: bool = False) -> list[tuple[str, str]]:
    """Headers for every answer, whichever plane gives it.

    `local` is a stack on its browser's own machine. HSTS knows no ports (RFC 6797 §8.2): what else runs on
    localhost would be asked for TLS as well, for a year. There it says only: forget what you were told.
    """
    headers = [
        ("X-Content-Type-Options", "nosniff"),
        ("Cross-Origin-Opener-Policy", "same-origin"),
        ("Cross-Origin-Resource-Policy", "same-origin"),
    ]
    if secure:
        headers.append(("Strict-Transport-Security", f"max-age={0 if local else 31_536_000}"))
    return headers


def page_policy(form_action: str = "'self'") -> str:
    """The content security policy of our own pages: our scripts, our styles, nobody's frame."""
    return (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        f"base-uri 'none'; form-action {form_action}; frame-ancestors 'none'"
    )


DATA_POLICY = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
"""The policy of answers that are not pages: should one be shown as a page, it may do nothing."""
