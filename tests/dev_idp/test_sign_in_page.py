"""The sign-in page, single sign-on, prompts, and the guard of the forms."""

import logging
import re
from io import StringIO
from urllib.parse import urlencode

import pytest

from tests.dev_idp.conftest import MakeBrowser
from tests.dev_idp.flow import (
    ADMIN,
    ALICE,
    ORIGIN,
    PASSWORD,
    Browser,
    Clock,
    decode,
    hidden,
    query_of,
    request_parameters,
    services,
)


def test_page_works_without_script_and_says_what_it_is_for(browser: Browser) -> None:
    """A plain form with the fields username and password, and the warning."""
    page = browser.get("/login", **request_parameters())
    assert page.status_code == 200
    assert '<form method="post"' in page.text
    for name in ("username", "password"):
        assert f'name="{name}"' in page.text
    assert "For development only." in page.text
    assert "<script" not in page.text
    assert " style=" not in page.text
    assert page.headers["Referrer-Policy"] == "same-origin"
    assert page.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    ("username", "password"),
    [
        (ALICE, "wrong"),
        (ALICE, ""),
        (ALICE, PASSWORD.lower()),
        (ALICE, PASSWORD + "\x00"),
        (ALICE, "x" * 5000),
        ("nobody@example.com", PASSWORD),
        ("", ""),
        ("nobody@example.com", ""),
        ("' OR 1=1 --", PASSWORD),
        ("é\ud800".encode("utf-8", "replace").decode(), PASSWORD),
    ],
)
def test_wrong_password_gets_an_honest_page(browser: Browser, username: str, password: str) -> None:
    """The same message for unknown users and wrong passwords, no redirect, no session."""
    page = browser.submit_login(username, password)
    assert page.status_code == 200
    assert "The e-mail address or the password is not correct." in page.text
    assert "local_idp=" not in str(page.headers.getlist("Set-Cookie"))
    assert browser.authorize(prompt="none").location.startswith("http://localhost:5003/")


def test_typed_name_stays_and_is_escaped(browser: Browser) -> None:
    """The page keeps the name for correction; markup in it stays text."""
    page = browser.submit_login('"><script>alert(1)</script>', "wrong")
    assert "<script" not in page.text
    assert "&lt;script&gt;" in page.text


def test_user_name_is_taken_in_any_case_and_with_blanks(browser: Browser) -> None:
    """People type e-mail addresses in many ways."""
    assert browser.submit_login("  Alice@Example.COM ", PASSWORD).status_code == 303


def test_login_hint_is_filled_in(browser: Browser) -> None:
    """And escaped; lang and other unknown parameters are accepted."""
    page = browser.get(
        "/login", **request_parameters(login_hint='a"b@example.com', lang="de", acr_values="1")
    )
    assert 'value="a&#34;b@example.com"' in page.text


@pytest.mark.parametrize("name", ["lang", "ui_locales"])
@pytest.mark.parametrize("value", ["en", "de", "pt-BR", "de en", "", "x" * 500, '"><b>', "é"])
def test_language_is_accepted_and_carried(browser: Browser, name: str, value: str) -> None:
    """From page to page and through the form; the pages are English and say so, whatever was asked for."""
    location = browser.authorize(**{name: value}).location
    page = browser.client.get(location, base_url=ORIGIN)
    assert '<html lang="en">' in page.text
    link = re.search(r'href="(/signup\?[^"]+)"', page.text)
    assert link is not None
    assert query_of(link[1].replace("&amp;", "&"))[name] == value
    assert "<b>" not in page.text
    assert "code" in query_of(browser.submit_login(**{name: value}).location)


