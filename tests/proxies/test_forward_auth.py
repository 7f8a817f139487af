"""Forward-auth with the proxies that it is for: what the browser gets, and what the API sees."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from benchmarks.proxy.programs import free_port
from tests.proxies.front import NAMES, Ports, front, program_of, require, write
from tests.support.browser import CSRF, Browser
from tests.support.stack import Stack, running, store
from tests.support.upstream import ScriptedUpstream, ok, scripted_upstream
from tests.support.wire import Answer, exchange

pytestmark = pytest.mark.e2e

TOML = """
[[routes]]
path = "/api/orders"
upstream = "UPSTREAM"
methods = ["GET", "POST"]

[[routes]]
path = "/api/pictures"
upstream = "UPSTREAM"
csrf = "fetch-metadata"

[[routes]]
path = "/api/public"
upstream = "UPSTREAM"
token = "none"
anonymous = true
"""


@dataclass
class Site:
    """A proxy in front of a BFF and an API."""

    name: str
    stack: Stack
    api: ScriptedUpstream
    port: int

    def browser(self, *, signed_in: bool = True) -> Browser:
        found = Browser(self.port, self.stack.origin)
        if signed_in:
            found.cookies["bff"] = self.stack.plant()
        return found


@contextmanager
def site(name: str) -> Iterator[Site]:
    """A site with that proxy for the length of a block."""
    port, asked_at = free_port(), free_port()
    with (
        store() as own_store,
        scripted_upstream() as api,
        running(
            own_store,
            toml=TOML,
            public_url=f"http://localhost:{port}",
            forward_auth_bind=f"127.0.0.1:{asked_at}",
            trusted_proxies="127.0.0.1/32",
        ) as stack,
        front(name, Ports(port, stack.port, asked_at, api.port)),
    ):
        yield Site(name, stack, api, port)


HERE = [name for name in NAMES if name == "nginx" or program_of(name)]
"""nginx must be there; of the others, those that are."""


@pytest.fixture(scope="module", params=HERE)
def shared(request: pytest.FixtureRequest) -> Iterator[Site]:
    with site(request.param) as found:
        yield found


@pytest.fixture
def found(shared: Site) -> Site:
    shared.api.reset()
    return shared


def problem(answer: Answer, status: int, code: str) -> None:
    """The refusal has reached the browser in the BFF's own words."""
    assert (answer.status, answer.code, answer.json()["status"]) == (status, code, status)
    assert answer.get("cache-control") == "no-store"
    assert answer.all("authorization") == []


@pytest.mark.parametrize("name", NAMES)
def test_configuration(name: str, tmp_path: Path) -> None:
    """Each configuration has the lines that the tests change, and its proxy is here to run it."""
    write(name, tmp_path, Ports(1, 2, 3, 4))
    require(name)


def test_signed_in(found: Site) -> None:
    """The API is asked with the token, without the cookie, under the same address; the browser gets the
    API's answer and not the token."""
    browser = found.browser()
    found.api.answers(ok(b"orders", b"content-type: text/plain", b"x-total-count: 7"))
    answer = browser.api("/api/orders/1?a=b&c=%20d")
    assert (answer.status, answer.body, answer.get("x-total-count")) == (200, b"orders", "7")
    (asked,) = found.api.requests
    seen = {name for name, _ in asked.headers}
    assert (asked.method, asked.target) == ("GET", "/api/orders/1?a=b&c=%20d")
    assert asked.all("authorization") == ["Bearer planted"]
    assert not seen & {"cookie", "x-csrf", "x-original-uri", "x-original-method", "x-problem", "x-login-url"}
    assert "planted" not in repr(answer)


def test_a_whole_sign_in(found: Site) -> None:
    """Signing in works through the proxy, and no answer that the browser gets has the token in it."""
    browser = found.stack.sign_in(found.browser(signed_in=False))
    assert browser.api("/bff/user").status == 200
    assert browser.api("/api/orders").status == 200
    (asked,) = found.api.requests
    token = asked.get("authorization").removeprefix("Bearer ")
    assert len(token) > 8
    assert all(token not in repr(answer) for answer in browser.transcript)


