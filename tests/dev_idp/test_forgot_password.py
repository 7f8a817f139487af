"""A forgotten password: page, code, new password, and the end of what the old one opened."""

import logging
import re
from urllib.parse import urlencode

import pytest
from werkzeug.test import TestResponse

from tests.dev_idp.conftest import MakeBrowser
from tests.dev_idp.flow import (
    ADMIN,
    ALICE,
    ORIGIN,
    PASSWORD,
    Browser,
    Clock,
    hidden,
    query_of,
    request_parameters,
    services,
)

NEW = "N3w-Passw0rd"


def _ask(browser: Browser, username: str = ALICE) -> TestResponse:
    query = request_parameters()
    form_token = hidden(browser.get("/forgotPassword", **query), "form_token")
    data = {"username": username, "form_token": form_token}
    return browser.post(f"/forgotPassword?{urlencode(query)}", data)


def _code(page: TestResponse) -> str:
    found = re.search(r'<code class="code">(\d{6})</code>', page.text)
    assert found is not None
    return found[1]


def _finish(browser: Browser, code: str, password: str = NEW, username: str = ALICE) -> TestResponse:
    query = request_parameters()
    form_token = hidden(browser.get("/forgotPassword", **query), "form_token")
    data = {"username": username, "code": code, "password": password, "form_token": form_token}
    return browser.post(f"/confirmForgotPassword?{urlencode(query)}", data)


def _other(code: str) -> str:
    return f"{(int(code) + 1) % 1_000_000:06}"


def test_from_the_sign_in_page_to_a_new_password(browser: Browser, caplog: pytest.LogCaptureFixture) -> None:
    """Link, address, code on the page and in the console, new password, sign-in with it and not the old."""
    caplog.set_level(logging.INFO, "bff.dev_idp")
    link = re.search(r'href="(/forgotPassword\?[^"]+)"', browser.get("/login", **request_parameters()).text)
    assert link is not None
    form = browser.client.get(link[1].replace("&amp;", "&"), base_url=ORIGIN)
    assert "For development only." in form.text
    page = _ask(browser)
    assert page.status_code == 200
    code = _code(page)
    assert "stands in the console" in page.text
    assert f"{ALICE}: {code}" in caplog.text
    done = _finish(browser, code)
    assert "Your password is changed" in done.text
    back = re.search(r'href="(/login\?[^"]+)"', done.text)
    assert back is not None
    assert query_of(back[1].replace("&amp;", "&")) == request_parameters()
    assert "is not correct" in browser.submit_login(ALICE, PASSWORD).text
    assert browser.submit_login(ALICE, NEW).status_code == 303
    assert NEW not in caplog.text


def test_the_console_is_named_only_where_the_code_stands_there(
    browser: Browser, caplog: pytest.LogCaptureFixture
) -> None:
    """With IDP_LOG_LEVEL=warning it doesn't."""
    caplog.set_level(logging.WARNING, "bff.dev_idp")
    page = _ask(browser)
    assert _code(page)
    assert "console" not in page.text


def test_a_new_password_ends_what_the_old_one_opened(browser: Browser) -> None:
    """Refresh tokens, sessions in all browsers and unused codes of this user, and nobody else's."""
    thief, admin = Browser(browser.app), Browser(browser.app)
    stolen, held = thief.tokens(), admin.tokens(ADMIN)
    unused = thief.sign_in()
    assert "Your password is changed" in _finish(browser, _code(_ask(browser))).text
    assert thief.refresh(stolen["refresh_token"]).get_json()["error"] == "invalid_grant"
    assert thief.user_info(stolen["access_token"]).status_code == 401
    assert thief.redeem(unused).get_json()["error"] == "invalid_grant"
    assert query_of(thief.authorize(prompt="none").location)["error"] == "login_required"
    assert admin.refresh(held["refresh_token"]).status_code == 200
    assert "code" in query_of(admin.authorize(prompt="none").location)


def test_asking_alone_ends_nothing(browser: Browser) -> None:
    """Anybody can ask for anybody."""
    tokens = browser.tokens()
    _ask(browser)
    _finish(browser, "000000x")
    assert browser.refresh(tokens["refresh_token"]).status_code == 200
    assert browser.submit_login().status_code == 303


