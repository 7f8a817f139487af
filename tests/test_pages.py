"""The page, static files, health, and what every answer carries."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from types import SimpleNamespace
from typing import cast

import pytest
import redis

from bff.errors import StoreUnavailable
from tests.fakes import Rig
from tests.support.browser import CSRF, Browser, error_page
from tests.support.provider import Reply, scripted_provider
from tests.support.stack import Stack, Store, running, store
from tests.support.wire import until

POLICY = "default-src 'none'"


@pytest.fixture(scope="module")
def module_store() -> Iterator[Store]:
    with store() as found:
        yield found


@pytest.fixture(scope="module")
def stack(module_store: Store) -> Iterator[Stack]:
    with running(module_store) as stack:
        yield stack


@pytest.fixture
def browser(stack: Stack) -> Browser:
    return stack.browser()


def test_page(stack: Stack, browser: Browser) -> None:
    """`/` needs no session; its policy lets scripts and styles of ours in, and the sign-out form out."""
    browser.get("/bff/login")
    answer = browser.get("/")
    policy = answer.get("content-security-policy")
    assert (answer.status, answer.get("content-type")) == (200, "text/html; charset=utf-8")
    assert answer.get("referrer-policy") == "same-origin", "with none, browsers post Origin: null"
    assert "script-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert f"form-action 'self' {stack.provider.base};" in policy
    assert "unsafe" not in policy
    assert not re.search(r"<script(?![^>]*src)|\son\w+=|style=", answer.text), "nothing inline"


def test_page_before_the_provider_is_known(module_store: Store) -> None:
    """Without the provider the page is served all the same."""
    with scripted_provider() as provider:
        provider.replies["discovery"] = Reply(503)
        with running(module_store, provider=provider) as stack:
            answer = stack.browser().get("/")
            assert answer.status == 200
            assert "form-action 'self';" in answer.get("content-security-policy")


def test_static_files(browser: Browser) -> None:
    """What the page names is there, with its type, and can be asked for again cheaply."""
    for target in re.findall(r'(?:src|href)="(/static/[^"]+)"', browser.get("/").text):
        answer = browser.get(target)
        assert answer.status == 200, target
        kind = {"js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}[target.rsplit(".")[-1]]
        assert answer.get("content-type").startswith(kind)
        assert browser.get(target, {"If-None-Match": answer.get("etag")}).status == 304
        whole = browser.get(target, {"Range": "bytes=99999999-"})
        assert (whole.status, whole.body) == (200, answer.body), "ranges are not for files as small as these"


@pytest.mark.parametrize(
    "target",
    [
        "/static/",
        "/static",
        "/static/no.css",
        "/static/page.html",
        "/page.html",
        "/templates/page.html",
        "/favicon.ico",
    ],
)
def test_what_is_not_there(browser: Browser, target: str) -> None:
    """Everything else is 404 as a problem document, templates and folders too."""
    answer = browser.get(target)
    assert (answer.status, answer.code) == (404, "route_not_found")


@pytest.mark.parametrize(
    "target",
    [
        "/static/../settings.py",
        "/static/%2e%2e/app.py",
        "/static//page.css",
        "/static/%2Fetc/passwd",
        "/static/a\\b",
    ],
)
def test_static_path_that_climbs(browser: Browser, target: str) -> None:
    """Paths that could leave the folder are refused outright."""
    assert browser.get(target).code == "bad_request"


def test_health(browser: Browser) -> None:
    """Both checks say ok and nothing else, and may not be stored."""
    for target in ("/health/live", "/health/ready"):
        answer = browser.get(target)
        assert (answer.status, answer.json()) == (200, {"status": "ok"})
        assert answer.get("cache-control") == "no-store"


def test_health_by_address(browser: Browser) -> None:
    """A load balancer asks by address: the Host rule does not hold for health."""
    assert browser.get("/health/live", {"Host": "10.0.0.7:8080"}).status == 200
    assert browser.get("/health/ready", {"Host": "10.0.0.7:8080"}).status == 200


UNREADY = (503, {"status": "unavailable"})


@pytest.mark.parametrize("missing", ["discovery", "jwks"])
def test_ready_only_once_the_provider_is_known(missing: str) -> None:
    """Its document alone is not enough, nor are its keys: without both, every sign-in would fail."""
    with store() as own, scripted_provider() as provider:
        provider.replies[missing] = Reply(503)
        with running(own, provider=provider) as stack:
            browser = stack.browser()
            browser.get("/health/ready")
            assert until(lambda: provider.count(missing) > 0), "it has been asked for"
            answer = browser.get("/health/ready")
            assert (answer.status, answer.json()) == UNREADY
            assert browser.get("/health/live").status == 200
            provider.replies.clear()
            stack.clock.ahead = 10
            assert until(lambda: browser.get("/health/ready").status == 200)
            provider.replies[missing] = Reply(503)
            stack.clock.ahead = 10_000
            assert browser.get("/health/ready").status == 200, "old knowledge is good enough"


@pytest.mark.redis_server
def test_ready_only_while_redis_takes_writes(redis_url: str) -> None:
    """A full or read-only Redis still answers, and nobody can sign in."""
    with (
        running(cast("Store", SimpleNamespace(url=redis_url))) as stack,
        redis.Redis.from_url(redis_url) as client,
    ):
        browser = stack.browser()
        assert until(lambda: browser.get("/health/ready").status == 200)
        client.config_set("maxmemory", "1")
        answer = browser.get("/health/ready")
        client.config_set("maxmemory", "0")
        assert (answer.status, answer.json()) == UNREADY
        assert browser.get("/health/ready").status == 200


def test_ready_only_if_redis_gives_back_what_it_took(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy before Redis that loses writes is no store."""
    rig.store.ping()
    monkeypatch.setattr(rig.client, "get", lambda _key: None)
    with pytest.raises(StoreUnavailable):
        rig.store.ping()


