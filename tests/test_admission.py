"""Who gets in at all: the order of the checks, Host, trusted proxies."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.support.browser import CSRF, Browser, error_page
from tests.support.stack import Stack, Store, running, store

TOML = """
[[routes]]
path = "/upload"
upstream = "UPSTREAM"
methods = ["GET", "POST"]
"""


@pytest.fixture(scope="module")
def module_store() -> Iterator[Store]:
    with store() as found:
        yield found


@pytest.fixture(scope="module")
def shared(module_store: Store) -> Iterator[Stack]:
    with running(module_store, toml=TOML, max_body_bytes="1000") as stack:
        yield stack


@pytest.fixture
def stack(shared: Stack) -> Stack:
    shared.upstream.reset()
    return shared


@pytest.fixture
def browser(stack: Stack) -> Browser:
    return stack.browser()


LONG = {"Content-Length": "1001"}
FOREIGN = {"Host": "evil.example"}

ORDER = [
    # each row breaks the rule of its code and every later one
    ("PUT", "/a//b", FOREIGN | LONG, 400, "bad_request"),
    ("PUT", "/nothing", FOREIGN | LONG, 400, "bad_request"),
    ("PUT", "/nothing", LONG, 404, "route_not_found"),
    ("PUT", "/upload", LONG, 405, "method_not_allowed"),
    ("OPTIONS", "/upload", LONG, 405, "method_not_allowed"),
    ("POST", "/upload", LONG, 403, "csrf_required"),
    ("POST", "/upload", LONG | CSRF, 413, "body_too_large"),
    ("POST", "/upload", CSRF, 401, "not_signed_in"),
    ("POST", "/upload", CSRF | {"Cookie": "bff=odd"}, 401, "session_expired"),
]


@pytest.mark.parametrize(("method", "target", "headers", "status", "code"), ORDER)
def test_order_of_the_checks(
    browser: Browser, method: str, target: str, headers: dict[str, str], status: int, code: str
) -> None:
    """Where several refusals apply, the documented order decides."""
    answer = browser.request(method, target, headers)
    assert (answer.status, answer.code) == (status, code)


def test_store_comes_last() -> None:
    """With the store down, everything that can be judged without it is judged first; only then 503."""
    with store() as own, running(own, toml=TOML, max_body_bytes="1000") as stack:
        own.stop()
        browser = stack.browser()
        for method, target, headers, status, code in ORDER:
            answer = browser.request(method, target, headers)
            assert (answer.status, answer.code) == (status, code)
        answer = browser.request("POST", "/upload", CSRF | {"Cookie": "bff=" + "A" * 43})
        assert (answer.status, answer.code) == (503, "store_unavailable")
        assert int(answer.get("retry-after")) > 0
        own.start()


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "localhost",
        "localhost:1",
        "127.0.0.1:PORT",
        "localhost:PORT.evil.example",
        "evil.example@localhost:PORT",
        "localhost:PORT, evil.example",
        "localhost.:PORT",
        "localhost:PORT/",
        "[::1]:PORT",
        "\x00",
        "é:PORT",
    ],
)
@pytest.mark.parametrize("target", ["/", "/bff/login", "/bff/user", "/weather"])
def test_hostile_host(stack: Stack, browser: Browser, target: str, host: str) -> None:
    """Another Host than the public URL's gets 400: DNS rebinding, poisoned caches and links."""
    answer = browser.get(target, CSRF | {"Host": host.replace("PORT", str(stack.port))})
    page = target in ("/", "/bff/login") and host != "\x00"  # which is no HTTP at all
    assert (error_page(answer, 400) if page else answer.code) == "bad_request"
    assert answer.status == 400
    assert "evil" not in answer.text


