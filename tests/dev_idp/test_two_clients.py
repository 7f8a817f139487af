"""Single sign-on over two clients, one of them added through the control API."""

from typing import Any
from urllib.parse import urlencode

import pytest

from tests.dev_idp.conftest import MakeBrowser
from tests.dev_idp.control import TOKEN, call
from tests.dev_idp.flow import ADMIN, HOME, VERIFIER, Browser, Clock, decode, query_of

SECOND = "http://127.0.0.1:6003/cb"
SECOND_HOME = "http://127.0.0.1:6003/bye"


@pytest.fixture
def browser(make: MakeBrowser) -> Browser:
    """A browser at a provider that has two clients."""
    browser = make(control_token=TOKEN)
    wish = {
        "client_id": "second",
        "client_secret": "second-secret",
        "redirect_uris": [SECOND],
        "logout_uris": [SECOND_HOME],
    }
    answer = call(browser, "POST", "/clients", wish)
    assert answer.status_code == 201
    assert answer.get_json() == wish
    return browser


def _second(browser: Browser, **changes: str | None) -> Any:
    return browser.authorize(client_id="second", redirect_uri=SECOND, **changes)


def _redeem(browser: Browser, code: str, client_id: str = "second", secret: str = "second-secret") -> Any:
    form = {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": SECOND,
        "code_verifier": VERIFIER,
    }
    return browser.post("/oauth2/token", form, auth=(client_id, secret))


def test_signed_in_at_one_is_signed_in_at_the_other(browser: Browser, clock: Clock) -> None:
    """Without a page, with the same sign-in time; the tokens name their own client."""
    first = browser.tokens()
    clock.forward(30)
    answer = query_of(_second(browser, prompt="none").location)
    second = _redeem(browser, answer["code"]).get_json()
    one, two = decode(first["id_token"])[1], decode(second["id_token"])[1]
    assert (one["sub"], one["auth_time"]) == (two["sub"], two["auth_time"])
    assert (one["aud"], two["aud"]) == ("local-client", "second")
    assert decode(second["access_token"])[1]["client_id"] == "second"
    assert one["origin_jti"] != two["origin_jti"]


def test_another_user_at_one_is_the_user_of_both(browser: Browser, clock: Clock) -> None:
    """prompt=login renews the one session that both stand on, with a fresh auth_time."""
    old = decode(browser.tokens()["id_token"])[1]
    clock.forward(30)
    assert _second(browser, prompt="login").location.startswith("/login?")
    browser.sign_in(ADMIN, prompt="login")
    code = query_of(_second(browser).location)["code"]
    new = decode(_redeem(browser, code).get_json()["id_token"])[1]
    assert new["email"] == ADMIN
    assert new["auth_time"] == old["auth_time"] + 30


def test_signing_out_at_one_ends_the_session_of_both(browser: Browser) -> None:
    """Each returns to its own address only."""
    browser.sign_in()
    wrong = browser.get("/logout", client_id="second", logout_uri=HOME)
    assert wrong.status_code == 400
    assert browser.get("/logout", client_id="second", logout_uri=SECOND_HOME).location == SECOND_HOME
    assert query_of(browser.authorize(prompt="none").location)["error"] == "login_required"
    assert query_of(_second(browser, prompt="none").location)["error"] == "login_required"


def test_clients_are_kept_apart(browser: Browser) -> None:
    """Codes, refresh tokens and redirect URIs of one are nothing to the other."""
    browser.sign_in()
    assert browser.authorize(redirect_uri=SECOND).status_code == 400
    assert browser.authorize(client_id="second").status_code == 400
    code = query_of(_second(browser).location)["code"]
    stolen = _redeem(browser, code, browser.settings.client_id, browser.settings.client_secret)
    assert stolen.get_json()["error"] == "invalid_grant"
    assert _redeem(browser, code, secret="wrong-secret").get_json()["error"] == "invalid_client"
    tokens = _redeem(browser, code).get_json()
    assert browser.refresh(tokens["refresh_token"]).get_json()["error"] == "invalid_grant"


def test_the_added_client_has_no_client_credentials(browser: Browser) -> None:
    """It is one for the code grant, as at Cognito."""
    form = {"grant_type": "client_credentials"}
    answer = browser.post("/oauth2/token", form, auth=("second", "second-secret"))
    assert answer.get_json()["error"] == "unauthorized_client"


def test_form_action_follows(browser: Browser) -> None:
    """Browsers check where a form's redirect leads: the new client's origin is among them at once."""
    policy = browser.get("/").headers["Content-Security-Policy"]
    assert policy.endswith("form-action 'self' http://127.0.0.1:6003 http://localhost:5003")


def test_id_and_secret_are_made_where_none_are_given(browser: Browser) -> None:
    """Random ones that work."""
    answers = [call(browser, "POST", "/clients", {"redirect_uris": [SECOND]}).get_json() for _ in range(2)]
    assert answers[0]["client_id"] != answers[1]["client_id"]
    assert len(answers[0]["client_secret"]) >= 32
    browser.sign_in()
    made = answers[0]["client_id"]
    answer = browser.authorize(client_id=made, redirect_uri=SECOND)
    code = query_of(answer.location)["code"]
    assert _redeem(browser, code, made, answers[0]["client_secret"]).status_code == 200


def test_the_sign_in_page_works_for_it_too(browser: Browser) -> None:
    """A first sign-in that begins at the added client."""
    answer = browser.submit_login(client_id="second", redirect_uri=SECOND)
    assert answer.status_code == 303
    assert answer.location.startswith(f"{SECOND}?")
    assert urlencode({"state": "state-1"}) in answer.location
