"""Forward-auth: who may ask, which request is judged, and what is answered."""

from __future__ import annotations

import logging
import signal
import socket
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from benchmarks.proxy.programs import free_port
from bff.connection import Protocol
from bff.errors import BadRequest
from bff.forward_auth import told_request
from bff.request import RequestHead
from bff.worker import Worker
from tests.support.browser import Browser
from tests.support.process import serve_process
from tests.support.stack import Stack, Store, running, store
from tests.support.wire import Answer, exchange, line, until

TOML = """
[[routes]]
path = "/orders"
upstream = "UPSTREAM"
methods = ["GET", "POST"]

[[routes]]
path = "/orders/archive"
upstream = "UPSTREAM"
max_age = 60

[[routes]]
path = "/pictures"
upstream = "UPSTREAM"
csrf = "fetch-metadata"

[[routes]]
path = "/public"
upstream = "UPSTREAM"
token = "none"
anonymous = true

[[routes]]
path = "/either"
upstream = "UPSTREAM"
token = "user_or_client"

[[routes]]
path = "/files"
upstream = "UPSTREAM"
encoded_slashes = true
"""
ASK = "/bff/forward-auth"
PROVED = {"X-CSRF": "1"}


def nginx(uri: str, method: str = "GET") -> dict[str, str]:
    return {"X-Original-URI": uri, "X-Original-Method": method}


def forwarded(uri: str, method: str = "GET") -> dict[str, str]:
    return {"X-Forwarded-Uri": uri, "X-Forwarded-Method": method}


@pytest.fixture(scope="module")
def module_store() -> Iterator[Store]:
    with store() as found:
        yield found


@pytest.fixture(scope="module")
def shared(module_store: Store) -> Iterator[Stack]:
    bind = f"127.0.0.1:{free_port()}"
    with running(module_store, toml=TOML, forward_auth_bind=bind, trusted_proxies="127.0.0.1/32") as stack:
        yield stack


@pytest.fixture
def stack(shared: Stack) -> Stack:
    shared.upstream.reset()
    shared.clock.ahead = 0
    return shared


def asker(stack: Stack, *, signed_in: bool = True) -> Browser:
    """Asks as a proxy does, with what it was sent by a browser."""
    found = Browser(int(str(stack.settings.forward_auth_bind).rpartition(":")[2]), "http://any.example")
    if signed_in:
        found.cookies["bff"] = stack.plant()
    return found


@pytest.fixture
def proxy(stack: Stack) -> Browser:
    return asker(stack)


def assert_allowed(answer: Answer, authorization: str) -> None:
    """A permission: 200, nothing to read, nothing to store, and the token if there is one."""
    assert (answer.status, answer.body) == (200, b"")
    assert answer.get("authorization") == authorization
    assert answer.get("cache-control") == "no-store"


# -- who may ask ------------------------------------------------------------------------------------


def test_nothing_of_it_on_the_public_listener(stack: Stack) -> None:
    """There it would hand the access token to the browser: 404, whatever is asked and however."""
    browser = stack.browser()
    browser.cookies["bff"] = stack.plant()
    for path in (ASK, ASK + "/orders", ASK + "/"):
        for method in ("GET", "POST", "HEAD"):
            answer = browser.request(method, path, PROVED | nginx("/orders"))
            assert (answer.status, answer.all("authorization")) == (404, []), path


@pytest.mark.parametrize(
    "path",
    ["/", "/orders", "/health/live", "/bff/user", "/bff/login", "/bff/forward-authx", "/bff//forward-auth"],
)
def test_nothing_else_on_its_own_listener(proxy: Browser, path: str) -> None:
    """Neither routes nor pages nor health are there."""
    answer = proxy.get(path, PROVED | nginx("/orders"))
    assert (answer.status, answer.code) == (404, "route_not_found")


def test_another_peer(module_store: Store) -> None:
    """Who is no configured proxy gets 403 before anything is looked at, and no header of his changes that."""
    bind = f"127.0.0.1:{free_port()}"
    with running(module_store, toml=TOML, forward_auth_bind=bind, trusted_proxies="10.0.0.0/8") as closed:
        for path in (ASK, ASK + "/orders", "/nothing", ASK + "/.."):
            answer = asker(closed).get(path, PROVED | nginx("/orders") | {"X-Forwarded-For": "10.0.0.1"})
            assert (answer.status, answer.code) == (403, "proxy_not_trusted")
            assert answer.all("authorization") == []


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1:1", "localhost"])
def test_no_rule_for_the_host(proxy: Browser, host: str) -> None:
    """A proxy asks by whatever name it knows us."""
    assert_allowed(proxy.get(ASK, PROVED | nginx("/orders") | {"Host": host}), "Bearer planted")