def test_signed_out(found: Site) -> None:
    """401 with the way to sign in; the API hears nothing."""
    answer = found.browser(signed_in=False).api("/api/orders")
    problem(answer, 401, "not_signed_in")
    assert answer.json()["login_url"] == "/bff/login"
    assert found.api.requests == []


@pytest.mark.parametrize(
    "headers",
    [
        {},
        CSRF | {"Origin": "http://evil.example"},
        CSRF | {"Sec-Fetch-Site": "cross-site"},
        CSRF | {"Origin": "null"},
    ],
)
def test_another_site(found: Site, headers: dict[str, str]) -> None:
    """What another site may have caused gets 403; the API hears nothing."""
    for method in ("GET", "POST"):
        problem(found.browser().request(method, "/api/orders", headers), 403, "csrf_required")
    assert found.api.requests == []


def test_no_route(found: Site) -> None:
    """What no route names is 404, also for who is signed in."""
    for path in ("/api", "/api/", "/api/nothing", "/api/ordersx"):
        problem(found.browser().api(path), 404, "route_not_found")
    assert found.api.requests == []


def test_another_method(found: Site) -> None:
    """A method that the route does not name is 405 with Allow: the proxy tells the real one."""
    for method in ("PUT", "DELETE", "OPTIONS"):
        answer = found.browser().request(method, "/api/orders", CSRF)
        problem(answer, 405, "method_not_allowed")
        assert answer.get("allow") == "GET, POST"
    assert found.api.requests == []


@pytest.mark.parametrize(
    "target",
    [
        "/api/public/../orders",
        "/api/public/..%2forders",
        "/api/public/%2e%2e/orders",
        "/api//orders",
        "/api/orders%00",
    ]
    + ["/api/public%5c..%5corders", "/api/public/..;/orders", "/api/public/%252e%252e/orders"],
)
def test_paths_that_can_be_read_in_two_ways(found: Site, target: str) -> None:
    """Whoever is signed out gets nowhere by them: what is judged is what would be sent."""
    answer = found.browser(signed_in=False).api(target)
    assert 300 < answer.status < 500
    assert found.api.requests == []


SPOOFED: list[dict[str, str]] = [
    {"X-Original-URI": "/api/public"},
    {"X-Original-URI": "/api/public", "X-Original-Method": "GET"},
    {"X-Forwarded-Uri": "/api/public"},
    {"X-Forwarded-Uri": "/api/public", "X-Forwarded-Method": "GET"},
    {"X-Original-URI": "/api/public", "X-Forwarded-Uri": "/api/public"},
    {"X-Forwarded-For": "127.0.0.1", "X-Forwarded-Host": "evil.example"},
    {"X_Original_URI": "/api/public", "X_Forwarded_Uri": "/api/public"},
    {"Authorization": "Bearer mine"},
    {"Connection": "close, X-Original-URI, X-Forwarded-Uri, Cookie, Origin"},
    {"User-Agent": "kube-probe/1.30"},
]


@pytest.mark.parametrize("headers", SPOOFED)
def test_spoofed_headers(found: Site, headers: dict[str, str]) -> None:
    """Headers that a proxy would send open nothing where they come from the browser."""
    answer = found.browser(signed_in=False).request("GET", "/api/orders", CSRF | headers)
    problem(answer, 401, "not_signed_in")
    assert found.api.requests == []


@pytest.mark.parametrize(
    "headers", [SPOOFED[3], {"X-Original-URI": "/api/orders", "X-Original-Method": "GET"}]
)
def test_spoofed_headers_do_not_disturb(found: Site, headers: dict[str, str]) -> None:
    """They are dropped, not obeyed, also for who is signed in."""
    assert found.browser().request("POST", "/api/orders", CSRF | headers, b"x").status == 200
    problem(found.browser().request("PUT", "/api/orders", CSRF | headers), 405, "method_not_allowed")
    (asked,) = found.api.requests
    assert (asked.method, asked.target) == ("POST", "/api/orders")


