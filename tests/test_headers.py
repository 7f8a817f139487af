"""Headers pass by allow-list alone, in both directions, whatever they are named and nominated."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bff.headers import HeaderRules
from bff.request import Headers
from tests.fakes import head

ORIGIN = (b"https", b"app.example.com")


def rules(up: frozenset[bytes] = frozenset(), back: frozenset[bytes] = frozenset()) -> HeaderRules:
    return HeaderRules(host=b"api:5001", origin=ORIGIN, up=up, back=back)


def passed(
    *headers: tuple[str, str], token: str | None = "T", extra: frozenset[bytes] = frozenset()
) -> Headers:
    """What the upstream gets for these request headers, on a route that passes `extra`, too."""
    return rules(up=extra).upstream(head(*headers), "203.0.113.7", token)


def response_headers(upstream: Headers, extra: frozenset[bytes]) -> Headers:
    """What the browser gets of these headers, on a route that passes `extra`, too."""
    return rules(back=extra).back(upstream)


ADDED = {
    b"host": b"api:5001",
    b"x-forwarded-for": b"203.0.113.7",
    b"x-forwarded-proto": b"https",
    b"x-forwarded-host": b"app.example.com",
    b"x-forwarded-prefix": b"/",
    b"authorization": b"Bearer T",
}


def test_ours_are_added_once_and_last() -> None:
    """Host, the forwarded family, the request id and the token come from us and nobody else."""
    headers = passed(("Accept", "text/html"))
    assert headers[0] == (b"accept", b"text/html")
    ours = dict(headers[1:])
    assert len(ours.pop(b"x-request-id")) == 32
    assert re.fullmatch(rb"00-[0-9a-f]{32}-[0-9a-f]{16}-00", ours.pop(b"traceparent"))
    assert ours == ADDED


def test_without_a_token_there_is_no_authorization() -> None:
    """A route that sends no token drops the browser's own Authorization all the same."""
    headers = dict(passed(("Authorization", "Bearer stolen"), token=None))
    assert b"authorization" not in headers


SMUGGLED = [
    "Cookie",
    "Authorization",
    "Proxy-Authorization",
    "Host",
    "Forwarded",
    "X-Forwarded-For",
    "X-Forwarded-Host",
    "X-Forwarded-Proto",
    "X-Forwarded-Port",
    "X-Forwarded-User",
    "X-Forwarded-Uri",
    "X_Forwarded_User",
    "X-Auth_Request_User",
    "X-Auth-Request-Email",
    "X-Original-Url",
    "X-Original-URI",
    "X-Rewrite-Url",
    "X-Real-Ip",
    "True-Client-Ip",
    "Content_Length",
    "Content_Type",
    "X-HTTP-Method-Override",
    "X-CSRF",
    "Origin",
    "Referer",
    "Sec-Fetch-Site",
    "Connection",
    "Keep-Alive",
    "Proxy-Connection",
    "TE",
    "Trailer",
    "Transfer-Encoding",
    "Upgrade",
    "Expect",
    "HTTP2-Settings",
    "Access-Control-Request-Method",
    "Accept ",
    " Accept",
    "Accept\x00",
    "Accept\u00a0",
    "",
]


@pytest.mark.parametrize("name", SMUGGLED, ids=ascii)
def test_what_no_list_names_does_not_pass_upstream(name: str) -> None:
    """Identity, routing and hop-by-hop headers of the browser stay here, underscored twins too."""
    values = [value for _, value in passed((name, "smuggled"), (name, "smuggled again"))]
    assert not any(b"smuggled" in value for value in values)


@pytest.mark.parametrize(
    "connection",
    [
        ["X-Forwarded-Host"],
        ["close, Authorization"],
        ["host"],
        ["X-Request-Id,x-forwarded-for"],
        ["\tAUTHORIZATION "],
    ],
)
def test_connection_cannot_nominate_ours_away(connection: list[str]) -> None:
    """`Connection: Authorization` would have other proxies drop what they had just added."""
    headers = dict(passed(*[("Connection", value) for value in connection]))
    assert ADDED.items() <= headers.items()
    assert b"x-request-id" in headers