def test_session_gives_single_sign_on(browser: Browser) -> None:
    """A second request is answered without a page, with the same sign-in time."""
    first = browser.tokens()
    response = browser.authorize(state="second")
    assert response.status_code == 302
    answer = query_of(response.location)
    assert answer["state"] == "second"
    second = browser.redeem(answer["code"]).get_json()
    old, new = decode(first["access_token"])[1], decode(second["access_token"])[1]
    assert (old["sub"], old["auth_time"]) == (new["sub"], new["auth_time"])
    assert old["origin_jti"] != new["origin_jti"]


def test_session_cookie(browser: Browser, make: MakeBrowser) -> None:
    """HttpOnly, Lax, no lifetime of its own; over https Secure with the __Host- prefix."""
    cookie = next(
        value
        for value in browser.submit_login().headers.getlist("Set-Cookie")
        if value.startswith("local_idp=")
    )
    assert cookie.partition("; ")[2] == "HttpOnly; Path=/; SameSite=Lax"
    secure = make(public_url="https://127.0.0.1:5002")
    cookie = next(
        value
        for value in secure.submit_login().headers.getlist("Set-Cookie")
        if value.startswith("__Host-local_idp=")
    )
    assert cookie.partition("; ")[2] == "Secure; HttpOnly; Path=/; SameSite=Lax"


def test_sign_in_always_makes_a_new_session(browser: Browser) -> None:
    """A cookie planted before the sign-in opens nothing after it, and the old session ends."""
    host = "127.0.0.1"
    browser.client.set_cookie("local_idp", "planted", domain=host)
    browser.sign_in()
    first = browser.client.get_cookie("local_idp", domain=host)
    browser.sign_in(ADMIN, prompt="login")
    second = browser.client.get_cookie("local_idp", domain=host)
    assert first is not None
    assert second is not None
    assert len({"planted", first.value, second.value}) == 3
    sessions = services(browser.app).sessions
    assert sessions.find("planted") is None
    assert sessions.find(first.value) is None
    assert sessions.find(second.value) is not None


def test_session_ends_after_an_hour(browser: Browser, clock: Clock) -> None:
    """The server decides, not the cookie."""
    browser.sign_in()
    clock.forward(3599)
    assert "code" in query_of(browser.authorize(prompt="none").location)
    clock.forward(1)
    assert query_of(browser.authorize(prompt="none").location)["error"] == "login_required"


def test_prompt_none_with_a_session_answers_with_a_code(browser: Browser) -> None:
    """Silent sign-in for those who are signed in."""
    browser.sign_in()
    assert "code" in query_of(browser.authorize(prompt="none").location)


@pytest.mark.parametrize("prompt", ["login", "select_account login", "consent login"])
def test_prompt_login_asks_again_and_renews_auth_time(browser: Browser, clock: Clock, prompt: str) -> None:
    """The session isn't enough, and the new sign-in counts from now."""
    before = decode(browser.tokens()["id_token"])[1]
    clock.forward(50)
    assert browser.authorize(prompt=prompt).location.startswith("/login?")
    after = decode(browser.tokens(prompt=prompt)["id_token"])[1]
    assert after["auth_time"] == before["auth_time"] + 50


@pytest.mark.parametrize("prompt", ["consent", "select_account", "select_account consent"])
def test_other_prompts_have_no_effect(browser: Browser, prompt: str) -> None:
    """As at Cognito, where they are for providers behind it: the session is enough."""
    browser.sign_in()
    assert "code" in query_of(browser.authorize(prompt=prompt).location)


def test_max_age_asks_again_when_the_sign_in_is_too_old(browser: Browser, clock: Clock) -> None:
    """OpenID Connect Core section 3.1.2.1; with prompt=none it is login_required."""
    browser.sign_in()
    clock.forward(50)
    assert "code" in query_of(browser.authorize(max_age="50").location)
    clock.forward(1)
    assert browser.authorize(max_age="50").location.startswith("/login?")
    silent = browser.authorize(max_age="50", prompt="none")
    assert query_of(silent.location)["error"] == "login_required"


