"""Sign-out with Cognito's and with the standard's parameters."""

from urllib.parse import urlencode

import pytest

from tests.dev_idp.conftest import MakeBrowser
from tests.dev_idp.flow import (
    CALLBACK,
    HOME,
    Browser,
    Clock,
    query_of,
    request_parameters,
)


def _is_signed_in(browser: Browser) -> bool:
    return "code" in query_of(browser.authorize(prompt="none").location)


@pytest.mark.parametrize(
    ("parameters", "location"),
    [
        ({"client_id": "local-client", "logout_uri": HOME}, HOME),
        ({"client_id": "local-client", "post_logout_redirect_uri": HOME}, HOME),
        ({"post_logout_redirect_uri": HOME}, HOME),
        (
            {"client_id": "local-client", "post_logout_redirect_uri": HOME, "state": "a b&c"},
            HOME + "?state=a+b%26c",
        ),
        ({"post_logout_redirect_uri": HOME, "logout_hint": "x", "ui_locales": "de"}, HOME),
    ],
)
def test_sign_out_ends_the_session_and_returns(
    browser: Browser, parameters: dict[str, str], location: str
) -> None:
    """302 to the registered address, cookie removed, session over."""
    browser.sign_in()
    assert _is_signed_in(browser)
    response = browser.get("/logout", **parameters)
    assert response.status_code == 302
    assert response.location == location
    assert any(
        value.startswith("local_idp=;") and "HttpOnly" in value
        for value in response.headers.getlist("Set-Cookie")
    )
    assert not _is_signed_in(browser)


def test_a_copied_cookie_is_dead_after_sign_out(browser: Browser) -> None:
    """The session ends on the server, not only in the browser."""
    browser.sign_in()
    cookie = browser.client.get_cookie("local_idp", domain="127.0.0.1")
    assert cookie is not None
    browser.get("/logout", client_id="local-client", logout_uri=HOME)
    browser.client.set_cookie("local_idp", cookie.value, domain="127.0.0.1")
    assert not _is_signed_in(browser)


def test_sign_out_works_when_nobody_is_signed_in(browser: Browser) -> None:
    """Somebody whose session has ended still gets back to the application."""
    response = browser.get("/logout", client_id="local-client", logout_uri=HOME)
    assert response.location == HOME


def test_sign_out_and_in_again(browser: Browser) -> None:
    """Cognito's second form leads to the sign-in page."""
    browser.sign_in()
    response = browser.get("/logout", **request_parameters())
    assert response.status_code == 302
    assert response.location.startswith("/oauth2/authorize?")
    assert query_of(response.location) == request_parameters()
    page = browser.client.get(response.location, base_url=browser.origin)
    assert page.location.startswith("/login?")


def test_sign_out_without_address_shows_a_page(browser: Browser) -> None:
    """OpenID Connect RP-Initiated Logout makes the address optional."""
    browser.sign_in()
    response = browser.get("/logout", client_id="local-client")
    assert response.status_code == 200
    assert "You are signed out" in response.text
    assert not _is_signed_in(browser)


@pytest.mark.parametrize(
    "parameters",
    [
        {"client_id": "local-client", "logout_uri": HOME + "x"},
        {"client_id": "local-client", "logout_uri": HOME[:-1]},
        {"client_id": "local-client", "logout_uri": ""},
        {"client_id": "local-client", "logout_uri": "https://evil.example/"},
        {"client_id": "local-client", "logout_uri": CALLBACK},
        {"logout_uri": HOME},
        {"client_id": "other", "logout_uri": HOME},
        {"client_id": "", "logout_uri": HOME},
        {"client_id": "local-client", "post_logout_redirect_uri": HOME + "?x"},
        {"client_id": "local-client", "post_logout_redirect_uri": "//evil.example/"},
        {"post_logout_redirect_uri": "https://evil.example/"},
        {"post_logout_redirect_uri": ""},
        {"client_id": "other", "post_logout_redirect_uri": HOME},
        {"client_id": "other"},
        {"post_logout_redirect_uri": HOME, "id_token_hint": "a.b.c"},
        {"id_token_hint": "é"},
        {"client_id": "local-client", "redirect_uri": "https://evil.example/"},
        {"redirect_uri": CALLBACK},
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_bad_sign_out_is_a_page_and_ends_nothing(
    browser: Browser, parameters: dict[str, str], method: str
) -> None:
    """No open redirect, and a mistake doesn't sign anybody out."""
    browser.sign_in()
    if method == "GET":
        response = browser.get("/logout", **parameters)
    else:
        response = browser.post("/logout", parameters)
    assert response.status_code == 400
    assert "Location" not in response.headers
    assert "evil.example" not in response.text
    assert _is_signed_in(browser)


def test_doubled_parameters_are_refused(browser: Browser) -> None:
    """One address must not be checked and another one used."""
    query = urlencode({"client_id": "local-client", "logout_uri": HOME})
    path = f"/logout?{query}&logout_uri=https://evil.example/"
    assert browser.client.get(path, base_url=browser.origin).status_code == 400


def test_id_token_hint_names_the_client(browser: Browser, clock: Clock) -> None:
    """An ID token of ours is accepted, expired or not; an access token is not."""
    tokens = browser.tokens()
    clock.forward(400)
    response = browser.get("/logout", id_token_hint=tokens["id_token"], post_logout_redirect_uri=HOME)
    assert response.location == HOME
    assert browser.get("/logout", id_token_hint=tokens["access_token"]).status_code == 400


def test_id_token_hint_of_another_client_is_refused(make: MakeBrowser) -> None:
    """The hint and the client_id must agree."""
    token = make().tokens()["id_token"]
    other = make(client_id="another")
    response = other.get("/logout", id_token_hint=token, client_id="another")
    assert response.status_code == 400


def test_posted_sign_out_from_another_site_comes_back_by_get(browser: Browser) -> None:
    """Such a form comes without the Lax cookie; the redirect brings it, but never the token."""
    token = browser.tokens()["id_token"]
    stranger = Browser(browser.app)
    form = {"id_token_hint": token, "post_logout_redirect_uri": HOME, "state": "s"}
    response = stranger.post("/logout", form)
    assert response.status_code == 303
    assert query_of(response.location) == {
        "post_logout_redirect_uri": HOME,
        "state": "s",
        "client_id": "local-client",
    }
    back = browser.client.get(response.location, base_url=browser.origin)
    assert back.location == HOME + "?state=s"
    assert not _is_signed_in(browser)


def test_posted_sign_out_with_the_cookie_ends_at_once(browser: Browser) -> None:
    """A same-site form needs no second round."""
    browser.sign_in()
    response = browser.post("/logout", {"client_id": "local-client", "logout_uri": HOME})
    assert response.status_code == 302
    assert not _is_signed_in(browser)


def test_sign_out_leaves_the_clients_tokens_alone(browser: Browser) -> None:
    """As at Cognito: refresh tokens end by revocation."""
    tokens = browser.tokens()
    browser.get("/logout", client_id="local-client", logout_uri=HOME)
    assert browser.refresh(tokens["refresh_token"]).status_code == 200