def test_what_connection_nominates_is_for_this_hop_only() -> None:
    """RFC 9110 §7.6.1, over several headers and in any case; but a body keeps its length."""
    headers = dict(
        passed(
            ("Connection", "close, Accept-Language"),
            ("Connection", " PREFER ,content-length"),
            ("Accept-Language", "de"),
            ("Prefer", "x"),
            ("Accept", "text/html"),
            ("Content-Length", "3"),
        )
    )
    assert b"accept-language" not in headers
    assert b"prefer" not in headers
    assert headers[b"accept"] == b"text/html"
    assert headers[b"content-length"] == b"3"


@pytest.mark.parametrize(
    ("given_id", "kept"),
    [
        ("0123456789abcdef", True),
        ("01J-Z_x.", True),
        ("a" * 128, True),
        ("a" * 129, False),
        ("short", False),
        ("", False),
        ("with blank 12", False),
        ("line\nfeed123", False),
        ("12345678\n", False),
        ("<script>alert", False),
        ("üüüüüüüü", False),
    ],
)
def test_a_request_id_is_kept_where_it_is_harmless(given_id: str, kept: bool) -> None:
    """It goes into logs and upstream: letters, digits, dot, dash, underscore, or a new one."""
    found = head(("X-Request-Id", given_id)).request_id
    assert (found == given_id.encode("latin-1")) is kept
    assert found.isascii()
    assert 8 <= len(found) <= 128


def test_a_doubled_request_id_is_replaced() -> None:
    """Of two ids none is taken, and one goes upstream."""
    headers = passed(("X-Request-Id", "a" * 16), ("X-Request-Id", "b" * 16))
    ids = [value for name, value in headers if name == b"x-request-id"]
    assert len(ids) == 1
    assert ids[0] not in (b"a" * 16, b"b" * 16)


BACK = [
    "content-type content-length content-encoding content-language content-disposition content-range",
    "content-location cache-control etag last-modified expires age vary accept-ranges retry-after location",
    "link allow date www-authenticate deprecation sunset ratelimit ratelimit-policy ratelimit-limit",
    "x-ratelimit-remaining x-total-count x-request-id",
]


@pytest.mark.parametrize("name", " ".join(BACK).split())
def test_documented_headers_come_back(name: str) -> None:
    """What the reference promises passes as it is, doubled ones doubled."""
    both: Headers = [(name.encode(), b"1"), (name.encode(), b"2"), (b"cache-control", b"private")]
    assert response_headers(both, frozenset()) == both


NEVER = [
    "set-cookie",
    "set-cookie2",
    "server",
    "service-worker-allowed",
    "clear-site-data",
    "refresh",
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "access-control-allow-origin",
    "access-control-allow-credentials",
    "access-control-expose-headers",
]


@pytest.mark.parametrize("name", NEVER)
@pytest.mark.parametrize("wanted", [False, True])
def test_no_route_lets_these_back(name: str, wanted: bool) -> None:
    """They would act with this origin's authority: not even `response_headers` of a route helps."""
    extra = frozenset({name.encode()} if wanted else ())
    assert response_headers([(name.encode(), b"x")], extra) == [(b"cache-control", b"no-store")]


@pytest.mark.parametrize(
    "name", ["x-powered-by", "x-internal", "content-security-policy", "alt-svc", "x_total_count"]
)
def test_other_headers_come_back_where_the_route_says_so(name: str) -> None:
    """Dropped by default, passed where the route names them."""
    pair = (name.encode(), b"x")
    assert pair not in response_headers([pair], frozenset())
    assert pair in response_headers([pair], frozenset({name.encode()}))


def test_what_the_upstreams_connection_nominates_stays_here() -> None:
    """RFC 9110 §7.6.1 holds for answers too."""
    upstream = [(b"connection", b"close, X-Total-Count"), (b"x-total-count", b"7"), (b"etag", b"e")]
    assert response_headers(upstream, frozenset()) == [(b"etag", b"e"), (b"cache-control", b"no-store")]


def test_an_answer_that_says_nothing_about_caching_is_not_stored() -> None:
    """A proxied answer belongs to one user: silence means no-store, words are respected."""
    assert response_headers([], frozenset()) == [(b"cache-control", b"no-store")]
    empty = [(b"cache-control", b"")]
    assert response_headers(empty, frozenset()) == [*empty, (b"cache-control", b"no-store")]
    said = [(b"cache-control", b"max-age=60")]
    assert response_headers(said, frozenset()) == said


