"""The control plane while the store or the provider is away, and with a key that is missing."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from bff.sealing import new_key
from tests.support.browser import CSRF, Browser, error_page
from tests.support.client import query_of
from tests.support.provider import Reply, ScriptedProvider, scripted_provider
from tests.support.stack import REAL_REDIS, Stack, Store, running, store
from tests.support.stopwatch import Stopwatch
from tests.support.wire import Answer, until


@pytest.fixture
def own_store() -> Iterator[Store]:
    """A store that this test alone takes away."""
    with store() as found:
        yield found


@pytest.fixture
def stack(own_store: Store) -> Iterator[Stack]:
    with running(own_store) as stack:
        yield stack


def unavailable(answer_code: str, status: int, retry_after: str) -> bool:
    return (answer_code, status) == ("store_unavailable", 503) and int(retry_after) > 0


@pytest.mark.skipif(not REAL_REDIS, reason="needs redis-server on PATH: the double forgets when it stops")
@pytest.mark.redis_server
def test_store_away_and_back(stack: Stack) -> None:
    """503 while Redis is down, never a sign-out: no cookie is touched, and the session goes on afterwards."""
    browser = stack.sign_in(stack.browser())
    asked = browser.get("/bff/login")
    held = dict(browser.cookies)
    stack.store.stop()
    for target in ("/bff/user", "/weather"):
        answer = browser.api(target)
        assert unavailable(answer.code, answer.status, answer.get("retry-after")), target
    sign_out = browser.request("POST", "/bff/logout", CSRF)
    assert unavailable(sign_out.code, sign_out.status, sign_out.get("retry-after"))
    assert error_page(browser.get("/bff/logout"), 400) == "bad_request", "there may be a session to end"
    response = stack.provider.authorize(asked.get("location"))
    assert error_page(browser.callback(response), 503) == "store_unavailable"
    assert browser.cookies == held
    assert stack.provider.count("token") == 1, "no code is redeemed for a session that cannot be kept"
    assert browser.get("/").status == 200
    assert browser.get("/bff/login").status == 302, "beginning a sign-in needs no store"
    stack.store.start()
    assert browser.api("/bff/user").status == browser.api("/weather").status == 200
    assert browser.callback(response).status == 200, "the same answer of the provider still works"


def test_store_away_at_start(own_store: Store) -> None:
    """The BFF starts without Redis, says so, and recovers by itself."""
    own_store.stop()
    with running(own_store) as stack:
        browser = stack.browser()
        assert browser.get("/health/live").status == 200
        assert browser.get("/health/ready").status == 503
        assert browser.api("/bff/user").code == "not_signed_in", "without a cookie there is nothing to ask"
        own_store.start()
        stack.sign_in(browser)
        assert browser.get("/health/ready").status == 200


def test_store_that_fails_fast(stack: Stack) -> None:
    """Nobody waits long for a store that is down."""
    browser = stack.sign_in(stack.browser())
    stack.store.stop()
    started = Stopwatch()
    browser.api("/bff/user")
    browser.api("/weather")
    assert started.own < 2
    stack.store.start()


@pytest.fixture
def down() -> Iterator[ScriptedProvider]:
    """A provider that is not there yet."""
    with scripted_provider() as provider:
        provider.replies["discovery"] = Reply(503)
        yield provider


def test_provider_away_at_start(own_store: Store, down: ScriptedProvider) -> None:
    """The BFF starts without its provider, shows a page to who wants to sign in, and recovers by itself."""
    with running(own_store, provider=down) as stack:
        browser = stack.browser()
        answer = browser.get("/bff/login")
        assert error_page(answer, 503) == "provider_unavailable"
        assert browser.cookies == {}
        assert browser.get("/health/live").status == 200
        assert browser.get("/health/ready").status == 503
        assert browser.get("/").status == 200
        assert browser.api("/bff/user").code == "not_signed_in"
        browser.cookies["bff"] = stack.plant()
        assert browser.api("/weather").status == 200, "who is signed in goes on working"
        assert browser.request("POST", "/bff/logout", CSRF).json() == {"logout_url": "/"}
        down.replies.clear()
        stack.clock.ahead = int(answer.get("retry-after")) + 1
        stack.sign_in(browser)
        assert browser.get("/health/ready").status == 200


def test_provider_is_not_stormed(own_store: Store, down: ScriptedProvider) -> None:
    """Many people who want to sign in while the provider is down cost it one request."""
    with running(own_store, provider=down) as stack:
        for _ in range(10):
            assert stack.browser().get("/bff/login").status == 503
        assert down.count("discovery") == 1


def test_jwks_away_at_the_callback(own_store: Store, down: ScriptedProvider) -> None:
    """Without the provider's keys nobody is signed in; the page says to try again."""
    down.replies.clear()
    down.replies["jwks"] = Reply(503)
    with running(own_store, provider=down) as stack:
        browser = stack.browser()
        asked = browser.get("/bff/login")
        answer = browser.callback(down.authorize(asked.get("location")))
        assert error_page(answer, 503) == "provider_unavailable"
        assert browser.session is None