OBEYED = [
    "X-Original-URI",
    "X-Original-Method",
    "X-Original-URL",
    "X-Rewrite-URL",
    "X-Forwarded-Uri",
    "X-Forwarded-Method",
    "X-Forwarded-Prefix",
    "X-HTTP-Method",
    "X-HTTP-Method-Override",
    "X-Method-Override",
]


@pytest.mark.parametrize("name", OBEYED)
def test_what_an_api_might_obey(found: Site, name: str) -> None:
    """No header names another address or method to the API than was judged."""
    value = "DELETE" if "Method" in name else "/api/admin"
    assert found.browser().request("GET", "/api/orders", CSRF | {name: value}).status == 200
    (asked,) = found.api.requests
    assert asked.all(name.lower()) == []


@pytest.mark.parametrize("name", ["X_HTTP_Method_Override", "X_Forwarded_For", "x_original_url"])
def test_names_with_underscores(found: Site, name: str) -> None:
    """To CGI and WSGI they are those with hyphens. They do not reach the API; through Traefik some do."""
    assert found.browser().request("GET", "/api/orders", CSRF | {name: "DELETE"}).status == 200
    (asked,) = found.api.requests
    passed = found.name == "traefik" and name != "X_Forwarded_For"
    assert asked.all(name.lower()) == (["DELETE"] if passed else [])


def test_no_other_protocol(found: Site) -> None:
    """Nobody can change over to HTTP/2 with the API, where the BFF would not be asked about requests."""
    headers = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "AAMAAABk"}
    assert found.browser().request("GET", "/api/orders", CSRF | headers).status == 200
    (asked,) = found.api.requests
    assert asked.all("upgrade") == []


def test_no_token_for_a_route_without_one(found: Site) -> None:
    """Where the BFF gives no token the API gets none, also none of the browser's own."""
    answer = found.browser().request("GET", "/api/public", CSRF | {"Authorization": "Bearer mine"})
    assert answer.status == 200
    (asked,) = found.api.requests
    assert asked.all("authorization") == asked.all("cookie") == []


@pytest.mark.parametrize("size", [0, 1, 100_000, 3_000_000])
def test_bodies(found: Site, size: int) -> None:
    """A body reaches the API whole, though the question to the BFF went without it."""
    body = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    answer = found.browser().request("POST", "/api/orders", CSRF, body)
    assert answer.status == 200
    (asked,) = found.api.requests
    assert asked.body == body


def test_a_body_in_chunks(found: Site) -> None:
    """So does one whose length nobody knows beforehand."""
    cookie = f"bff={found.stack.plant()}"
    head = f"POST /api/orders HTTP/1.1\r\nHost: localhost:{found.port}\r\nX-CSRF: 1\r\nCookie: {cookie}\r\n"
    pieces = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in (b"a" * 10, b"b" * 70_000, b"c"))
    data = head.encode() + b"Transfer-Encoding: chunked\r\n\r\n" + pieces + b"0\r\n\r\n"
    assert exchange(found.port, data).status == 200
    (asked,) = found.api.requests
    assert asked.body == b"a" * 10 + b"b" * 70_000 + b"c"


def test_a_refused_body(found: Site) -> None:
    """A request that is refused gets its answer, and nothing of its body goes anywhere."""
    answer = found.browser(signed_in=False).request("POST", "/api/orders", CSRF, b"x" * 50_000)
    problem(answer, 401, "not_signed_in")
    assert found.api.requests == []


