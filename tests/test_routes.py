"""The route table: which endpoint or route answers a path, and what stops the start."""

from __future__ import annotations

import pytest

from bff import settings as bff_settings
from bff.errors import BadRequest, MethodNotAllowed, RouteNotFound
from bff.guard import Proof
from bff.routes import ENDPOINTS, EVENTS, KNOWN, KNOWN_LENGTH, Endpoint, Route, RouteTable, allow, build
from bff.settings import RouteSettings, Settings
from tests.fakes import KEY


def route(path: str) -> Route:
    """A route with that path."""
    return Route(path, "http://api", ("GET",), "user", Proof.HEADER, 30, frozenset(), False)


TABLE = RouteTable([route("/weather"), route("/weather/admin"), route("/api/v1"), route("/a")])


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/weather", "/weather"),
        ("/weather/", "/weather"),
        ("/weather/today", "/weather"),
        ("/weather/admin", "/weather/admin"),
        ("/weather/admin/x", "/weather/admin"),
        ("/weather/administrator", "/weather"),
        ("/api/v1/x", "/api/v1"),
        ("/a/b", "/a"),
        ("/", "/"),
        ("/static/app.js", "/static"),
        ("/bff/user", "/bff/user"),
        ("/bff/sessions", "/bff/sessions"),
        ("/health/live", "/health/live"),
    ],
)
def test_the_longest_match_at_a_segment_boundary_wins(path: str, found: str) -> None:
    """`/weather` covers `/weather/x` and not `/weatherman`."""
    assert allow(TABLE.find(path), "GET").path == found


@pytest.mark.parametrize(
    "path",
    [
        "/weatherman",
        "/weather-admin",
        "/Weather",
        "/api",
        "/api/",
        "/api/v10",
        "/bff",
        "/bff/",
        "/bff/user/",
        "/x",
    ]
    + ["/bff/nothing", "/health", "/health/live/", "/staticx", "/ab", "/weather%20", "/weather:80"],
)
def test_what_no_route_names_is_not_found(path: str) -> None:
    """Nothing is proxied by default, and our own space has no room for guesses."""
    assert TABLE.find(path) is None
    with pytest.raises(RouteNotFound):
        allow(None, "GET")


def test_order_in_the_file_does_not_matter() -> None:
    """The longest match wins, wherever it stands."""
    for routes in (["/a", "/a/b", "/a/b/c"], ["/a/b/c", "/a/b", "/a"]):
        assert RouteTable(map(route, routes)).find("/a/b/c/d") == route("/a/b/c")


@pytest.mark.parametrize("method", ["POST", "OPTIONS", "TRACE", "CONNECT", "get", "GET ", ""])
def test_methods_that_a_route_does_not_name_are_refused(method: str) -> None:
    """OPTIONS is no exception, and methods are case-sensitive; the answer names those that there are."""
    with pytest.raises(MethodNotAllowed) as caught:
        allow(route("/a"), method)
    assert caught.value.headers == [("Allow", "GET")]
    allow(route("/a"), "GET")


def test_addresses_that_use_the_session_demand_the_header() -> None:
    """All demand X-CSRF, but for what a form or an EventSource asks for, which cannot send it."""
    lax = {endpoint.path for endpoint in ENDPOINTS if endpoint.session and endpoint.proof is not Proof.HEADER}
    assert lax == {"/bff/logout", EVENTS}


def settings(**values: object) -> Settings:
    """Valid settings with routes from the test."""
    base: dict[str, object] = {
        "public_url": "https://app.example.com",
        "oidc_issuer": "https://issuer.example",
        "oidc_client_id": "client",
        "oidc_client_secret": "secret",
        "redis_url": "redis://127.0.0.1",
        "secret_keys": KEY.hex()[:43],
    }
    return Settings(**(base | values))  # type: ignore[arg-type]


def routes(*tables: dict[str, object]) -> tuple[RouteSettings, ...]:
    """Route tables as TOML gives them, to the same upstream."""
    return tuple(RouteSettings.model_validate({"upstream": "http://up"} | table) for table in tables)


def test_the_built_in_route() -> None:
    """`BFF_API_URL` brings `/weather`, read-only, with the user's token."""
    found = build(settings(api_url="http://api:5001", upstream_timeout_seconds=7)).find("/weather/x")
    assert found == Route(
        path="/weather",
        upstream="http://api:5001",
        methods=("GET", "HEAD"),
        token="user",
        proof=Proof.HEADER,
        timeout=7,
        response_headers=frozenset(),
        anonymous=False,
    )


