"""Sessions that share something at the provider: what ends one of them must not end another by accident."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.browser import CSRF, Browser, error_page
from tests.support.provider import ABSENT, Reply, ScriptedProvider, Seen, scripted_provider
from tests.support.stack import Stack, Store, running, store
from tests.support.wire import until

STEP_UP = '[[routes]]\npath = "/pay"\nupstream = "UPSTREAM"\nmax_age = 300\n'


@pytest.fixture(scope="module")
def module_store() -> Iterator[Store]:
    with store() as found:
        yield found


def one_grant(provider: ScriptedProvider) -> None:
    """As npm's oidc-provider (by revocation) and Keycloak (by both): what is revoked takes every refresh
    token of this client and user along."""

    def end_all(_seen: Seen) -> Reply:
        for name in [name for name in provider.grants if name.startswith("refresh-")]:
            del provider.grants[name]
        return Reply(200)

    provider.replies |= {"revoke": end_all, "logout": end_all}


@pytest.fixture(params=["generic", "keycloak"])
def stack(module_store: Store, request: pytest.FixtureRequest) -> Iterator[Stack]:
    with running(module_store, toml=STEP_UP, oidc_profile=request.param) as stack:
        one_grant(stack.provider)
        yield stack


def renews(stack: Stack, browser: Browser) -> bool:
    """Whether the browser's session outlives its access token."""
    time.sleep(0.2)  # what is revoked is revoked beside the answer
    stack.clock.ahead += 400
    return browser.api("/weather").status == 200


def settles(count: Callable[[], int], at: int) -> None:
    """What is done beside the answers is done so often, and no more."""
    assert until(lambda: count() >= at)
    time.sleep(0.3)
    assert count() == at


def asked(stack: Stack) -> int:
    return stack.provider.count("revoke") + stack.provider.count("logout")


def test_a_second_sign_in(stack: Stack) -> None:
    """The new session is renewed like any other, and the old one is over."""
    browser = stack.sign_in(stack.browser())
    old = browser.session
    stack.sign_in(browser)
    assert browser.get("/bff/user", CSRF, cookies={"bff": str(old)}).code == "session_expired"
    assert renews(stack, browser)
    assert asked(stack) == 0


def test_a_step_up(stack: Stack) -> None:
    """After a step-up the session goes on."""
    browser = stack.sign_in(stack.browser())
    stack.clock.ahead = 310
    address = browser.api("/pay").json()["login_url"]
    again = browser.get(address)
    browser.callback(stack.provider.authorize(again.get("location")))
    assert browser.api("/pay").status == 200
    assert renews(stack, browser)


def test_two_tabs(stack: Stack) -> None:
    """Of two overlapping sign-ins the later one's session goes on."""
    browser = stack.browser()
    answers = [browser.get("/bff/login").get("location") for _ in range(2)]
    for address in answers:
        assert browser.callback(stack.provider.authorize(address)).status == 200
    assert renews(stack, browser)


@pytest.mark.parametrize("bend", [{"claims": {"aud": "other"}}, {"claims": {"nonce": "x"}}], ids=str)
def test_a_step_up_that_fails(stack: Stack, bend: dict[str, Any]) -> None:
    """A second sign-in whose ID token is refused leaves the first one's session as it was."""
    browser = stack.sign_in(stack.browser())
    address = browser.get("/bff/login").get("location")
    stack.provider.claims |= bend["claims"]
    assert error_page(browser.callback(stack.provider.authorize(address)), 400) == "id_token_invalid"
    stack.provider.claims.clear()
    assert renews(stack, browser)


def test_a_refresh_under_way(stack: Stack) -> None:
    """What a refresh brings home for a session that was replaced meanwhile is not revoked, either."""
    browser = stack.sign_in(stack.browser())
    held = dict(browser.cookies)
    address = browser.get("/bff/login").get("location")
    stack.clock.ahead = 290  # due, and still good
    arrived, go = threading.Event(), threading.Event()

    def slow(seen: Seen) -> Reply:
        if seen.form["grant_type"] == "refresh_token":
            arrived.set()
            go.wait(5)
        return stack.provider._token(seen)

    stack.provider.replies["token"] = slow
    assert browser.get("/weather", CSRF, cookies=held).status == 200
    assert arrived.wait(5)
    assert browser.callback(stack.provider.authorize(address)).status == 200
    go.set()
    assert renews(stack, browser)