def test_a_person_is_sent_to_sign_in(found: Site) -> None:
    """nginx and Caddy send a navigation to sign in and back; a script is told by the document."""
    browser = found.browser(signed_in=False)
    headers = {"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "navigate"}
    answer = browser.get("/api/pictures/1?a=b&prompt=none", headers)
    if found.name in ("nginx", "caddy"):
        url = "/bff/login?returnUrl=%2Fapi%2Fpictures%2F1%3Fa%3Db%26prompt%3Dnone"
        assert (answer.status, answer.get("location")) == (302, url)
        assert browser.get(url).status == 302
    else:
        problem(answer, 401, "not_signed_in")
    headers["Sec-Fetch-Mode"] = "cors"
    problem(browser.get("/api/pictures/1", headers), 401, "not_signed_in")
    headers["Sec-Fetch-Mode"] = "navigate"
    problem(browser.request("POST", "/api/orders", CSRF | headers), 401, "not_signed_in")
    assert found.api.requests == []


@pytest.mark.parametrize("path", ["/_forward_auth", "/bff/forward-auth", "/bff/forward-auth/api/orders"])
def test_nobody_outside_can_ask(found: Site, path: str) -> None:
    """The address that gives tokens away cannot be reached through the proxy."""
    told = {"X-Original-URI": "/api/orders", "X-Original-Method": "GET"}
    answer = found.browser().request("GET", path, CSRF | told)
    assert answer.status == 404
    assert "planted" not in repr(answer)
    if (found.name, path) == ("nginx", "/_forward_auth"):
        assert answer.get("content-type") == "text/html", "the BFF is not even asked"


def test_an_api_that_leads_to_the_question(found: Site) -> None:
    """An API cannot have the proxy itself ask, and show the answer with the token to the browser."""
    found.api.answers(ok(b"x", b"x-accel-redirect: /_forward_auth", b"x-sendfile: /etc/hostname"))
    answer = found.browser().api("/api/orders")
    assert (answer.status, answer.body) == (200, b"x")
    assert "planted" not in repr(answer)


def test_what_an_api_must_not_set(found: Site) -> None:
    """Headers that would act with this origin's authority stop at the proxy."""
    lines = (
        b"set-cookie: bff=evil",
        b"clear-site-data: *",
        b"service-worker-allowed: /",
        b"refresh: 0;url=//x",
    )
    cors = (b"access-control-allow-origin: *", b"access-control-allow-credentials: true")
    found.api.answers(ok(b"x", *lines, *cors))
    answer = found.browser().api("/api/orders")
    assert answer.status == 200
    forbidden = {line.partition(b":")[0].decode() for line in lines + cors}
    assert not forbidden & {name for name, _ in answer.headers}


def test_what_the_api_itself_refuses(found: Site) -> None:
    """Its own 401, 403 and 500 pass as they are: only the BFF's words mean "sign in"."""
    for status in (b"401 Unauthorized", b"403 Forbidden", b"404 Not Found", b"500 Internal Server Error"):
        found.api.answers(ok(b"api", status=status))
        answer = found.browser().api("/api/orders")
        assert (answer.status, answer.body) == (int(status[:3]), b"api")


def test_the_store_is_down(found: Site) -> None:
    """503, mostly with Retry-After and in the BFF's words, and the API hears nothing."""
    browser = found.browser()
    found.stack.store.stop()
    try:
        answer = browser.api("/api/orders")
    finally:
        found.stack.store.start()
    assert found.api.requests == []
    if found.name == "envoy":  # passes on the status alone
        assert (answer.status, answer.body) == (503, b"")
    else:
        problem(answer, 503, "store_unavailable")
        assert int(answer.get("retry-after")) > 0


@pytest.mark.parametrize("name", HERE)
def test_the_bff_is_down(name: str) -> None:
    """Nobody there to ask: nothing reaches the API."""
    with scripted_upstream() as api:
        ports = Ports(free_port(), free_port(), free_port(), api.port)
        with front(name, ports):
            answer = Browser(ports.front, f"http://localhost:{ports.front}").api("/api/orders")
            assert answer.status in (500, 502, 503)
            assert api.requests == []
