"""The route table: one canonical path decides and is sent; what could be read in two ways is refused."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bff import settings as bff_settings
from bff.errors import BadRequest, MethodNotAllowed, RouteNotFound
from bff.guard import Proof
from bff.routes import ENDPOINTS, Endpoint, Route, RouteTable, allow, build, canonical, check_query
from bff.settings import RouteSettings, Settings, SettingsError
from tests.fakes import KEY


@pytest.mark.parametrize(
    ("path", "form"),
    [
        (b"/", "/"),
        (b"/weather", "/weather"),
        (b"/weather/", "/weather/"),
        (b"/a/b.c/~d_e-f", "/a/b.c/~d_e-f"),
        (b"/.well-known/x", "/.well-known/x"),
        (b"/...", "/..."),
        (b"/a..b", "/a..b"),
        (b"/a/..b", "/a/..b"),
        (b"/!$&'()*+,=:@", "/!$&'()*+,=:@"),
        (b"/%77eather", "/weather"),
        (b"/%7Euser", "/~user"),
        (b"/a%2db%5fc", "/a-b_c"),
        (b"/caf%c3%a9", "/caf%C3%A9"),
        (b"/%20", "/%20"),
        (b"/%22%3c%3E", "/%22%3C%3E"),
        (b"/%ff", "/%FF"),
        (b"/.%41", "/.A"),
    ],
)
def test_canonical_forms(path: bytes, form: str) -> None:
    """Escapes of plain characters are undone, the others in upper case (RFC 3986 §6.2.2)."""
    assert canonical(path) == form


REFUSED = [
    b"",
    b"*",
    b"weather",
    b"//",
    b"//weather",
    b"/a//b",
    b"/a//",
    b"/.",
    b"/..",
    b"/./a",
    b"/../a",
    b"/a/.",
    b"/a/..",
    b"/a/./b",
    b"/a/../b",
    b"/%2e",
    b"/%2e%2E/a",
    b"/.%2e/a",
    b"/a/%2e./",
    b"/a;b",
    b"/a;jsessionid=1",
    b"/..;/a",
    b"/a%3bb",
    b"/a%2fb",
    b"/a%2Fb",
    b"/a%5cb",
    b"/a\\b",
    b"/a%23b",
    b"/a#b",
    b"/a?b",
    b"/a%3fb",
    b"/a%25b",
    b"/a%252fb",
    b"/%252e%252e/",
    b"/a%00",
    b"/a%0a",
    b"/a%0d%0aX:y",
    b"/a%09",
    b"/a%1f",
    b"/a%7f",
    b"/a\x00",
    b"/a b",
    b"/a\tb",
    b"/a\nb",
    b"/weather\n",
    b"/a\x7f",
    b"/a\x80",
    "/caf\u00e9".encode(),
    b"/%",
    b"/%2",
    b"/%g0",
    b"/%%41",
    b"/%u0041",
    b"/\xc0\xae\xc0\xae/",
    b'/"',
    b"/<",
    b"/>",
    b"/^",
    b"/`",
    b"/{a}",
    b"/a|b",
    b"/[a]",
    b"http://evil.com/",
]


@pytest.mark.parametrize("path", REFUSED)
def test_paths_that_servers_read_in_different_ways_are_refused(path: bytes) -> None:
    """Encoded slashes, dot and empty segments, parameters, controls: 400, whatever lies behind."""
    with pytest.raises(BadRequest) as caught:
        canonical(path)
    assert caught.value.detail


PATH_PIECES = st.sampled_from(
    [
        b"/",
        b"/",
        b".",
        b"..",
        b"a",
        b"weather",
        b"%2e",
        b"%2E",
        b"%2f",
        b"%41",
        b"%c3",
        b"%",
        b"%25",
        b";",
        b"%3B",
    ]
    + [b"\\", b"?", b"#", b" ", b"\n", b"\x00", b"\xff", b"~", b"-", b"@", b"%7e", b"%00", b"%20"]
)
PATHS = st.one_of(
    st.lists(PATH_PIECES, max_size=10).map(lambda pieces: b"/" + b"".join(pieces)),
    st.binary(max_size=20),
)


@given(PATHS)
def test_the_canonical_form_is_one_form(path: bytes) -> None:
    """It is its own canonical form, plain ASCII, and has no dot, empty or parameter segment."""
    try:
        form = canonical(path)
    except BadRequest:
        return
    assert canonical(form.encode()) == form
    assert form.startswith("/")
    segments = form[1:].split("/")
    assert "" not in segments[:-1]
    for segment in segments:
        plain = re.sub("%2e", ".", segment, flags=re.IGNORECASE)
        assert plain not in (".", "..")
    assert re.fullmatch(r"(?:[A-Za-z0-9\-._~!$&'()*+,=:@/]|%[0-9A-F]{2})*", form)
    assert not re.search("%(2F|5C|23|3F|25|3B|[01].|7F)", form)


@pytest.mark.parametrize("query", [b"", b"a=1&b=2", b"?path=/public", b"%23%2f", b"a;b", b"\\", b"[]"])
def test_a_query_is_sent_as_it_came(query: bytes) -> None:
    """It decides nothing here, so that what is odd in it is the upstream's affair."""
    check_query(query)