def test_another_user(module_store: Store) -> None:
    """A session of somebody else that a sign-in replaces is revoked."""
    with running(module_store) as stack:
        browser = stack.sign_in(stack.browser())
        stack.provider.claims["sub"] = "somebody-else"
        stack.sign_in(browser)
        assert until(lambda: stack.provider.count("revoke") == 1, within=5)


@pytest.mark.parametrize("shared", [True, False])
def test_ending_another_session(module_store: Store, shared: bool) -> None:
    """One's other sessions are revoked, unless they are known to be one with this one at the provider."""
    with running(module_store) as stack:
        browsers = []
        for number in range(3):
            stack.provider.claims["sid"] = "one" if shared else f"session-{number}"
            browsers.append(stack.sign_in(stack.browser()))
        listed = browsers[2].api("/bff/sessions").json()
        other = next(each["id"] for each in listed if not each["current"])
        assert browsers[2].request("DELETE", f"/bff/sessions/{other}", CSRF).status == 204
        assert browsers[2].request("DELETE", "/bff/sessions", CSRF).status == 204
        assert [each.api("/bff/user").status for each in browsers] == [401, 401, 200]
        settles(lambda: stack.provider.count("revoke"), 0 if shared else 2)


@pytest.mark.parametrize("shared", [True, False])
def test_the_cap(module_store: Store, shared: bool) -> None:
    """The same where a cap ends the oldest one; Keycloak, which would end them all, is asked for nothing."""
    for profile in ("generic", "keycloak"):
        with running(module_store, sessions_per_user="1", oidc_profile=profile) as stack:
            for number in range(2):
                stack.provider.claims["sid"] = "one" if shared else f"session-{number}"
                browser = stack.sign_in(stack.browser())
            assert len(stack.sessions()) == 1
            settles(lambda: stack.provider.count("revoke"), int(profile == "generic" and not shared))
            assert stack.provider.count("logout") == 0
            assert browser.api("/bff/user").status == 200


def test_a_provider_that_calls(module_store: Store) -> None:
    """After a back-channel logout, Keycloak's session of another browser is left alone."""
    with running(module_store, oidc_profile="keycloak") as stack:
        one_grant(stack.provider)
        stack.provider.claims["sid"] = "one"
        stack.sign_in(stack.browser())
        stack.provider.claims["sid"] = "two"
        other = stack.sign_in(stack.browser())
        token = stack.provider.logout_token(sid="one", sub=ABSENT)
        assert stack.browser().post("/bff/backchannel", logout_token=token).status == 200
        assert renews(stack, other)


# -- sign-ins that bring tokens and no session ------------------------------------------------------


def test_tokens_with_an_id_token_that_is_refused(module_store: Store) -> None:
    """They are revoked: nobody will ever hold them."""
    with running(module_store) as stack:
        stack.provider.claims["aud"] = "other"
        browser = stack.browser()
        answer = browser.callback(stack.provider.authorize(browser.get("/bff/login").get("location")))
        assert error_page(answer, 400) == "id_token_invalid"
        assert until(lambda: stack.provider.count("revoke") == 1, within=5)


def test_no_code_is_redeemed_without_keys(module_store: Store) -> None:
    """While the keys are not to be had the code stays unused, and the same address works once they are."""
    with scripted_provider() as provider:
        provider.replies["jwks"] = Reply(500)  # before the start, which asks for the keys
        with running(module_store, provider=provider) as stack:
            browser = stack.browser()
            response = stack.provider.authorize(browser.get("/bff/login").get("location"))
            assert error_page(browser.callback(response), 503) == "provider_unavailable"
            assert stack.provider.count("token") == 0
            assert len(browser.attempts) == 1
            stack.provider.replies.clear()
            stack.clock.ahead = 6
            assert browser.callback(response).status == 200
