"""The table of what this server answers: canonical path and method to an endpoint. Pure.

One path decides and the same path is sent: rules that match a parsed path while the raw one travels on
are how proxies have been walked around. What could be read in two ways is refused with 400.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from bff.errors import BadRequest, MethodNotAllowed, RouteNotFound
from bff.guard import Proof
from bff.settings import RouteSettings, Settings, SettingsError

_PLAIN = re.compile(rb"(?=/)(?:/[A-Za-z0-9\-_~!$&'()*+,=:@][A-Za-z0-9\-._~!$&'()*+,=:@]*)*/?\Z")
_PATH = re.compile(rb"/[\x21-\x7e]*\Z")
_QUERY = re.compile(rb"[\x21-\x7e]*\Z")
_ESCAPE = re.compile(rb"%([0-9A-Fa-f]{2})?")
_FORBIDDEN = re.compile(rb'[\\#?"<>^`{|}\[\]]')
_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_AMBIGUOUS = frozenset(b"/\\#?%;") | frozenset(range(0x20)) | {0x7F}


@dataclass(frozen=True, slots=True)
class Route:
    """A proxied part of the path space."""

    path: str
    upstream: str
    methods: tuple[str, ...]
    user_token: bool
    proof: Proof
    timeout: float
    response_headers: frozenset[bytes]
    anonymous: bool


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An address that the control plane answers. `page`: its errors are pages, not problem documents."""

    path: str
    methods: tuple[str, ...]
    proof: Proof = Proof.NONE
    page: bool = False
    below: bool = False
    """Whether everything below the path belongs to it too."""
    session: bool = False
    """Whether it reads the session: what does not costs Redis nothing."""


ENDPOINTS = (
    Endpoint("/", ("GET", "HEAD"), page=True),
    Endpoint("/static", ("GET", "HEAD"), below=True),
    Endpoint("/health/live", ("GET", "HEAD")),
    Endpoint("/health/ready", ("GET", "HEAD")),
    Endpoint("/bff/login", ("GET",), page=True),
    Endpoint("/bff/callback", ("GET", "POST"), page=True),
    Endpoint("/bff/user", ("GET",), Proof.HEADER, session=True),
    Endpoint("/bff/logout", ("GET", "POST"), page=True, session=True),
)
_OURS = ("/bff", "/health", "/static")


def canonical(path: bytes) -> str:
    """The one form of a raw request path, which is matched and sent. Raises BadRequest.

    Escapes of unreserved characters are undone and the others written in upper case (RFC 3986 §6.2.2);
    encoded slashes, backslashes, percent signs and the like, empty and dot segments, path parameters
    and control characters mean different things to different servers and are refused.
    """
    if _PLAIN.match(path):
        return path.decode("ascii")
    if not _PATH.match(path) or _FORBIDDEN.search(path):
        raise BadRequest("The path has a character that does not belong there.")
    plain = _ESCAPE.sub(_unescape, path).decode("ascii")
    segments = plain.split("/")[1:]
    if any(segment == "" for segment in segments[:-1]):
        raise BadRequest("The path has an empty segment.")
    if any(segment in (".", "..") for segment in segments):
        raise BadRequest("The path has a dot segment.")
    if ";" in plain:
        raise BadRequest("The path has a parameter (;), which servers read in different ways.")
    return plain


def _unescape(match: re.Match[bytes]) -> bytes:
    if match[1] is None:
        raise BadRequest("The path has a % that begins no escape.")
    octet = int(match[1], 16)
    if octet in _AMBIGUOUS:
        raise BadRequest("The path has an escape that servers read in different ways.")
    return bytes([octet]) if octet in _UNRESERVED else b"%" + match[1].upper()


def check_query(query: bytes) -> None:
    """Refuse a query that HTTP does not allow; it is sent as it came."""
    if not _QUERY.match(query):
        raise BadRequest("The query has a character that does not belong there.")


class RouteTable:
    """All endpoints and routes of one configuration."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._routes = sorted(routes, key=lambda route: len(route.path), reverse=True)
        self._exact = {endpoint.path: endpoint for endpoint in ENDPOINTS if not endpoint.below}
        self._below = [endpoint for endpoint in ENDPOINTS if endpoint.below]

    def find(self, path: str) -> Endpoint | Route:
        """What answers a canonical path; the longest match wins. Raises RouteNotFound."""
        endpoint = self._exact.get(path)
        if endpoint is not None:
            return endpoint
        for route in self._routes:
            if _covers(route.path, path):
                return route
        for endpoint in self._below:
            if _covers(endpoint.path, path):
                return endpoint
        raise RouteNotFound("No page and no route has this address.")


def _covers(prefix: str, path: str) -> bool:
    """Whether `path` is `prefix` or lies below it at a segment boundary."""
    return path.startswith(prefix) and path[len(prefix) : len(prefix) + 1] in ("", "/")


def allow(entry: Endpoint | Route, method: str) -> None:
    """Refuse a method that the entry does not name; OPTIONS is no exception."""
    if method not in entry.methods:
        raise MethodNotAllowed(entry.methods)


def build(settings: Settings) -> RouteTable:
    """The table that `settings` asks for. Raises SettingsError, with all problems."""
    wanted = list(settings.routes)
    if settings.api_url is not None:
        wanted.append(RouteSettings(path="/weather", upstream=settings.api_url))
    problems = [problem for route in wanted if (problem := _malformed(route.path))]
    paths = [route.path for route in wanted]
    twice = sorted({path for path in paths if paths.count(path) > 1})
    problems += [f"BFF_ROUTES has two routes with the path {path}" for path in twice]
    if problems:
        raise SettingsError(problems)
    return RouteTable(_route(route, settings) for route in wanted)


def _malformed(path: str) -> str | None:
    try:
        plain = canonical(path.encode())
    except BadRequest as error:
        return f"BFF_ROUTES has a path that cannot be matched: {error.detail}"
    if plain != path or path.endswith("/"):
        return f"BFF_ROUTES path {path!r} must be written as it is matched, without a slash at its end"
    if any(path == ours or path.startswith(ours + "/") for ours in _OURS):
        return f"BFF_ROUTES path {path!r} belongs to this server itself"
    return None


def _route(route: RouteSettings, settings: Settings) -> Route:
    return Route(
        path=route.path,
        upstream=route.upstream,
        methods=route.methods,
        user_token=route.token == "user",
        proof=Proof(route.csrf),
        timeout=route.timeout_seconds or settings.upstream_timeout_seconds,
        response_headers=frozenset(name.lower().encode() for name in route.response_headers),
        anonymous=route.anonymous,
    )