@pytest.mark.parametrize("query", [b" ", b"a b", b"a\n", b"a\r\nX: y", b"\x00", b"\x7f", "ü".encode()])
def test_a_query_that_http_does_not_allow_is_refused(query: bytes) -> None:
    """Blanks and controls would end the request line early."""
    with pytest.raises(BadRequest):
        check_query(query)


def route(path: str) -> Route:
    """A route with that path."""
    return Route(path, "http://api", ("GET",), True, Proof.HEADER, 30, frozenset(), False)


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
        ("/health/live", "/health/live"),
    ],
)
def test_the_longest_match_at_a_segment_boundary_wins(path: str, found: str) -> None:
    """`/weather` covers `/weather/x` and not `/weatherman`."""
    assert TABLE.find(path).path == found


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
    with pytest.raises(RouteNotFound):
        TABLE.find(path)


def test_order_in_the_file_does_not_matter() -> None:
    """The longest match wins, wherever it stands."""
    for routes in (["/a", "/a/b", "/a/b/c"], ["/a/b/c", "/a/b", "/a"]):
        assert RouteTable(map(route, routes)).find("/a/b/c/d").path == "/a/b/c"


@pytest.mark.parametrize("method", ["POST", "OPTIONS", "TRACE", "CONNECT", "get", "GET ", ""])
def test_methods_that_a_route_does_not_name_are_refused(method: str) -> None:
    """OPTIONS is no exception, and methods are case-sensitive; the answer names those that there are."""
    with pytest.raises(MethodNotAllowed) as caught:
        allow(route("/a"), method)
    assert caught.value.headers == [("Allow", "GET")]
    allow(route("/a"), "GET")


def test_addresses_that_use_the_session_demand_the_header() -> None:
    """`/bff/user` demands X-CSRF; the sign-out checks for itself, since forms cannot send it."""
    demanding = {endpoint.path: endpoint.proof for endpoint in ENDPOINTS if endpoint.session}
    assert demanding == {"/bff/user": Proof.HEADER, "/bff/logout": Proof.NONE}


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
        user_token=True,
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
        "response_headers": ["X-File-Id"],
        "anonymous": True,
    }
    assert build(settings(routes=routes(table))).find("/files") == Route(
        path="/files",
        upstream="http://up",
        methods=("GET", "DELETE"),
        user_token=False,
        proof=Proof.FETCH_METADATA,
        timeout=3,
        response_headers=frozenset({b"x-file-id"}),
        anonymous=True,
    )


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "files",
        "/files/",
        "//files",
        "/a//b",
        "/a/../b",
        "/a/.",
        "/a?b",
        "/a#b",
        "/a;b",
        "/a b",
        "/a%2fb",
    ]
    + ["/%41", "/caf%c3%a9", "/café", "/a\\b", "/a\n", "/{id}", "http://up/files"]
    + ["/bff", "/bff/x", "/bff/user", "/health", "/health/x", "/static", "/static/x"],
)
def test_a_route_that_could_not_match_or_is_ours_stops_the_start(path: str) -> None:
    """Written otherwise than it is matched, or in our own space, a route would be a quiet surprise."""
    with pytest.raises(SettingsError) as caught:
        build(settings(routes=routes({"path": path})))
    assert "BFF_ROUTES" in str(caught.value)


def test_every_bad_route_is_reported_at_once() -> None:
    """Duplicates too, also one of the built-in route."""
    wanted = routes({"path": "/a/"}, {"path": "/bff/x"}, {"path": "/b"}, {"path": "/b"}, {"path": "/weather"})
    with pytest.raises(SettingsError) as caught:
        build(settings(routes=wanted, api_url="http://api"))
    text = "\n".join(caught.value.problems)
    assert len(caught.value.problems) == 4
    for part in ("/a/", "/bff/x", "/b", "/weather"):
        assert part in text


def test_nested_routes_are_fine() -> None:
    """A route below another is how exceptions are written."""
    table = build(settings(routes=routes({"path": "/a"}, {"path": "/a/b", "methods": ["POST"]})))
    assert table.find("/a/b/c").methods == ("POST",)
    assert table.find("/a/c").methods == ("GET", "HEAD")


def test_the_methods_of_the_settings_are_those_of_http() -> None:
    """TRACE and CONNECT have no place behind a proxy that adds tokens."""
    assert not {"TRACE", "CONNECT"} & set(bff_settings.METHODS)


def test_endpoints_name_their_errors() -> None:
    """Every endpoint says which methods it takes; pages are those that people look at."""
    assert all(endpoint.methods for endpoint in ENDPOINTS)
    assert isinstance(TABLE.find("/bff/login"), Endpoint)
    pages = {endpoint.path for endpoint in ENDPOINTS if endpoint.page}
    assert pages == {"/", "/bff/login", "/bff/callback", "/bff/logout"}