def test_host_in_capitals(stack: Stack, browser: Browser) -> None:
    """Host names are compared without regard to case (RFC 9110 §4.2.3)."""
    assert browser.get("/", {"Host": f"LocalHost:{stack.port}"}).status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Forwarded-Host": "evil.example"},
        {"X-Forwarded-Proto": "https"},
        {"X-Forwarded-For": "1.2.3.4"},
        {"Forwarded": "host=evil.example;proto=https"},
        {"X-Forwarded-Prefix": "/evil"},
        {"X-Original-URL": "/bff/user"},
        {"X-Rewrite-URL": "/bff/user"},
        {"X-HTTP-Method-Override": "DELETE"},
    ],
    ids=str,
)
def test_forwarding_headers_of_anybody(stack: Stack, browser: Browser, headers: dict[str, str]) -> None:
    """Without trusted proxies nothing about the request follows from such headers (RFC 9700 §4.13)."""
    answer = browser.get("/bff/login", headers)
    assert answer.status == 302
    assert re.search(
        rf"redirect_uri=http%3A%2F%2Flocalhost%3A{stack.port}%2Fbff%2Fcallback", answer.get("location")
    )
    browser.cookies["bff"] = stack.plant()
    assert browser.get("/weather", CSRF | headers).status == 200
    seen = stack.upstream.requests[-1]
    assert seen.get("x-forwarded-for") == "127.0.0.1"
    assert seen.get("x-forwarded-host") == f"localhost:{stack.port}"
    assert seen.get("x-forwarded-proto") == "http"
    assert seen.get("x-forwarded-prefix") == "/"
    assert not [name for name, _ in seen.headers if name in ("forwarded", "x-original-url")]


def test_trusted_proxy(module_store: Store) -> None:
    """A trusted peer's word about host and client is believed, the rightmost untrusted address being it."""
    with running(module_store, trusted_proxies="127.0.0.0/8, 10.0.0.0/8") as stack:
        browser = stack.browser()
        browser.cookies["bff"] = stack.plant()
        forwarded = {"Host": "bff.internal", "X-Forwarded-Host": f"localhost:{stack.port}"}
        chain = {"X-Forwarded-For": "6.6.6.6, 192.0.2.7, 10.0.0.3"}
        assert browser.get("/weather", CSRF | forwarded | chain).status == 200
        assert stack.upstream.requests[-1].get("x-forwarded-for") == "192.0.2.7"
        evil = {"X-Forwarded-Host": "evil.example"}
        assert browser.get("/weather", CSRF | evil).code == "bad_request"
        assert browser.get("/weather", CSRF | {"Host": "bff.internal"}).code == "bad_request"
        location = browser.get("/bff/login", forwarded | {"X-Forwarded-Proto": "https"}).get("location")
        assert f"redirect_uri=http%3A%2F%2Flocalhost%3A{stack.port}%2F" in location


def test_untrusted_peer(module_store: Store) -> None:
    """A peer that is not in the list is not believed, whatever it sends."""
    with running(module_store, trusted_proxies="10.0.0.0/8") as stack:
        forwarded = {"Host": "bff.internal", "X-Forwarded-Host": f"localhost:{stack.port}"}
        assert stack.browser().get("/", forwarded).status == 400


FOLDED = {"X_Forwarded_Host": "evil.example", "X_CSRF": "1", "Content_Length": "5", "HTTP_HOST": "evil"}


def test_underscores(browser: Browser) -> None:
    """Headers with an underscore, which WSGI folds into others, reach no application."""
    assert browser.get("/bff/user", FOLDED).code == "csrf_required"
    assert browser.get("/bff/login", FOLDED).status == 302


@pytest.mark.parametrize(
    "target", ["/weather/../bff/user", "/weather%2f..%2fbff", "/%62ff/user", "/weather/%2e%2e/x"]
)
def test_paths_that_could_be_read_in_two_ways(browser: Browser, target: str) -> None:
    """Dot segments and encoded slashes are refused; an encoded letter is the letter."""
    answer = browser.api(target)
    assert answer.code == ("not_signed_in" if target == "/%62ff/user" else "bad_request")


def test_a_slide_is_written_seldom(stack: Stack) -> None:
    """Using a session makes it last longer, and costs Redis a write once a minute, not for every request."""
    browser = stack.sign_in(stack.browser())

    def expires_in() -> int:
        claims = browser.api("/bff/user?slide=false").json()
        return next(int(each["value"]) for each in claims if each["type"] == "bff:session_expires_in")

    try:
        stack.clock.ahead = 45
        assert browser.api("/upload").status == 200
        assert expires_in() <= 1755
        stack.clock.ahead = 75
        assert browser.api("/upload").status == 200
        assert expires_in() > 1785
    finally:
        stack.clock.ahead = 0