@pytest.mark.parametrize(
    "path", ["/login", "/signup", "/confirm", "/forgotPassword", "/confirmForgotPassword"]
)
@pytest.mark.parametrize("case", ["no token", "wrong token", "no cookie", "other origin", "null"])
def test_forms_are_taken_from_our_pages_only(browser: Browser, path: str, case: str) -> None:
    """Sign-in CSRF: a post without this browser's token, or from another origin, is refused."""
    query = request_parameters()
    token = hidden(browser.get("/login", **query), "form_token")
    headers = {"Origin": ORIGIN}
    if case == "no token":
        token = ""
    if case == "wrong token":
        token = "0" * 64
    if case == "no cookie":
        browser.client.delete_cookie("local_idp_form", domain="127.0.0.1")
    if case == "other origin":
        headers = {"Origin": "http://127.0.0.1:5003"}
    if case == "null":
        headers = {"Origin": "null"}
    response = browser.post(
        f"{path}?{urlencode(query)}",
        {"username": ALICE, "password": PASSWORD, "form_token": token},
        headers=headers,
    )
    assert response.status_code == 403
    assert "Location" not in response.headers


def test_form_of_our_own_origin_is_taken(browser: Browser) -> None:
    """What a browser sends: the token and an equal Origin."""
    query = request_parameters()
    token = hidden(browser.get("/login", **query), "form_token")
    response = browser.post(
        f"/login?{urlencode(query)}",
        {"username": ALICE, "password": PASSWORD, "form_token": token},
        headers={"Origin": ORIGIN},
    )
    assert response.status_code == 303


def test_two_open_pages_share_the_form_cookie(browser: Browser) -> None:
    """A second tab doesn't spoil the first one's form."""
    pages = [browser.get("/login", **request_parameters()) for _ in range(2)]
    assert len({hidden(page, "form_token") for page in pages}) == 1
    assert "Set-Cookie" not in pages[1].headers


def test_sign_up_leads_from_page_to_page_to_tokens(
    browser: Browser, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """Link, form, confirmation code (on the page and in the log), and on to the client."""
    caplog.set_level(logging.INFO, "bff.dev_idp")
    query = request_parameters()
    link = re.search(r'href="(/signup\?[^"]+)"', browser.get("/login", **query).text)
    assert link is not None
    url = link[1].replace("&amp;", "&")
    form = browser.client.get(url, base_url=browser.origin)
    token = hidden(form, "form_token")
    fields = {"username": "Bo@Example.com", "password": "Secret-123", "name": "Bo Berg"}
    page = browser.post(url, {**fields, "form_token": token})
    code = re.search(r'<code class="code">(\d{6})</code>', page.text)
    assert code is not None
    assert f"bo@example.com: {code[1]}" in caplog.text
    assert "Secret-123" not in caplog.text
    confirm = {"form_token": token, "ticket": hidden(page, "ticket")}
    wrong = browser.post(f"/confirm?{urlencode(query)}", {**confirm, "code": "no"})
    assert wrong.status_code == 200
    assert "This is not the code." in wrong.text
    done = browser.post(f"/confirm?{urlencode(query)}", {**confirm, "code": code[1]})
    assert done.status_code == 303
    claims = decode(browser.redeem(query_of(done.location)["code"]).get_json()["id_token"])[1]
    assert claims["email"] == "bo@example.com"
    assert claims["email_verified"] is True
    assert claims["name"] == "Bo Berg"
    assert "cognito:groups" not in claims
    assert claims["auth_time"] == int(clock.now)
    again = browser.post(f"/confirm?{urlencode(query)}", {**confirm, "code": ""})
    assert again.location.startswith("/login?")


def _sign_up(browser: Browser, **fields: str) -> str:
    query = request_parameters()
    token = hidden(browser.get("/signup", **query), "form_token")
    data = {"username": "bo@example.com", "password": "Secret-123", "name": "", **fields}
    return browser.post(f"/signup?{urlencode(query)}", {**data, "form_token": token}).text


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"password": "Sh0rt-1"}, "at least 8 characters"),
        ({"password": "secret-123"}, "an upper-case letter"),
        ({"password": "SECRET-123"}, "a lower-case letter"),
        ({"password": "Secret-abc"}, "a digit"),
        ({"password": "Secret1234"}, "a symbol"),
        ({"password": "Aa1-" * 100}, "at most 256 characters"),
        ({"username": ""}, "valid e-mail address"),
        ({"username": "bo"}, "valid e-mail address"),
        ({"username": "bo@example.com\nFrom: x"}, "valid e-mail address"),
        ({"username": "bö@example.com"}, "valid e-mail address"),
        ({"username": "b" * 300 + "@example.com"}, "valid e-mail address"),
        ({"name": "x" * 101}, "a name of at most 100 characters"),
        ({"name": "Bo\x1b[31m"}, "a name of at most 100 characters"),
        ({"username": "Alice@example.com"}, "already an account"),
    ],
)
def test_sign_up_says_what_to_correct(browser: Browser, fields: dict[str, str], problem: str) -> None:
    """Each shortcoming in words, and no account."""
    assert problem in _sign_up(browser, **fields)
    retry = browser.submit_login(fields.get("username", "bo@example.com"), "Secret-123")
    assert "is not correct" in retry.text