# -- which request is judged ------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS"])
@pytest.mark.parametrize(
    "told", [nginx("/orders/1?a=b"), forwarded("/orders/1?a=b")], ids=["nginx", "forwarded"]
)
def test_the_request_that_the_proxy_tells_of(proxy: Browser, told: dict[str, str], method: str) -> None:
    """Both families of headers name it; the method of the question itself does not matter."""
    assert_allowed(proxy.request(method, ASK, PROVED | told), "Bearer planted")


def test_a_query_of_the_question_means_nothing(proxy: Browser) -> None:
    """Some proxies leave the request's own query on our address."""
    assert_allowed(
        proxy.get(ASK + "?X-Forwarded-Uri=/public", PROVED | forwarded("/orders")), "Bearer planted"
    )
    assert proxy.get(ASK + "?uri=/orders", PROVED | forwarded("/nothing")).status == 404


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "/orders", {}, 200),
        ("POST", "/orders/1?a=b", {}, 200),
        ("PUT", "/orders", {}, 405),
        ("GET", "/nothing", {}, 404),
        ("GET", "/", {}, 404),
        ("GET", "//orders", {}, 400),
        ("GET", "/../orders", {}, 400),
        ("GET", "/orders", forwarded("/orders"), 200),
        ("GET", "/orders", forwarded("/public"), 400),
        ("GET", "/orders?a", forwarded("/orders"), 400),
        ("GET", "/public", forwarded("/orders"), 400),
        ("GET", "/orders", {"X-Forwarded-Method": "GET"}, 200),
        ("POST", "/orders", {"X-Forwarded-Method": "GET"}, 400),
        ("GET", "/orders", {"X-Original-URI": "/orders"}, 400),
        ("GET", "/orders", {"X-Original-Method": "GET"}, 400),
        ("GET", "/orders", nginx("/orders"), 400),
    ],
)
def test_what_follows_the_path(
    proxy: Browser, method: str, path: str, headers: dict[str, str], status: int
) -> None:
    """Envoy appends the address, and keeps the method; headers that say something else are refused."""
    assert proxy.request(method, ASK + path, PROVED | headers).status == status


SPOOFED: dict[str, list[tuple[str, str]]] = {
    "nothing": [],
    "both families": [*nginx("/orders").items(), *forwarded("/orders").items()],
    "both, the other's address only": [*nginx("/orders").items(), ("X-Forwarded-Uri", "/public")],
    "both, the other's method only": [*forwarded("/orders").items(), ("X-Original-Method", "GET")],
    "both, the other's empty": [*forwarded("/orders").items(), ("X-Original-URI", "")],
    "halves of two": [("X-Original-URI", "/orders"), ("X-Forwarded-Method", "GET")],
    "no method, nginx": [("X-Original-URI", "/orders")],
    "no address, nginx": [("X-Original-Method", "GET")],
    "no method": [("X-Forwarded-Uri", "/orders")],
    "no address": [("X-Forwarded-Method", "GET")],
    "two addresses, nginx": [*nginx("/orders").items(), ("X-Original-URI", "/public")],
    "two addresses": [*forwarded("/orders").items(), ("X-Forwarded-Uri", "/orders")],
    "two methods, nginx": [*nginx("/orders").items(), ("X-Original-Method", "GET")],
    "two methods": [*forwarded("/orders").items(), ("X-Forwarded-Method", "POST")],
    "two addresses in one": [("X-Forwarded-Uri", "/orders, /public"), ("X-Forwarded-Method", "GET")],
    "two methods in one": [("X-Forwarded-Uri", "/orders"), ("X-Forwarded-Method", "GET, POST")],
    "underscores only": [("X_Original_URI", "/orders"), ("X_Original_Method", "GET")],
}


@pytest.mark.parametrize("lines", SPOOFED.values(), ids=SPOOFED)
def test_headers_that_could_be_the_browsers(stack: Stack, lines: list[tuple[str, str]]) -> None:
    """One family, each of its headers once, or 400: a proxy overwrites its own only."""
    port = int(str(stack.settings.forward_auth_bind).rpartition(":")[2])
    fields = [("Host", "x"), ("X-CSRF", "1"), ("Cookie", f"bff={stack.plant()}"), *lines]
    text = f"GET {ASK} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in fields) + "\r\n"
    answer = exchange(port, text.encode())
    assert (answer.status, answer.code, answer.all("authorization")) == (400, "bad_request", [])


