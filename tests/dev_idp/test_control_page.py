"""The control page: how a person gets in, and what its forms do."""

import re
from html import unescape

import pytest

from tests.dev_idp.conftest import MakeBrowser
from tests.dev_idp.control import BEARER, TOKEN, call, enter, fault, submit
from tests.dev_idp.flow import ALICE, ORIGIN, Browser, Clock, hidden, request_parameters, services

COOKIE = "local_idp_control"
ACTIONS = {
    "faults": {"endpoint": "jwks", "kind": "drop", "times": "1"},
    "faults/delete": {},
    "keys": {},
    "groups": {"user": ALICE, "groups": "admins"},
    "revoke": {"user": ALICE},
}


@pytest.fixture
def browser(make: MakeBrowser) -> Browser:
    """A browser at a provider with a control token."""
    return make(control_token=TOKEN)


@pytest.fixture
def inside(browser: Browser) -> Browser:
    """The same after the token was given."""
    assert enter(browser).status_code == 303
    return browser


def _cookie(browser: Browser) -> str:
    found = browser.client.get_cookie(COOKIE, domain="127.0.0.1")
    return found.value if found else ""


def test_the_page_asks_for_the_token_first(browser: Browser) -> None:
    """And shows nothing else; it says that it is for development."""
    for path in ("/control", "/control/"):
        page = browser.get(path)
        assert page.status_code == 200
        assert "For development only." in page.text
        assert 'name="token"' in page.text
        assert ALICE not in page.text


def test_the_token_is_taken_once_and_kept_nowhere(browser: Browser) -> None:
    """The browser gets a cookie for an hour, Strict and HttpOnly, that isn't the token."""
    response = enter(browser)
    assert response.status_code == 303
    assert response.location == "/control"
    (cookie,) = (each for each in response.headers.getlist("Set-Cookie") if each.startswith(COOKIE))
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert "Max-Age=3600" in cookie
    assert TOKEN not in cookie
    page = browser.get("/control")
    assert ALICE in page.text
    assert TOKEN not in page.text
    assert "<script" not in page.text
    assert "style=" not in page.text


def test_over_https_the_cookie_is_secure(make: MakeBrowser) -> None:
    """With the prefix that other hosts and plain http can't set."""
    browser = make(control_token=TOKEN, public_url="https://127.0.0.1:5002")
    cookies = enter(browser).headers.getlist("Set-Cookie")
    assert any(each.startswith(f"__Host-{COOKIE}=") and "Secure" in each for each in cookies)


@pytest.mark.parametrize("token", ["", "wrong", TOKEN[:-1], TOKEN + "x", "\ud83d", "é"])
def test_a_wrong_token_is_refused(browser: Browser, token: str) -> None:
    """401 with the form again and an honest word, and no cookie."""
    response = enter(browser, token.encode("utf-8", "replace").decode())
    assert response.status_code == 401
    assert "This is not the token." in response.text
    assert not _cookie(browser)


def test_guessing_at_the_form_is_limited_with_the_api(browser: Browser, clock: Clock) -> None:
    """Both count together; who is inside stays inside."""
    friend = Browser(browser.app)
    enter(friend)
    for _ in range(5):
        enter(browser, "wrong")
        call(browser, "GET", "/faults", Authorization="Bearer wrong")
    locked = enter(browser)
    assert locked.status_code == 429
    assert locked.headers["Retry-After"] == "60"
    assert locked.mimetype == "text/html"
    assert ALICE in friend.get("/control").text
    clock.forward(60)
    assert enter(browser).status_code == 303


@pytest.mark.parametrize(
    "value",
    [
        "",
        "x",
        "..",
        TOKEN,
        "9999999999..",
        "9999999999.x." + "0" * 64,
        ".".join(["9" * 5000, "x", "0" * 64]),
        "-1.x.y",
        "é.é.é",
    ],
)
def test_made_up_cookies_open_nothing(browser: Browser, value: str) -> None:
    """Only the provider can sign one."""
    response = browser.client.get(
        "/control", headers={"Cookie": f"{COOKIE}={value}".encode().decode("latin-1")}, base_url=ORIGIN
    )
    assert response.status_code == 200
    assert ALICE not in response.text


def test_the_cookie_ends_after_an_hour(inside: Browser, clock: Clock) -> None:
    """The server decides, not the browser; its end can't be moved."""
    clock.forward(3599)
    value = _cookie(inside)
    assert ALICE in inside.get("/control").text
    clock.forward(1)
    until, _, rest = value.partition(".")
    for held in (value, f"{int(until) + 3600}.{rest}"):
        inside.client.set_cookie(COOKIE, held, domain="127.0.0.1")
        assert ALICE not in inside.get("/control").text