def test_a_process_about_to_end_is_not_ready() -> None:
    """Whoever sends requests here hears of it before the listener closes; it is alive all the same."""
    with store() as own, running(own) as stack:
        browser = stack.browser()
        assert until(lambda: browser.get("/health/ready").status == 200)
        stack.app.drain()
        answer = browser.get("/health/ready")
        assert (answer.status, answer.json()) == UNREADY
        assert browser.get("/health/live").status == 200


def test_readiness_without_internals() -> None:
    """Unready says 503 and not a word about why; live stays live."""
    with store() as own, running(own) as stack:
        browser = stack.browser()
        own.stop()
        answer = browser.get("/health/ready")
        assert (answer.status, answer.json()) == (503, {"status": "unavailable"})
        assert browser.get("/health/live").status == 200
        own.start()


ANSWERS = [
    ("GET", "/", {}, 200),
    ("HEAD", "/", {}, 200),
    ("GET", "/static/page.css", {}, 200),
    ("GET", "/health/live", {}, 200),
    ("GET", "/health/ready", {}, 200),
    ("GET", "/bff/login", {}, 302),
    ("GET", "/bff/login?returnUrl=//x", {}, 400),
    ("POST", "/bff/login", {}, 405),
    ("GET", "/bff/login", {"Service-Worker": "script"}, 403),
    ("GET", "/bff/callback", {}, 400),
    ("GET", "/bff/callback?state=x&code=y", {}, 400),
    ("GET", "/bff/user", {}, 403),
    ("GET", "/bff/user", CSRF, 401),
    ("GET", "/bff/logout", {}, 303),
    ("POST", "/bff/logout", {}, 403),
    ("POST", "/bff/logout", CSRF, 200),
    ("GET", "/bff/nothing", {}, 404),
    ("GET", "/bff", {}, 404),
    ("GET", "/nothing", {}, 404),
    ("GET", "/weather", {}, 403),
    ("GET", "/weather", CSRF, 401),
    ("POST", "/weather", CSRF, 405),
    ("OPTIONS", "/weather", CSRF, 405),
    ("GET", "/a//b", {}, 400),
    ("GET", "/", {"Host": "evil.example"}, 400),
]


@pytest.mark.parametrize(("method", "target", "headers", "status"), ANSWERS)
def test_headers_of_every_answer(
    stack: Stack, method: str, target: str, headers: dict[str, str], status: int
) -> None:
    """Whatever is answered carries the security headers once, a Date, and no word about the software."""
    answer = stack.browser().request(method, target, headers)
    assert answer.status == status
    assert answer.get("x-content-type-options") == "nosniff"
    assert answer.get("cross-origin-opener-policy") == "same-origin"
    assert answer.get("cross-origin-resource-policy") == "same-origin"
    assert answer.get("content-security-policy").startswith(POLICY)
    assert answer.get("strict-transport-security") == "", "over http it would be ignored"
    assert abs(parsedate_to_datetime(answer.get("date")).timestamp() - time.time()) < 60
    assert answer.all("server") == answer.all("x-powered-by") == []
    assert not [name for name, _ in answer.headers if name.startswith("access-control-")]
    if target.startswith("/bff/") or status >= 400:
        assert answer.get("cache-control") == "no-store"


PAGES = ["/", "/bff/login", "/bff/callback", "/bff/logout"]


@pytest.mark.parametrize("target", PAGES)
def test_errors_of_pages_are_pages(browser: Browser, target: str) -> None:
    """A person who meets an error on a page's address sees a page, whichever part of the program refuses."""
    assert error_page(browser.get(target, {"Service-Worker": "script"}), 403) == "csrf_required"
    assert error_page(browser.get(target, {"Host": "evil.example"}), 400) == "bad_request"
    refused = browser.request("PUT", target)
    code = refused.code if target == "/bff/logout" else error_page(refused, 405)
    assert (refused.status, code) == (405, "method_not_allowed")


@pytest.mark.parametrize(
    ("target", "allow"),
    [
        ("/", "GET, HEAD"),
        ("/static/page.css", "GET, HEAD"),
        ("/health/live", "GET, HEAD"),
        ("/bff/login", "GET"),
        ("/bff/callback", "GET, POST"),
        ("/bff/user", "GET"),
        ("/bff/logout", "GET, POST"),
        ("/weather", "GET, HEAD"),
    ],
)
@pytest.mark.parametrize("method", ["OPTIONS", "PUT", "DELETE", "PATCH", "TRACE", "PROPFIND"])
def test_other_methods(browser: Browser, target: str, allow: str, method: str) -> None:
    """A method that an address does not take gets 405 with those that it takes; OPTIONS is no exception."""
    answer = browser.request(method, target, CSRF | {"Origin": "https://evil.example"})
    assert (answer.status, answer.get("allow")) == (405, allow)


@pytest.mark.parametrize("target", ["/bff/login", "/bff/callback", "/bff/user", "/bff/logout"])
def test_head_of_what_acts(stack: Stack, target: str) -> None:
    """HEAD begins no sign-in and ends no session: link checkers send it."""
    visitor = stack.browser()
    assert visitor.request("HEAD", target, CSRF).status == 405
    assert visitor.cookies == {}


@pytest.mark.parametrize("target", ["/", "/static/page.css", "/health/live", "/health/ready"])
def test_head(browser: Browser, target: str) -> None:
    """HEAD has the headers of GET."""
    head, get = browser.request("HEAD", target), browser.get(target)
    assert head.status == 200
    assert head.get("content-length") == get.get("content-length")
    assert head.get("content-type") == get.get("content-type")