def test_a_route_of_the_file() -> None:
    """Every key of `[[routes]]` reaches the table."""
    table = {
        "path": "/files",
        "methods": ["GET", "DELETE"],
        "token": "none",
        "timeout_seconds": 3,
        "csrf": "fetch-metadata",
        "request_headers": ["X-Tenant"],
        "response_headers": ["X-File-Id"],
        "encoded_slashes": True,
        "anonymous": True,
    }
    assert build(settings(routes=routes(table))).find("/files") == Route(
        path="/files",
        upstream="http://up",
        methods=("GET", "DELETE"),
        token="none",
        proof=Proof.FETCH_METADATA,
        timeout=3,
        response_headers=frozenset({b"x-file-id"}),
        anonymous=True,
        request_headers=frozenset({b"x-tenant"}),
        encoded_slashes=True,
    )


def test_nested_routes_are_fine() -> None:
    """A route below another is how exceptions are written."""
    table = build(settings(routes=routes({"path": "/a"}, {"path": "/a/b", "methods": ["POST"]})))
    assert allow(table.find("/a/b/c"), "POST").path == "/a/b"
    assert allow(table.find("/a/c"), "GET").path == "/a"


def test_the_methods_of_the_settings_are_those_of_http() -> None:
    """TRACE and CONNECT have no place behind a proxy that adds tokens."""
    assert not {"TRACE", "CONNECT"} & set(bff_settings.METHODS)


def test_what_lies_one_segment_below() -> None:
    """`/bff/sessions/<id>` takes DELETE alone; deeper there is nothing."""
    assert allow(TABLE.find("/bff/sessions/x"), "DELETE").path == "/bff/sessions"
    with pytest.raises(MethodNotAllowed) as caught:
        allow(TABLE.find("/bff/sessions/x"), "GET")
    assert caught.value.allow == ("DELETE",)
    assert [TABLE.find(path) for path in ("/bff/sessions/", "/bff/sessions/x/y", "/bff/user/x")] == [None] * 3


def test_endpoints_name_their_errors() -> None:
    """Every endpoint says which methods it takes; pages are those that people look at."""
    assert all(endpoint.methods for endpoint in ENDPOINTS)
    assert isinstance(TABLE.find("/bff/login"), Endpoint)
    pages = {endpoint.path for endpoint in ENDPOINTS if endpoint.page}
    assert pages == {"/", "/bff/login", "/bff/callback", "/bff/logout"}


SLASHES = routes(
    {"path": "/files", "encoded_slashes": True},
    {"path": "/files/admin", "encoded_slashes": True},
    {"path": "/plain"},
)


@pytest.mark.parametrize("raw", [b"/files/a%2Fb", b"/files/a%2fb/c", b"/files/a%2F", b"/files/admin/x%2Fy"])
def test_encoded_slashes_pass_where_a_route_says_so(raw: bytes) -> None:
    """They are sent as they came, to the route that has them."""
    path, route = build(settings(routes=SLASHES)).resolve(raw)
    assert path == raw.decode()
    assert isinstance(route, Route)
    assert route.path == ("/files/admin" if b"admin" in raw else "/files")


@pytest.mark.parametrize(
    "raw",
    [
        b"/plain/a%2Fb",
        b"/unknown/a%2Fb",
        b"/bff%2Fuser",
        b"/files%2Fx",
        b"/files/admin%2Fx",
        b"/files/%2e%2e%2Fbff/user",
        b"/files/a%2F..%2F..%2Fbff",
        b"/files/%2F",
        b"/files/a%2F%2Fb",
        b"/files/a%2F.%2Fb",
        b"/files%2F..%2Fplain",
        b"/files/a%252Fb",
        b"/files/a%5Cb%2Fc",
    ],
)
def test_encoded_slashes_that_could_lead_elsewhere(raw: bytes) -> None:
    """Whoever decodes them must end up on the same route: no dot or empty segments, no other route."""
    with pytest.raises(BadRequest):
        build(settings(routes=SLASHES)).resolve(raw)


def test_what_is_remembered_of_paths_is_bounded() -> None:
    """Anybody can ask for any path: neither many nor long ones stay."""
    table = build(settings(routes=SLASHES))
    for number in range(KNOWN + 50):
        table.resolve(b"/files/%d" % number)
        table.resolve(b"/files/" + b"x" * KNOWN_LENGTH)
    assert table._known.cache_info().currsize == KNOWN