def test_another_token_ends_the_cookie(inside: Browser, make: MakeBrowser) -> None:
    """A provider with a new token knows no old cookies, though it has the same state."""
    other = make(control_token=TOKEN + "-new")
    other.client.set_cookie(COOKIE, _cookie(inside), domain="127.0.0.1")
    assert ALICE not in other.get("/control").text


def test_cookie_and_token_are_no_substitutes(inside: Browser) -> None:
    """The API doesn't take the cookie, neither as it is nor as a token; the page doesn't take the header."""
    assert inside.get("/control/faults").status_code == 401
    as_token = {"Authorization": f"Bearer {_cookie(inside)}"}
    assert call(inside, "GET", "/faults", **as_token).status_code == 401
    stranger = Browser(inside.app)
    page = stranger.client.get("/control", headers=BEARER, base_url=ORIGIN)
    assert ALICE not in page.text


def test_closing_the_page_takes_the_cookie(inside: Browser) -> None:
    """Back to the form that asks for the token."""
    assert submit(inside, "leave").status_code == 303
    assert not _cookie(inside)
    assert 'name="token"' in inside.get("/control").text


@pytest.mark.parametrize("path", [*ACTIONS, "enter", "leave"])
@pytest.mark.parametrize(
    "case",
    ["no token", "wrong token", "other origin", "null", "cross-site", "same-site", "of another"],
)
def test_forms_are_taken_from_our_page_only(inside: Browser, path: str, case: str) -> None:
    """403 even with the cookie, and nothing changes."""
    fault(inside, "revoke", {"kind": "drop"})
    before = (services(inside.app).keys.signing(), call(inside, "GET", "/faults").get_json())
    form_token = hidden(inside.get("/control"), "form_token")
    headers = {
        "other origin": {"Origin": "http://127.0.0.1:5003"},
        "null": {"Origin": "null"},
        "cross-site": {"Sec-Fetch-Site": "cross-site"},
        "same-site": {"Origin": ORIGIN, "Sec-Fetch-Site": "same-site"},
    }.get(case, {})
    if case == "no token":
        form_token = ""
    if case == "wrong token":
        form_token = "0" * 64
    if case == "of another":
        form_token = hidden(Browser(inside.app).get("/control"), "form_token")
    fields = {**ACTIONS.get(path, {"token": TOKEN}), "form_token": form_token}
    response = inside.post(f"/control/page/{path}", fields, headers=headers)
    assert response.status_code == 403
    assert "Set-Cookie" not in response.headers
    assert before == (services(inside.app).keys.signing(), call(inside, "GET", "/faults").get_json())
    assert call(inside, "GET", f"/users/{ALICE}/groups").get_json() == {"groups": ["readers"]}


@pytest.mark.parametrize("path", ACTIONS)
def test_forms_need_the_cookie(browser: Browser, path: str) -> None:
    """A form token anybody can have; without the cookie the page asks for the token."""
    fault(browser, "revoke", {"kind": "drop"})
    response = submit(browser, path, **ACTIONS[path])
    assert response.status_code == 401
    assert 'name="token"' in response.text
    assert len(call(browser, "GET", "/faults").get_json()) == 1
    assert call(browser, "GET", f"/users/{ALICE}/groups").get_json() == {"groups": ["readers"]}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"kind": "slow", "seconds": "2.5"}, {"kind": "slow", "seconds": 2.5}),
        ({"kind": "status", "status": "503"}, {"kind": "status", "status": 503}),
        ({"kind": "drop", "seconds": "junk"}, {"kind": "drop"}),
        ({"kind": "error", "error": "invalid_grant"}, {"kind": "error", "error": "invalid_grant"}),
        (
            {"kind": "claims", "id_token": '{"nonce": null}', "access_token": ""},
            {"kind": "claims", "id_token": {"nonce": None}, "access_token": {}},
        ),
    ],
)
def test_a_fault_from_the_form(inside: Browser, fields: dict[str, str], expected: dict[str, object]) -> None:
    """Of the fields only those of its kind count; the page lists it and can remove it."""
    response = submit(inside, "faults", endpoint="token", times="3", user=ALICE, **fields)
    assert response.status_code == 303
    (listed,) = call(inside, "GET", "/faults").get_json()
    assert listed["fault"] == expected
    assert (listed["times"], listed["user"]) == (3, ALICE)
    page = inside.get("/control")
    assert f"{ALICE} only" in page.text
    submit(inside, "faults/delete", number=hidden(page, "number"))
    assert call(inside, "GET", "/faults").get_json() == []


def test_all_faults_go_at_once(inside: Browser) -> None:
    """The form without a number."""
    for _ in range(2):
        fault(inside, "jwks", {"kind": "drop"})
    assert "Remove all" in inside.get("/control").text
    submit(inside, "faults/delete")
    assert call(inside, "GET", "/faults").get_json() == []


