"""`/bff/sessions`: what users see of their own sessions, and how they end them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from bff.sessions.browsers import readable
from tests.support.browser import CSRF, Browser, error_page
from tests.support.provider import SUBJECT
from tests.support.stack import Stack, Store, running, store

FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:133.0) Gecko/20100101 Firefox/133.0"
IPHONE = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) "
    "Version/18.1 Mobile/15E148 Safari/604.1"
)


@pytest.fixture(scope="module")
def module_store() -> Iterator[Store]:
    with store() as found:
        yield found


@pytest.fixture
def stack(module_store: Store) -> Iterator[Stack]:
    with running(module_store, trusted_proxies="127.0.0.1/32") as stack:
        yield stack


def sign_in(stack: Stack, agent: str = FIREFOX, address: str = "192.0.2.7", sub: str = SUBJECT) -> Browser:
    """A browser of that kind, at that address, in which that user is signed in."""
    stack.provider.claims["sub"] = sub
    browser = stack.browser()
    asked = browser.get("/bff/login")
    response = stack.provider.authorize(asked.get("location"))
    query = "&".join(f"{name}={value}" for name, value in response.items())
    headers = {"User-Agent": agent, "X-Forwarded-For": address}
    assert browser.get("/bff/callback?" + query, headers).status == 200
    return browser


def listed(browser: Browser) -> list[dict[str, Any]]:
    answer = browser.api("/bff/sessions")
    assert (answer.status, answer.get("cache-control")) == (200, "no-store")
    found: list[dict[str, Any]] = answer.json()
    return found


def delete(browser: Browser, target: str) -> Any:
    return browser.request("DELETE", target, CSRF)


def test_list(stack: Stack) -> None:
    """The newest first, with browser, address and times; this one is marked; no value of a cookie."""
    phone = sign_in(stack, IPHONE, "2001:db8::7")
    stack.clock.ahead = 120
    laptop = sign_in(stack)
    first, second = listed(laptop)
    assert (first["current"], second["current"]) == (True, False)
    assert (first["browser"], first["address"]) == ("Firefox on Linux", "192.0.2.7")
    assert (second["browser"], second["address"]) == ("Mobile Safari on iOS", "2001:db8::7")
    assert set(first) == {"id", "current", "created", "last_seen", "browser", "address"}
    for each in (first, second):
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", each["created"])
        created = datetime.fromisoformat(each["created"])
        assert abs((created - datetime.now(UTC)).total_seconds()) < 200
    assert first["created"] > second["created"]
    text = laptop.transcript[-1].text
    assert str(laptop.session) not in text
    assert str(phone.session) not in text


def test_last_seen_moves(stack: Stack) -> None:
    """A session that is used says so."""
    browser = sign_in(stack)
    (before,) = listed(browser)
    stack.clock.ahead = 200
    browser.api("/weather")
    (after,) = listed(browser)
    assert after["last_seen"] > before["last_seen"]
    assert after["created"] == before["created"]


def test_end_one(stack: Stack) -> None:
    """204, the session is dead at once, and its refresh token is revoked; the other one lives."""
    phone, laptop = sign_in(stack, IPHONE), sign_in(stack)
    (name,) = [each["id"] for each in listed(laptop) if not each["current"]]
    answer = delete(laptop, f"/bff/sessions/{name}")
    assert (answer.status, answer.body) == (204, b"")
    assert stack.provider.count("revoke") == 1
    assert phone.api("/weather").code == phone.api("/bff/user").code == "session_expired"
    assert len(listed(laptop)) == 1
    assert delete(laptop, f"/bff/sessions/{name}").code == "session_not_found"


def test_end_this_one(stack: Stack) -> None:
    """Ending the session that asks is a sign-out: its cookie goes, too."""
    browser = sign_in(stack)
    (name,) = [each["id"] for each in listed(browser)]
    assert delete(browser, f"/bff/sessions/{name}").status == 204
    assert browser.session is None
    assert stack.sessions() == []


def test_end_all_others(stack: Stack) -> None:
    """204: all but this one are dead, on the data plane, too."""
    others = [sign_in(stack) for _ in range(3)]
    browser = sign_in(stack)
    stranger = sign_in(stack, sub="somebody-else")
    assert delete(browser, "/bff/sessions").status == 204
    assert [each.api("/weather").code for each in others] == ["session_expired"] * 3
    assert browser.api("/weather").status == 200
    assert stranger.api("/weather").status == 200
    assert len(listed(browser)) == 1


@pytest.mark.parametrize("kind", ["another user's", "unknown", "malformed", "a cookie"])
def test_sessions_that_are_not_ones_own(stack: Stack, kind: str) -> None:
    """Another user's session is as unknown as one that does not exist, and stays."""
    browser, stranger = sign_in(stack), sign_in(stack, sub="somebody-else")
    (theirs,) = [each["id"] for each in listed(stranger)]
    name = {"another user's": theirs, "unknown": "0" * 64, "malformed": "x", "a cookie": stranger.session}[
        kind
    ]
    answer = delete(browser, f"/bff/sessions/{name}")
    assert (answer.status, answer.code) == (404, "session_not_found")
    assert stranger.api("/bff/user").status == 200
    assert len(listed(browser)) == 1