ODD = [
    "//orders", "/./orders", "/orders/../orders", "/orders/%2e%2e/public", "/orders/..%2fpublic",
    "/orders%2f1", "/orders%5c1", "/orders\\1", "/orders%00", "/orders#x", "/orders?a#b", "/orders;a=b",
    "/orders%", "/orders%zz",
    "/orders 1", "/orders?a b", "/orders?\x7f", "http://localhost/orders", "orders", "*", "?", "/orders\tx",
    "/files/a%2f..%2f..%2forders", "/%2forders",
]  # fmt: skip


@pytest.mark.parametrize("uri", ODD)
@pytest.mark.parametrize("family", [nginx, forwarded])
def test_addresses_that_can_be_read_in_two_ways(proxy: Browser, family: object, uri: str) -> None:
    """The same canonical path as for proxied requests: what could be another path elsewhere is 400."""
    answer = proxy.get(ASK, PROVED | family(uri))  # type: ignore[operator]
    assert (answer.status, answer.code) == (400, "bad_request")


@pytest.mark.parametrize("method", ["get", "GET POST", "G\xcbT", "", "GET/", "G" * 40])
def test_methods_that_are_none(method: str) -> None:
    """A method is a word in capitals."""
    fields = [(b"x-original-uri", b"/orders"), (b"x-original-method", method.encode("latin-1"))]
    with pytest.raises(BadRequest):
        told_request(RequestHead("GET", ASK.encode(), b"", fields, "127.0.0.1"))


def test_slashes_where_a_route_passes_them(proxy: Browser) -> None:
    """A route's `encoded_slashes` holds here, too."""
    assert_allowed(proxy.get(ASK, PROVED | nginx("/files/a%2Fb")), "Bearer planted")


@pytest.mark.parametrize(
    "uri", ["/", "/bff/user", "/bff/forward-auth", "/health/live", "/static/page.js", "/ordersx"]
)
def test_what_no_route_names(proxy: Browser, uri: str) -> None:
    """Addresses of our own are ours to answer; a token for them, there is none."""
    answer = proxy.get(ASK, PROVED | nginx(uri))
    assert (answer.status, answer.code) == (404, "route_not_found")


# -- the rules of a proxied request -----------------------------------------------------------------

RULES: list[tuple[dict[str, str], dict[str, str], int, str]] = [
    (nginx("/orders", "PUT"), PROVED, 405, "method_not_allowed"),
    (nginx("/orders", "OPTIONS"), PROVED, 405, "method_not_allowed"),
    (nginx("/orders"), {}, 403, "csrf_required"),
    (nginx("/orders"), {"X-CSRF": "0"}, 403, "csrf_required"),
    (nginx("/orders"), PROVED | {"Origin": "http://evil.example"}, 403, "csrf_required"),
    (nginx("/orders"), PROVED | {"Origin": "null"}, 403, "csrf_required"),
    (nginx("/orders"), PROVED | {"Sec-Fetch-Site": "same-site"}, 403, "csrf_required"),
    (nginx("/orders"), PROVED | {"Service-Worker": "script"}, 403, "csrf_required"),
    (nginx("/orders"), PROVED | {"Sec-WebSocket-Key": "x"}, 403, "csrf_required"),
    (nginx("/pictures"), {"Sec-Fetch-Site": "none"}, 403, "csrf_required"),
    (nginx("/public"), {}, 403, "csrf_required"),
    (nginx("/orders"), PROVED | {"Cookie": ""}, 401, "not_signed_in"),
    (nginx("/orders"), PROVED | {"Cookie": "bff=unknown"}, 401, "session_expired"),
    (nginx("/orders"), PROVED | {"Cookie": "bff=a; bff=b"}, 401, "not_signed_in"),
    (nginx("/either"), PROVED | {"Cookie": "bff=unknown"}, 401, "session_expired"),
]  # fmt: skip


@pytest.mark.parametrize(("told", "headers", "status", "code"), RULES)
def test_refusals(
    proxy: Browser, told: dict[str, str], headers: dict[str, str], status: int, code: str
) -> None:
    """The same rules, in the same order, with the same words; the document also in a header."""
    answer = proxy.get(ASK, told | headers)
    assert (answer.status, answer.code) == (status, code)
    assert answer.all("authorization") == []
    assert answer.get("x-problem").encode() == answer.body
    assert answer.get("cache-control") == "no-store"
    if status == 405:
        assert answer.get("allow") == "GET, POST"