@pytest.mark.parametrize(
    ("path", "fields", "status", "text"),
    [
        ("faults", {}, 400, "times"),
        ("faults", {"endpoint": "x", "kind": "drop", "times": "1"}, 400, "endpoint"),
        ("faults", {"endpoint": "token", "kind": "x", "times": "1"}, 400, "kind"),
        ("faults", {"endpoint": "token", "kind": "drop", "times": "-1"}, 400, "times"),
        ("faults", {"endpoint": "token", "kind": "drop", "times": "²"}, 400, "times"),
        ("faults", {"endpoint": "token", "kind": "drop", "times": "9" * 5000}, 400, "times"),
        ("faults", {"endpoint": "token", "kind": "slow", "seconds": "nan", "times": "1"}, 400, "seconds"),
        ("faults", {"endpoint": "token", "kind": "slow", "seconds": "inf", "times": "1"}, 400, "seconds"),
        ("faults", {"endpoint": "token", "kind": "slow", "seconds": "x", "times": "1"}, 400, "seconds"),
        ("faults", {"endpoint": "token", "kind": "status", "status": "200", "times": "1"}, 400, "status"),
        ("faults", {"endpoint": "token", "kind": "claims", "id_token": "{", "times": "1"}, 400, "id_token"),
        ("faults", {"endpoint": "token", "kind": "claims", "id_token": "[1]", "times": "1"}, 400, "claims"),
        ("faults", {"endpoint": "token", "kind": "drop", "times": "1", "user": "<b>"}, 400, "no user"),
        ("faults/delete", {"number": "7"}, 404, "no fault"),
        ("faults/delete", {"number": "x"}, 400, "number"),
        ("groups", {"user": "nobody@example.com", "groups": "a"}, 404, "no user"),
        ("groups", {"user": ALICE, "groups": "two words"}, 400, "no blank"),
        ("revoke", {}, 404, "no user"),
    ],
)
def test_bad_input_is_said_on_the_page(
    inside: Browser, path: str, fields: dict[str, str], status: int, text: str
) -> None:
    """What is wrong, on the page itself, and nothing changed."""
    response = submit(inside, path, **fields)
    assert response.status_code == status
    error = re.search(r'<p class="error" role="alert">(.*?)</p>', response.text)
    assert error is not None
    assert text in unescape(error[1])
    assert call(inside, "GET", "/faults").get_json() == []


def test_groups_keys_and_revocation_from_the_page(inside: Browser) -> None:
    """What the API does, with forms."""
    tokens = inside.tokens()
    submit(inside, "groups", user=ALICE, groups=" admins ,readers,, ")
    assert call(inside, "GET", f"/users/{ALICE}/groups").get_json() == {"groups": ["admins", "readers"]}
    assert 'value="admins, readers"' in inside.get("/control").text
    submit(inside, "revoke", user=ALICE)
    assert inside.refresh(tokens["refresh_token"]).status_code == 400
    before = services(inside.app).keys.signing()
    submit(inside, "keys")
    signing = services(inside.app).keys.signing()
    assert signing != before
    assert signing["access"] in inside.get("/control").text
    assert len(services(inside.app).keys.jwks()["keys"]) == 4
    submit(inside, "keys", forget_old="on")
    assert len(services(inside.app).keys.jwks()["keys"]) == 2


def test_recent_codes_are_on_the_page(inside: Browser) -> None:
    """Those to confirm an address and those for a new password, until they are used."""
    resets, accounts = services(inside.app).resets, services(inside.app).accounts
    assert "Nobody is waiting for one." in inside.get("/control").text
    code, _ = resets.ask(ALICE)
    unknown, _ = resets.ask("nobody@example.com")
    query = request_parameters()
    form_token = hidden(inside.get("/signup", **query), "form_token")
    fields = {"username": "bo@example.com", "password": "Secret-123", "name": "<i>", "form_token": form_token}
    inside.client.post("/signup", query_string=query, data=fields, base_url=ORIGIN)
    ((_, confirmation),) = accounts.unconfirmed(most=5)
    text = inside.get("/control").text
    assert f">{code}<" in text
    assert f">{confirmation}<" in text
    assert "(not confirmed)" in text
    assert "nobody@example.com" not in text
    assert f">{unknown}<" not in text or unknown in (code, confirmation)


@pytest.mark.parametrize("path", ["/control", "/control/faults", "/control/page/enter"])
def test_control_answers_have_the_security_headers(browser: Browser, path: str) -> None:
    """No frame, no cache, no script, no other origin."""
    headers = browser.get(path).headers
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert "script-src" not in headers["Content-Security-Policy"]
    assert headers["Cache-Control"] == "no-store"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