@pytest.mark.parametrize("username", ["nobody@example.com", "x", "bo.b@example", "alice@example.com.evil"])
def test_nobody_learns_whether_an_account_exists(browser: Browser, username: str) -> None:
    """Both pages are the same for a known and an unknown address, a code included that works nowhere."""

    def page_without_what_was_typed(name: str) -> str:
        page = _ask(browser, name)
        return page.text.replace(_code(page), "CODE").replace(f">{name}<", "><").replace(f'"{name}"', '""')

    assert page_without_what_was_typed(username) == page_without_what_was_typed(ALICE)
    right, useless = _code(_ask(browser)), _code(_ask(browser, username))
    wrong = _finish(browser, _other(right))
    refused = _finish(browser, useless, username=username)
    assert "This is not the code" in wrong.text
    assert wrong.text.replace(f'"{ALICE}"', '""') == refused.text.replace(f'"{username}"', '""')


@pytest.mark.parametrize("username", ["", "bö@example.com", "a" * 9000, "\x00", "'--", "\u202e", "<b>"])
def test_junk_for_an_address_is_an_unknown_address(browser: Browser, username: str) -> None:
    """No error of ours, nothing unescaped."""
    page = _ask(browser, username)
    assert page.status_code == 200
    assert "<b>" not in page.text
    assert "This is not the code" in _finish(browser, _code(page), username=username).text


@pytest.mark.parametrize("code", ["", "12345", "x", "é", "0" * 5000, "\x00"])
def test_a_wrong_code_changes_nothing(browser: Browser, code: str) -> None:
    """An honest word, the old password stays, and the right code still works afterwards."""
    right = _code(_ask(browser))
    assert "This is not the code" in _finish(browser, code).text
    assert browser.submit_login().status_code == 303
    assert "Your password is changed" in _finish(browser, f" {right} ").text


def test_a_code_works_once(browser: Browser) -> None:
    """Used up with the change."""
    code = _code(_ask(browser))
    _finish(browser, code)
    assert "This is not the code" in _finish(browser, code, "Other-Passw0rd").text
    assert browser.submit_login(ALICE, NEW).status_code == 303


def test_a_code_lives_for_an_hour(browser: Browser, clock: Clock) -> None:
    """As at Cognito."""
    code = _code(_ask(browser))
    clock.forward(3600)
    assert "This is not the code" in _finish(browser, code).text


def test_a_new_code_ends_the_old_one(browser: Browser) -> None:
    """The latest counts."""
    old, new = _code(_ask(browser)), _code(_ask(browser))
    if old != new:
        assert "This is not the code" in _finish(browser, old).text
    assert "Your password is changed" in _finish(browser, new).text


def test_five_wrong_codes_end_the_right_one(browser: Browser) -> None:
    """Six digits aren't many."""
    code = _code(_ask(browser))
    for _ in range(5):
        _finish(browser, _other(code))
    assert "This is not the code" in _finish(browser, code).text


def test_a_code_is_for_its_own_user(browser: Browser) -> None:
    """Alice's changes nobody else's password."""
    code = _code(_ask(browser))
    _ask(browser, ADMIN)
    if code != services(browser.app).resets.recent(most=1)[0][1]:
        assert "This is not the code" in _finish(browser, code, username=ADMIN).text
    assert browser.submit_login(ADMIN).status_code == 303


@pytest.mark.parametrize("password", ["", "short", "alllowercase-1", "x" * 300])
def test_a_weak_password_is_said_and_uses_up_nothing(browser: Browser, password: str) -> None:
    """The code still works for a better one."""
    code = _code(_ask(browser))
    assert "The password needs" in _finish(browser, code, password).text
    assert browser.submit_login().status_code == 303
    assert "Your password is changed" in _finish(browser, code).text


def test_reloading_the_second_page_begins_again(browser: Browser) -> None:
    """It can't be reached by its address alone."""
    response = browser.get("/confirmForgotPassword", **request_parameters())
    assert response.status_code == 303
    assert response.location.startswith("/forgotPassword?")


def test_the_new_password_outlives_a_restart(browser: Browser, make: MakeBrowser) -> None:
    """A start adds missing users only."""
    _finish(browser, _code(_ask(browser)))
    assert make().submit_login(ALICE, NEW).status_code == 303


@pytest.mark.parametrize("path", ["/forgotPassword", "/confirmForgotPassword"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_the_request_is_judged_first(browser: Browser, path: str, method: str) -> None:
    """An unknown client gets an error page, a bad request goes back to its client."""
    form_token = hidden(browser.get("/login", **request_parameters()), "form_token")
    for changes in ({"client_id": "other"}, {"redirect_uri": "https://evil.example/"}):
        query = request_parameters(**changes)
        if method == "GET" and path == "/confirmForgotPassword":
            continue
        response = browser.client.open(
            path, method=method, query_string=query, data={"form_token": form_token}, base_url=ORIGIN
        )
        assert response.status_code == 400
        assert "Location" not in response.headers