def test_unconfirmed_user_gets_the_confirmation_page_again(browser: Browser) -> None:
    """The right password alone doesn't sign in before the address is confirmed."""
    _sign_up(browser)
    page = browser.submit_login("bo@example.com", "Secret-123")
    assert page.status_code == 200
    assert "Confirm your address" in page.text
    assert "is not correct" in browser.submit_login("bo@example.com", "Secret-124").text


@pytest.mark.parametrize("ticket", ["", "x", ".", "sub.0", "2f6d1a80-5c1e-4b7a-9a53-6f0c3e8d1b01."])
def test_confirmation_needs_this_browsers_ticket(browser: Browser, ticket: str) -> None:
    """Nobody is signed in by a code without having given the password here."""
    _sign_up(browser)
    query = request_parameters()
    token = hidden(browser.get("/login", **query), "form_token")
    data = {"form_token": token, "ticket": ticket, "code": ""}
    response = browser.post(f"/confirm?{urlencode(query)}", data)
    assert response.status_code == 303
    assert response.location.startswith("/login?")


def test_ticket_of_another_browser_is_worth_nothing(browser: Browser, make: MakeBrowser) -> None:
    """It is bound to the form cookie."""
    page = _sign_up(browser)
    ticket, code = re.search(r'name="ticket" value="([^"]+)"', page), re.search(r"\d{6}<", page)
    assert ticket is not None
    assert code is not None
    other = Browser(browser.app)
    query = request_parameters()
    token = hidden(other.get("/login", **query), "form_token")
    data = {"form_token": token, "ticket": ticket[1], "code": code[0][:6]}
    response = other.post(f"/confirm?{urlencode(query)}", data)
    assert response.location.startswith("/login?")


def test_no_secret_in_the_log(browser: Browser) -> None:
    """A whole flow at DEBUG, Authlib's lines included, shows no token, code or password."""
    output = StringIO()
    handler = logging.StreamHandler(output)
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        browser.submit_login(ALICE, "wrong-password")
        code = browser.sign_in()
        tokens = browser.redeem(code).get_json()
        browser.redeem(code)
        rotated = browser.refresh(tokens["refresh_token"]).get_json()
        browser.revoke(tokens["refresh_token"])
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
    text = output.getvalue()
    assert "POST /oauth2/token 200" in text
    secrets = [
        code,
        "wrong-password",
        PASSWORD,
        browser.settings.client_secret,
        *(answer[name] for answer in (tokens, rotated) for name in answer if name[-5:] == "token"),
    ]
    assert not [secret for secret in secrets if secret in text]
