"""The table of what this server answers: canonical path and method to an endpoint. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from bff.errors import BadRequest, MethodNotAllowed, RouteNotFound
from bff.guard import Proof
from bff.paths import canonical
from bff.settings import WEATHER, RouteSettings, Settings


@dataclass(frozen=True, slots=True)
class TLSFiles:
    """What the connection to an upstream is secured with, beyond the system's authorities."""

    ca: Path | None = None
    """The authorities that may have signed the upstream's certificate, in place of the system's."""
    certificate: Path | None = None
    """Ours, for an upstream that asks for one."""
    key: Path | None = None


PLAIN = TLSFiles()
"""The system's authorities, and no certificate of ours."""


@dataclass(frozen=True, slots=True)
class Route:
    """A proxied part of the path space."""

    path: str
    upstream: str
    methods: tuple[str, ...]
    token: str
    """Whose token is sent: "user", "client", "user_or_client" or "none"."""
    proof: Proof
    timeout: float
    response_headers: frozenset[bytes]
    anonymous: bool
    scope: str | None = None
    resource: str | None = None
    max_age: float | None = None
    """How long ago the person may have signed in, in seconds."""
    stream: str | None = None
    """"sse" or "websocket": answers that stay open and end with the session."""
    request_headers: frozenset[bytes] = frozenset()
    encoded_slashes: bool = False
    tls: TLSFiles = PLAIN


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An address that the control plane answers. `page`: its errors are pages, not problem documents."""

    path: str
    methods: tuple[str, ...]
    proof: Proof = Proof.NONE
    page: bool = False
    below: bool = False
    """Whether everything below the path belongs to it too."""
    item: bool = False
    """Whether it is for what lies one segment below the path, and not for the path itself."""
    session: bool = False
    """Whether it reads the session: what does not costs Redis nothing."""
    site: bool = False
    """Whether the files of a single-page app may answer it."""


EVENTS = "/bff/events"
ENDPOINTS = (
    Endpoint("/", ("GET", "HEAD"), page=True),
    Endpoint("/static", ("GET", "HEAD"), below=True),
    Endpoint("/health/live", ("GET", "HEAD")),
    Endpoint("/health/ready", ("GET", "HEAD")),
    Endpoint("/bff/login", ("GET",), page=True),
    Endpoint("/bff/callback", ("GET", "POST"), page=True),
    Endpoint("/bff/user", ("GET",), Proof.HEADER, session=True),
    Endpoint(EVENTS, ("GET",), Proof.STREAM, session=True),
    Endpoint("/bff/logout", ("GET", "POST"), Proof.FORM, page=True, session=True),
    Endpoint("/bff/backchannel", ("POST",)),
    Endpoint("/bff/sessions", ("GET", "DELETE"), Proof.HEADER, session=True),
    Endpoint("/bff/sessions", ("DELETE",), Proof.HEADER, session=True, item=True),
)
SITE = (
    Endpoint("/", ("GET", "HEAD"), page=True, site=True),
    Endpoint("/static", ("GET", "HEAD"), below=True, site=True),
)
"""With a single-page app these stand in their places; `ANY_FILE` is for what nothing else answers."""
ANY_FILE = Endpoint("/", ("GET", "HEAD"), below=True, site=True)
_ENCODED_SLASH = re.compile(rb"%2[fF]")
KNOWN, KNOWN_LENGTH = 1024, 256
"""So many paths, of so many bytes at most, need not be judged again: the same bytes, the same verdict. Both
are bounded, as anybody may ask for any path."""
_NO_FILES = ("/bff", "/health")


class RouteTable:
    """All endpoints and routes of one configuration."""

    def __init__(self, routes: Iterable[Route], *, site: bool = False) -> None:
        """`site` says whether there is a single-page app."""
        endpoints: dict[str, Endpoint] = {
            _place(endpoint): endpoint for endpoint in (*ENDPOINTS, *(SITE if site else ()))
        }
        self._routes = sorted(routes, key=lambda route: len(route.path), reverse=True)
        self._exact = {path: endpoint for path, endpoint in endpoints.items() if not endpoint.below}
        self._below = [endpoint for endpoint in endpoints.values() if endpoint.below]
        self._fallback = ANY_FILE if site else None
        self._encoded_slashes = any(route.encoded_slashes for route in self._routes)
        self._known = lru_cache(KNOWN)(self._resolve)

    @property
    def paths(self) -> list[str]:
        """The paths of all routes."""
        return [route.path for route in self._routes]

    def resolve(self, raw: bytes) -> tuple[str, Endpoint | Route | None]:
        """The canonical form of a raw path, and what answers it. Raises BadRequest."""
        return self._known(raw) if len(raw) <= KNOWN_LENGTH else self._resolve(raw)

    def _resolve(self, raw: bytes) -> tuple[str, Endpoint | Route | None]:
        if self._encoded_slashes and b"%2f" in raw.lower():
            return self._resolve_slashes(raw)
        path = canonical(raw)
        return path, self.find(path)

    def _resolve_slashes(self, raw: bytes) -> tuple[str, Route]:
        """A path with encoded slashes, for a route that passes them on. Whoever decodes them must not find
        himself elsewhere: the path has to be in order, and of the same route, with plain slashes as well."""
        path = canonical(raw, encoded_slashes=True)
        route = self.find(path)
        plain = canonical(_ENCODED_SLASH.sub(b"/", raw))
        if not isinstance(route, Route) or not route.encoded_slashes or self.find(plain) is not route:
            raise BadRequest("The path has an encoded slash, which servers read in different ways.")
        return path, route

    def find(self, path: str) -> Endpoint | Route | None:
        """What answers a canonical path; the longest match wins."""
        parent, _, name = path.rpartition("/")
        endpoint = self._exact.get(path) or (self._exact.get(parent + "/*") if name else None)
        if endpoint is not None:
            return endpoint
        for route in self._routes:
            if _covers(route.path, path):
                return route
        for endpoint in self._below:
            if _covers(endpoint.path, path):
                return endpoint
        if any(_covers(ours, path) for ours in _NO_FILES):
            return None  # a mistyped address of ours must not look like a page
        return self._fallback


def _place(endpoint: Endpoint) -> str:
    return endpoint.path + "/*" if endpoint.item else endpoint.path


def _covers(prefix: str, path: str) -> bool:
    """Whether `path` is `prefix` or lies below it at a segment boundary."""
    return path.startswith(prefix) and path[len(prefix) : len(prefix) + 1] in ("", "/")


def allow(entry: Endpoint | Route | None, method: str) -> Endpoint | Route:
    """The entry, unless there is none (RouteNotFound) or it does not name the method (MethodNotAllowed);
    OPTIONS is no exception."""
    if entry is None or (entry is ANY_FILE and method not in entry.methods):
        raise RouteNotFound("No page and no route has this address.")
    if method not in entry.methods:
        raise MethodNotAllowed(entry.methods)
    return entry


def build(settings: Settings) -> RouteTable:
    """The table that `settings` asks for."""
    wanted = list(settings.routes)
    if settings.api_url is not None:
        wanted.append(
            RouteSettings(path=WEATHER, upstream=settings.api_url, upstream_ca_file=settings.api_ca_file)
        )
    return RouteTable((_route(route, settings) for route in wanted), site=settings.static_dir is not None)


def _route(route: RouteSettings, settings: Settings) -> Route:
    return Route(
        path=route.path,
        upstream=route.upstream,
        methods=route.methods,
        token=route.token,
        proof=Proof.STREAM if route.stream else Proof(route.csrf),
        timeout=route.timeout_seconds or settings.upstream_timeout_seconds,
        response_headers=frozenset(name.lower().encode() for name in route.response_headers),
        anonymous=route.anonymous,
        scope=route.scope,
        resource=route.resource,
        max_age=route.max_age,
        stream=route.stream,
        request_headers=frozenset(name.lower().encode() for name in route.request_headers),
        encoded_slashes=route.encoded_slashes,
        tls=TLSFiles(route.upstream_ca_file, route.upstream_cert_file, route.upstream_key_file),
    )