NAMES = st.one_of(
    st.sampled_from([name.lower() for name in SMUGGLED + NEVER]),
    st.sampled_from(["accept", "content-type", "content-length", "x-request-id", "connection", "etag"]),
    st.text("abcx-_ \t\x00", max_size=12),
)
HEADERS = st.lists(st.tuples(NAMES, st.sampled_from(["authorization", "etag, host", "x", ""])), max_size=12)
FORBIDDEN_UP = {name.lower().encode("latin-1") for name in SMUGGLED} - set(ADDED)
FORBIDDEN_BACK = {name.encode() for name in NEVER}


@given(HEADERS)
def test_no_forbidden_header_ever_passes_upstream(headers: list[tuple[str, str]]) -> None:
    """Any mixture of names and nominations: ours exactly once, and none of the forbidden."""
    found = passed(*headers)
    names = [name for name, _ in found]
    assert not FORBIDDEN_UP & set(names)
    for name, value in ADDED.items():
        assert [v for n, v in found if n == name] == [value]
    assert names.count(b"x-request-id") == 1


@given(HEADERS, st.frozensets(NAMES))
def test_no_forbidden_header_ever_comes_back(headers: list[tuple[str, str]], extra: frozenset[str]) -> None:
    """Any answer under any route: none of the forbidden, and always a word about caching."""
    upstream = [(name.encode("latin-1"), value.encode()) for name, value in headers]
    found = response_headers(upstream, frozenset(name.encode("latin-1") for name in extra))
    assert not FORBIDDEN_BACK & {name for name, _ in found}
    assert any(name == b"cache-control" for name, _ in found)


TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_a_trace_is_named_like_its_request() -> None:
    """A new trace has the request's id, which log and error tell as well; one of the caller's only if it can
    be the name of a trace."""
    found = dict(passed())
    assert found[b"traceparent"].split(b"-")[1] == found[b"x-request-id"]
    named = dict(passed(("X-Request-Id", "0af7651916cd43dd8448eb211c80319c")))
    assert named[b"traceparent"].startswith(b"00-0af7651916cd43dd8448eb211c80319c-")
    for other in ("0" * 32, "A" * 32, "of-the-caller", "a" * 33):
        found = dict(passed(("X-Request-Id", other)))
        assert found[b"x-request-id"] == other.encode()
        assert re.fullmatch(rb"00-(?!0{32})[0-9a-f]{32}-[0-9a-f]{16}-00", found[b"traceparent"])


def test_a_trace_goes_on() -> None:
    """A caller's place in a trace passes with its state; each comes once."""
    headers = passed(("Traceparent", TRACE), ("Tracestate", "a=1"), ("Tracestate", "b=2"))
    assert [value for name, value in headers if name == b"traceparent"] == [TRACE.encode()]
    assert [value for name, value in headers if name == b"tracestate"] == [b"a=1,b=2"]


@pytest.mark.parametrize(
    "given",
    [
        "",
        "junk",
        TRACE.upper(),
        TRACE + "-00",
        TRACE.replace("00-", "ff-", 1),
        TRACE.replace("00-", "01-", 1),
        f"00-{'0' * 32}-b7ad6b7169203331-01",
        f"00-0af7651916cd43dd8448eb211c80319c-{'0' * 16}-01",
        TRACE + "\n",
    ],
)
def test_what_is_no_trace(given: str) -> None:
    """Anything else begins a new trace, and its state is dropped."""
    headers = passed(("Traceparent", given), ("Tracestate", "a=1"))
    (trace,) = [value for name, value in headers if name == b"traceparent"]
    assert re.fullmatch(rb"00-[0-9a-f]{32}-[0-9a-f]{16}-00", trace)
    assert not any(name == b"tracestate" for name, _ in headers)


def test_two_traces_or_a_long_state() -> None:
    """Two of them are none, and what a trace carries along is bounded."""
    twice = passed(("Traceparent", TRACE), ("Traceparent", TRACE))
    assert (b"traceparent", TRACE.encode()) not in twice
    assert not any(
        name == b"tracestate" for name, _ in passed(("Traceparent", TRACE), ("Tracestate", "a=" + "x" * 600))
    )


def test_headers_that_a_route_adds() -> None:
    """A route's `request_headers` pass besides the usual ones, unless `Connection` nominates them."""
    extra = frozenset({b"x-tenant"})
    assert (b"x-tenant", b"7") in passed(("X-Tenant", "7"), ("X-Other", "8"), extra=extra)
    assert b"x-tenant" not in dict(passed(("X-Tenant", "7"), ("Connection", "x-tenant"), extra=extra))