@pytest.mark.parametrize(
    ("told", "headers", "authorization"),
    [
        (nginx("/orders", "POST"), PROVED, "Bearer planted"),
        (nginx("/orders"), PROVED | {"Origin": "ORIGIN", "Sec-Fetch-Site": "same-origin"}, "Bearer planted"),
        (nginx("/orders"), PROVED | {"Origin": "ORIGIN", "Sec-WebSocket-Key": "x"}, "Bearer planted"),
        (nginx("/orders"), PROVED | {"Authorization": "Bearer mine"}, "Bearer planted"),
        (nginx("/pictures/1.png"), {"Sec-Fetch-Site": "same-origin"}, "Bearer planted"),
        (nginx("/public"), PROVED, ""),
        (nginx("/public"), PROVED | {"Authorization": "Bearer mine"}, ""),
        (nginx("/either"), PROVED, "Bearer planted"),
    ],
)
def test_permissions(
    stack: Stack, proxy: Browser, told: dict[str, str], headers: dict[str, str], authorization: str
) -> None:
    """Each kind of route gives the token that a proxied request would take along, or none."""
    own = {name: value.replace("ORIGIN", stack.origin) for name, value in headers.items()}
    assert_allowed(proxy.get(ASK, told | own), authorization)


def test_the_clients_own_token(stack: Stack) -> None:
    """Where a route takes anybody, the client's own token goes along for who is not signed in."""
    proxy = asker(stack, signed_in=False)
    answer = proxy.get(ASK, PROVED | nginx("/either"))
    browser = stack.browser()
    browser.api("/either")
    assert answer.status == 200
    assert [answer.get("authorization")] == stack.upstream.requests[0].all("authorization")


def test_a_sign_in_that_is_too_old(stack: Stack, proxy: Browser) -> None:
    """A route's max_age holds, and the way to sign in anew leads back."""
    assert_allowed(proxy.get(ASK, PROVED | nginx("/orders/archive")), "Bearer planted")
    stack.clock.ahead = 120
    answer = proxy.get(ASK, PROVED | nginx("/orders/archive?year=1999&x=/"))
    assert answer.code == "reauthentication_required"
    assert answer.json()["login_url"] == "/bff/login?max_age=60"
    back = "returnUrl=%2Forders%2Farchive%3Fyear%3D1999%26x%3D%2F"
    assert answer.get("x-login-url") == f"/bff/login?max_age=60&{back}"


@pytest.mark.parametrize(
    ("uri", "method", "url"),
    [
        ("/orders?a=b&prompt=none", "GET", "/bff/login?returnUrl=%2Forders%3Fa%3Db%26prompt%3Dnone"),
        ("/orders?" + "x" * 3000, "GET", "/bff/login"),
        ("/orders", "POST", ""),
    ],
)
def test_the_way_to_sign_in(stack: Stack, uri: str, method: str, url: str) -> None:
    """A person can be sent to sign in and comes back; nothing of the address becomes a parameter there."""
    answer = asker(stack, signed_in=False).get(ASK, PROVED | nginx(uri, method))
    assert (answer.status, answer.get("x-login-url")) == (401, url)
    assert answer.json()["login_url"] == "/bff/login"
    if url:
        assert stack.browser().get(url).status == 302


def test_the_session_slides(stack: Stack) -> None:
    """A judged request counts as use of the session, as a proxied one does; a refused one does not."""
    browser, proxy = stack.sign_in(stack.browser()), asker(stack, signed_in=False)
    proxy.cookies = browser.cookies

    def expires_in() -> int:
        claims = browser.api("/bff/user?slide=false").json()
        return next(int(each["value"]) for each in claims if each["type"] == "bff:session_expires_in")

    stack.clock.ahead = 600
    proxy.get(ASK, nginx("/orders"))
    assert expires_in() <= 1200
    assert proxy.get(ASK, PROVED | nginx("/pictures")).status == 200
    assert expires_in() > 1790


def test_a_token_that_must_be_renewed_first(stack: Stack) -> None:
    """A dead token is refreshed before the answer, and the new one is given."""
    browser, proxy = stack.sign_in(stack.browser()), asker(stack, signed_in=False)
    proxy.cookies = browser.cookies
    first = proxy.get(ASK, PROVED | nginx("/orders")).get("authorization")
    stack.clock.ahead = 301
    renewed = proxy.get(ASK, PROVED | nginx("/orders"))
    assert renewed.status == 200
    assert renewed.get("authorization") not in ("", first)