def test_provider_that_hangs(own_store: Store, down: ScriptedProvider) -> None:
    """A provider that hangs stalls nobody who is signed in."""
    down.replies["discovery"] = Reply(delay=3)
    with running(own_store, provider=down, provider_timeout_seconds="1") as stack:
        browser = stack.browser()
        browser.cookies["bff"] = stack.plant()
        threads = [threading.Thread(target=stack.browser().get, args=("/bff/login",)) for _ in range(24)]
        for thread in threads:
            thread.start()
        time.sleep(0.1)
        started = Stopwatch()
        assert browser.api("/weather").status == browser.api("/bff/user").status == 200
        assert started.own < 0.8
        for thread in threads:
            thread.join(10)


def test_a_provider_that_hangs_from_the_start(own_store: Store, down: ScriptedProvider) -> None:
    """Neither a sign-out nor a probe waits for discovery: 1.5 s at most, and at once."""
    down.replies["discovery"] = Reply(delay=6)
    with running(own_store, provider=down, provider_timeout_seconds="6") as stack:
        browser = stack.browser()
        browser.cookies["bff"] = stack.plant()
        started = Stopwatch()
        assert browser.get("/health/ready").status == 503
        assert started.own < 1.5
        assert browser.request("POST", "/bff/logout", CSRF).json() == {"logout_url": "/"}
        assert started.own < 4.5
        assert stack.sessions() == []


def test_ready_without_being_asked(own_store: Store) -> None:
    """The provider is asked at the start, not by the first visitor."""
    with running(own_store) as stack:
        assert until(lambda: stack.browser().get("/health/ready").status == 200)
        assert stack.provider.count("discovery") == stack.provider.count("jwks") == 1


def test_callbacks_at_a_provider_that_hangs(own_store: Store, down: ScriptedProvider) -> None:
    """Sign-ins that wait for the token endpoint take no thread from who is signed in; all are answered."""
    down.replies.clear()
    with running(own_store, provider=down, provider_timeout_seconds="2") as stack:
        signed_in = stack.browser()
        signed_in.cookies["bff"] = stack.plant()
        browsers = [stack.browser() for _ in range(48)]
        responses = [down.authorize(browser.get("/bff/login").get("location")) for browser in browsers]
        down.replies["token"] = Reply(delay=10)
        answers: list[Answer] = []
        threads = [
            threading.Thread(target=lambda b=b, r=r: answers.append(b.callback(r)))
            for b, r in zip(browsers, responses, strict=True)
        ]
        for thread in threads:
            thread.start()
        time.sleep(0.2)
        started = Stopwatch()
        for target in ("/bff/user", "/weather", "/bff/user"):
            assert signed_in.api(target).status == 200
        assert started.own < 0.8
        for thread in threads:
            thread.join(15)
        assert [error_page(answer, 503) for answer in answers] == ["provider_unavailable"] * 48