@pytest.mark.parametrize(
    ("method", "target"),
    [("GET", "/bff/sessions"), ("DELETE", "/bff/sessions"), ("DELETE", "/bff/sessions/" + "0" * 64)],
)
def test_who_may_ask(stack: Stack, method: str, target: str) -> None:
    """The header of ours first, and then a live session."""
    browser = stack.browser()
    assert browser.request(method, target).code == "csrf_required"
    assert browser.request(method, target, CSRF | {"Origin": "https://evil.example"}).code == "csrf_required"
    assert browser.request(method, target, CSRF).code == "not_signed_in"
    browser.cookies["bff"] = "A" * 43
    assert browser.request(method, target, CSRF).code == "session_expired"
    assert browser.session, "a 401 deletes no cookie"


def test_a_sign_in_under_way_does_not_slip_through(stack: Stack) -> None:
    """Begun before all others were ended, finished after: an error page, no session, tokens revoked."""
    browser, intruder = sign_in(stack), stack.browser()
    asked = intruder.get("/bff/login")
    assert delete(browser, "/bff/sessions").status == 204
    answer = intruder.callback(stack.provider.authorize(asked.get("location")))
    assert error_page(answer, 400) == "sign_in_cut_off"
    assert intruder.session is None
    assert len(stack.sessions()) == 1
    later = sign_in(stack)
    assert later.api("/bff/user").status == 200, "a sign-in that begins afterwards is welcome"
    assert len(listed(later)) == 2


def test_a_cap(module_store: Store) -> None:
    """With BFF_SESSIONS_PER_USER the user's oldest session ends, and its refresh token is revoked."""
    with running(module_store, sessions_per_user="2") as stack:
        browsers = []
        for number in range(3):
            stack.clock.ahead = number
            browsers.append(sign_in(stack))
        stranger = sign_in(stack, sub="somebody-else")
        states = [browser.api("/bff/user").status for browser in (*browsers, stranger)]
        assert states == [401, 200, 200, 200]
        assert stack.provider.count("revoke") == 1


def test_store_down(module_store: Store) -> None:
    """503 and nothing lost."""
    with store() as own, running(own) as stack:
        browser = stack.sign_in(stack.browser())
        own.stop()
        for method, target in (("GET", "/bff/sessions"), ("DELETE", "/bff/sessions")):
            assert browser.request(method, target, CSRF).code == "store_unavailable"
        assert browser.session
        own.start()


@pytest.mark.parametrize(
    ("agent", "name"),
    [
        (FIREFOX, "Firefox on Linux"),
        (IPHONE, "Mobile Safari on iOS"),
        ("curl/8.1.2", "curl"),
        ("", ""),
        ("\xff\x00", ""),
        ("x" * 100_000, ""),
        ("<script>alert(1)</script>", ""),
    ],
    ids=lambda text: text[:20],
)
def test_readable_browsers(agent: str, name: str) -> None:
    """A name for people, short whatever comes."""
    assert readable(agent) == name