def test_bodies_are_not_needed(proxy: Browser) -> None:
    """A proxy that sends the body along is answered as well, before it has come."""
    told = PROVED | nginx("/orders", "POST")
    assert_allowed(proxy.request("POST", ASK, told, b"x" * 100_000), "Bearer planted")


def test_the_store_is_down() -> None:
    """503 with Retry-After, and not a word about the session; afterwards it works again."""
    bind = f"127.0.0.1:{free_port()}"
    with (
        store() as own,
        running(own, toml=TOML, forward_auth_bind=bind, trusted_proxies="127.0.0.0/8") as stack,
    ):
        proxy = asker(stack)
        own.stop()
        answer = proxy.get(ASK, PROVED | nginx("/orders"))
        assert (answer.status, answer.code) == (503, "store_unavailable")
        assert int(answer.get("retry-after")) > 0
        assert_allowed(proxy.get(ASK, PROVED | nginx("/public")), "")
        own.start()


def test_no_token_in_the_log(stack: Stack, proxy: Browser, caplog: pytest.LogCaptureFixture) -> None:
    """Neither a permission nor a refusal is logged with a token, a cookie or a query."""
    with caplog.at_level(logging.DEBUG):
        proxy.get(ASK, PROVED | nginx("/orders?secret=1"))
        proxy.get(ASK, nginx("/orders?secret=1"))
    for word in ("planted", "secret", proxy.cookies["bff"]):
        assert word not in caplog.text


# -- the production server --------------------------------------------------------------------------


def test_listeners_of_the_production_server(stack: Stack) -> None:
    """With several workers, each listener keeps to its own part, also where the public one is on every
    address; and both end with the process."""
    side = free_port()
    settings = {"forward_auth_bind": f"127.0.0.1:{side}", "trusted_proxies": "127.0.0.1/32", "workers": "2"}
    public = free_port()
    with serve_process(
        stack.provider,
        stack.store.url,
        stack.upstream,
        TOML,
        **settings,
        bind=f"0.0.0.0:{public}",
        public_url=f"http://localhost:{public}",
    ) as process:
        told = "X-CSRF: 1\r\nX-Original-URI: /public\r\nX-Original-Method: GET\r\n\r\n"
        question = f"GET {ASK} HTTP/1.1\r\nHost: localhost:{public}\r\n{told}".encode()
        proxied = f"GET /public HTTP/1.1\r\nHost: localhost:{public}\r\nX-CSRF: 1\r\n\r\n".encode()
        for _ in range(20):  # whichever worker takes it
            assert exchange(side, question).status == 200
            assert exchange(public, question).status == 404
            assert exchange(public, proxied).body == b"/public"
            assert exchange(side, proxied).status == 404
        code, logged = process.stop()
        assert (code, "Traceback" in logged) == (0, False), logged
        with pytest.raises(OSError, match="refused"):
            socket.create_connection(("127.0.0.1", side), 1)


def test_drain(stack: Stack) -> None:
    """On SIGTERM this listener, too, answers for the set time, and says that each answer is the last."""
    side = free_port()
    settings = {"forward_auth_bind": f"127.0.0.1:{side}", "trusted_proxies": "127.0.0.1/32"}
    told = "X-CSRF: 1\r\nX-Original-URI: /public\r\nX-Original-Method: GET\r\n\r\n"
    question = f"GET {ASK} HTTP/1.1\r\nHost: x\r\n{told}".encode()
    with (
        serve_process(
            stack.provider, stack.store.url, stack.upstream, TOML, **settings, drain_seconds="6"
        ) as process,
        line(side) as connection,
    ):
        assert connection.send(question).answer().get("connection") == ""
        process.signal(signal.SIGTERM)
        assert until(lambda: not process.ready(), within=3)
        answer = connection.send(question).answer()
        assert (answer.status, answer.get("connection")) == (200, "close")
        assert exchange(side, question).status == 200
        code, logged = process.ended()
        assert (code, "Traceback" in logged) == (0, False), logged


def test_listeners_that_are_not_the_configured_ones() -> None:
    """Where a service manager hands over other sockets, a worker does not guess which is which: it ends."""
    worker = Worker.__new__(Worker)
    worker.side = {("127.0.0.1", 5004): Protocol}
    worker.sockets = [SimpleNamespace(cfg_addr=("127.0.0.1", 5003))]
    with pytest.raises(SystemExit):
        worker._side_listeners()