def test_sign_out_at_a_provider_that_hangs(own_store: Store) -> None:
    """A sign-out waits for no revocation that hangs, and many of them stall no refresh."""
    with running(own_store, provider_timeout_seconds="20") as stack:
        browsers = [stack.sign_in(stack.browser()) for _ in range(6)]
        due = stack.sign_in(stack.browser())
        stack.provider.replies["revoke"] = Reply(delay=4)
        started = Stopwatch()
        threads = [threading.Thread(target=b.request, args=("POST", "/bff/logout", CSRF)) for b in browsers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        assert started.own < 2.5
        assert started.elapsed > 1.4
        assert [browser.session for browser in browsers] == [None] * 6
        stack.clock.ahead = 301
        assert due.api("/weather").status == 200
        assert started.own < 3.5
        assert len(stack.sessions()) == 1


def changed_key(stack: Stack, browser: Browser, own_store: Store, *keys: str) -> Iterator[Stack]:
    """The same deployment started anew with other keys, in front of the same browser."""
    with running(
        own_store,
        provider=stack.provider,
        redis_prefix=stack.settings.redis_prefix,
        secret_keys=",".join(keys),
    ) as restarted:
        browser._port, browser.origin = restarted.port, restarted.origin
        browser._host = restarted.origin.removeprefix("http://")
        yield restarted


def test_missing_key(own_store: Store) -> None:
    """A session under a key that is gone: 503, not deleted; putting the key back heals it."""
    old = new_key()
    with running(own_store, secret_keys=old) as stack:
        browser = stack.sign_in(stack.browser())
        for restarted in changed_key(stack, browser, own_store, new_key()):
            for target in ("/bff/user", "/weather"):
                answer = browser.api(target)
                assert unavailable(answer.code, answer.status, answer.get("retry-after")), target
            assert browser.session
            assert len(restarted.sessions()) == 1
        for _ in changed_key(stack, browser, own_store, new_key(), old):
            assert browser.api("/bff/user").status == browser.api("/weather").status == 200


@pytest.mark.parametrize("way", ["script", "form", "link", "sign in"])
def test_ways_out_of_a_missing_key(own_store: Store, way: str) -> None:
    """Under a missing key every form of the sign-out ends the session, and a sign-in replaces it."""
    with running(own_store) as stack:
        browser = stack.sign_in(stack.browser())
        claims = browser.api("/bff/user").json()
        link = next(claim["value"] for claim in claims if claim["type"] == "bff:logout_url")
        for restarted in changed_key(stack, browser, own_store, new_key()):
            if way == "script":
                answer = browser.request("POST", "/bff/logout", CSRF)
                assert answer.json()["logout_url"].startswith(stack.provider.base)
            elif way == "form":
                sid = query_of(link)["sid"]
                assert browser.post("/bff/logout", {"Origin": restarted.origin}, sid=sid).status == 303
            elif way == "link":
                assert error_page(browser.get("/bff/logout?sid=wrong"), 400) == "bad_request"
                assert browser.get(link).status == 303
            else:
                restarted.sign_in(browser)
                assert browser.api("/bff/user").status == 200
            assert len(restarted.sessions()) == (1 if way == "sign in" else 0)
            assert bool(browser.session) == (way == "sign in")


def test_altered_record(stack: Stack) -> None:
    """A record that was written by somebody else is 503 and an alert, never a deletion."""
    browser = stack.sign_in(stack.browser())
    (key,) = stack.sessions()
    with stack.store.client() as client:
        sealed = client.hget(key, "t")
        assert isinstance(sealed, bytes)
        client.hset(key, "t", sealed[:-1] + bytes([sealed[-1] ^ 1]))
    for target in ("/bff/user", "/weather"):
        answer = browser.api(target)
        assert unavailable(answer.code, answer.status, answer.get("retry-after"))
    assert stack.sessions() == [key]


def test_key_of_a_wrong_type(stack: Stack) -> None:
    """A Redis key of another type where a session should be is no 500."""
    browser = stack.sign_in(stack.browser())
    (key,) = stack.sessions()
    with stack.store.client() as client:
        client.delete(key)
        client.set(key, "a string")
    for target in ("/bff/user", "/weather"):
        assert browser.api(target).code == "store_unavailable"


def test_restart(own_store: Store) -> None:
    """Sessions outlive a restart of the BFF."""
    key = new_key()
    with running(own_store, secret_keys=key) as stack:
        browser = stack.sign_in(stack.browser())
        for _ in changed_key(stack, browser, own_store, key):
            assert browser.api("/bff/user").status == 200


@pytest.mark.skipif(not REAL_REDIS, reason="needs redis-server on PATH: the double does not count clients")
@pytest.mark.redis_server
def test_shutdown_closes_what_was_open(own_store: Store) -> None:
    """When it ends, the BFF leaves no connection to Redis behind."""
    with running(own_store) as stack:
        browser = stack.sign_in(stack.browser())
        assert browser.api("/weather").status == 200
        with own_store.client() as client:
            assert len(client.client_list()) > 2, "both planes are connected"
    with own_store.client() as client:
        assert len(client.client_list()) == 1
