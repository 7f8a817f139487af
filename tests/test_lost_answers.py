"""Redis fails in the middle of something, or does it and nobody hears of it: what the control plane makes of
that. Nothing is left that nobody holds, and whatever ends is revoked."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from bff.sessions.errors import unavailable
from bff.sessions.index import UserIndex
from bff.sessions.store import SessionStore
from tests.support.browser import CSRF, Browser, error_page
from tests.support.provider import ABSENT
from tests.support.stack import Stack, Store, running, store
from tests.support.wire import Answer, until

Patch = pytest.MonkeyPatch


@pytest.fixture(scope="module")
def module_store() -> Iterator[Store]:
    with store() as found:
        yield found


@pytest.fixture
def stack(module_store: Store) -> Iterator[Stack]:
    with running(module_store, sessions_per_user="2") as stack:
        yield stack


def unheard(
    monkeypatch: Patch, owner: type, method: str, when: Callable[..., bool] = lambda *_: True
) -> None:
    """From now on that method does its work and its answer is lost."""
    original = getattr(owner, method)

    def lossy(self: object, *arguments: Any, **more: Any) -> object:
        result = original(self, *arguments, **more)
        if when(*arguments):
            raise unavailable("TimeoutError")
        return result

    monkeypatch.setattr(owner, method, lossy)


def said_twice(monkeypatch: Patch, method: str) -> None:
    """From now on that command reaches Redis twice, and the second answer is what is heard."""
    original = getattr(SessionStore, method)

    def twice(self: object, *arguments: Any) -> object:
        original(self, *arguments)
        return original(self, *arguments)

    monkeypatch.setattr(SessionStore, method, twice)


def listed(browser: Browser) -> int:
    found: list[object] = browser.api("/bff/sessions").json()
    return len(found)


def revoked(stack: Stack, times: int) -> bool:
    return until(lambda: stack.provider.count("revoke") == times)


def fails(stack: Stack) -> Answer:
    """A sign-in of another browser."""
    browser = stack.browser()
    asked = browser.get("/bff/login")
    answer = browser.callback(stack.provider.authorize(asked.get("location")))
    assert browser.session is None
    return answer


@pytest.mark.parametrize(
    ("owner", "method"), [(SessionStore, "begin"), (UserIndex, "is_cut_off"), (SessionStore, "settle")]
)
def test_a_sign_in_that_fails_leaves_no_session(stack: Stack, owner: type, method: str) -> None:
    """503, the tokens are revoked; no list shows it, and it pushes nobody's session over the cap."""
    keep = stack.sign_in(stack.browser())
    with pytest.MonkeyPatch.context() as monkeypatch:
        if method == "settle":
            monkeypatch.setattr(SessionStore, "settle", _away)
        else:
            unheard(monkeypatch, owner, method)
        for _ in range(2):
            assert error_page(fails(stack), 503) == "store_unavailable"
    assert revoked(stack, 2)
    assert listed(keep) == 1
    stack.sign_in(stack.browser())
    assert listed(keep) == 2
    with stack.store.client() as client:
        assert sorted(client.ttl(key) > 30 for key in stack.sessions()) == [False, False, True, True]


def _away(*_: object) -> object:
    raise unavailable("ConnectionError")


def test_a_sign_in_that_is_ended_before_it_is_settled(stack: Stack, monkeypatch: Patch) -> None:
    """Its user's sessions were ended between its check and the end of the sign-in: nobody gets its cookie."""
    check = UserIndex.is_cut_off

    def ended_after(self: UserIndex, names: list[str], **more: Any) -> bool:
        found = check(self, names, **more)
        with stack.store.client() as client:
            client.delete(*stack.sessions())
        return found

    monkeypatch.setattr(UserIndex, "is_cut_off", ended_after)
    assert error_page(fails(stack), 400) == "sign_in_cut_off"
    assert revoked(stack, 1)


@pytest.mark.parametrize("target", ["/bff/sessions", "/bff/sessions/"])
def test_ending_other_sessions_is_told_and_revoked(stack: Stack, monkeypatch: Patch, target: str) -> None:
    """The deletion says nothing where it is sent twice: 204 all the same, and the tokens are revoked."""
    mine, other = stack.sign_in(stack.browser()), stack.sign_in(stack.browser())
    (name,) = (each["id"] for each in mine.api("/bff/sessions").json() if not each["current"])
    said_twice(monkeypatch, "end")
    target += name if target.endswith("/") else ""
    assert mine.request("DELETE", target, CSRF).status == 204
    assert other.api("/bff/user").code == "session_expired"
    assert revoked(stack, 1)


def test_what_ended_before_the_trouble_is_revoked(stack: Stack, monkeypatch: Patch) -> None:
    """Of several sessions one cannot be ended: 503, and those that ended are revoked, as is that one."""
    mine = stack.sign_in(stack.browser())
    stack.sign_in(stack.browser())
    unheard(monkeypatch, SessionStore, "end")
    answer = mine.request("DELETE", "/bff/sessions", CSRF)
    assert (answer.status, answer.code) == (503, "store_unavailable")
    assert revoked(stack, 1)


def test_a_sign_out_that_nobody_heard_of(stack: Stack, monkeypatch: Patch) -> None:
    """The session has ended, the answer was lost: 503 for now, and the tokens are revoked."""
    browser = stack.sign_in(stack.browser())
    unheard(monkeypatch, SessionStore, "end")
    assert browser.request("POST", "/bff/logout", CSRF).code == "store_unavailable"
    assert revoked(stack, 1)
    monkeypatch.undo()
    assert browser.request("POST", "/bff/logout", CSRF).json() == {"logout_url": "/"}


def test_a_logout_token_that_could_not_be_claimed(stack: Stack, monkeypatch: Patch) -> None:
    """400, so that the provider tries again: what has ended by then has been revoked."""
    stack.sign_in(stack.browser())
    stack.sign_in(stack.browser())
    token = stack.provider.logout_token()
    unheard(monkeypatch, SessionStore, "claim_once", lambda name, *_: name.startswith("logout"))
    assert stack.browser().post("/bff/backchannel", logout_token=token).status == 400
    assert stack.sessions() == []
    assert revoked(stack, 2)


def test_a_logout_that_redis_interrupts(stack: Stack, monkeypatch: Patch) -> None:
    """The second session cannot be ended: 400; the provider's next try ends it; both are revoked."""
    for _ in range(2):
        stack.sign_in(stack.browser())
    token, calls = stack.provider.logout_token(), itertools.count(1)
    unheard(monkeypatch, SessionStore, "end", lambda *_: next(calls) == 2)
    assert stack.browser().post("/bff/backchannel", logout_token=token).status == 400
    assert stack.browser().post("/bff/backchannel", logout_token=token).status == 200
    assert stack.sessions() == []
    assert revoked(stack, 2)


@pytest.mark.parametrize(("sid", "ends"), [("another", False), (ABSENT, True)])
def test_a_logout_of_both_ends_sign_ins_without_a_sid(stack: Stack, sid: object, *, ends: bool) -> None:
    """By sid and sub, while a sign-in of that user is under way: one whose ID token has no sid may be the one
    that is meant; one with another sid is not."""
    stack.provider.claims["sid"] = sid
    browser = stack.browser()
    asked = browser.get("/bff/login")
    token = stack.provider.logout_token(sid="one")
    assert stack.browser().post("/bff/backchannel", logout_token=token).status == 200
    answer = browser.callback(stack.provider.authorize(asked.get("location")))
    if ends:
        assert error_page(answer, 400) == "sign_in_cut_off"
    else:
        assert browser.api("/bff/user").status == 200
