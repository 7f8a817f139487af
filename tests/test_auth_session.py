"""Who is signed in, and the three forms of the sign-out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlencode

import pytest

from bff.tokens import TokenSet
from tests.support.browser import CSRF, Browser, error_page
from tests.support.client import query_of
from tests.support.provider import ABSENT, HTML, SUBJECT, Reply
from tests.support.stack import Stack, running, store
from tests.support.stopwatch import Stopwatch
from tests.support.wire import Answer

FORM = {"Content-Type": "application/x-www-form-urlencoded"}


@pytest.fixture(scope="module")
def shared() -> Iterator[Stack]:
    with store() as found, running(found) as stack:
        yield stack


@pytest.fixture
def stack(shared: Stack) -> Stack:
    shared.provider.reset()
    shared.clock.ahead = 0
    return shared


@pytest.fixture
def browser(stack: Stack) -> Browser:
    """Signed in."""
    return stack.sign_in(stack.browser())


def claims_of(answer: Answer) -> dict[str, list[Any]]:
    """The claims of `/bff/user` by type."""
    assert (answer.status, answer.get("content-type")) == (200, "application/json"), answer.text
    found: dict[str, list[Any]] = {}
    for entry in answer.json():
        assert entry.keys() == {"type", "value"}
        found.setdefault(entry["type"], []).append(entry["value"])
    return found


def logout_url(browser: Browser) -> str:
    (url,) = claims_of(browser.api("/bff/user"))["bff:logout_url"]
    return str(url)


# -- the user ---------------------------------------------------------------------------------------


def test_user(browser: Browser) -> None:
    """An array of claims: one entry for each member of an array claim, and our own beside them."""
    answer = browser.api("/bff/user")
    claims = claims_of(answer)
    assert answer.get("cache-control") == "no-store"
    assert "cookie" in answer.get("vary").lower()
    assert claims["sub"] == [SUBJECT]
    assert claims["name"] == ["Alice Example"]
    assert claims["groups"] == ["readers", "writers"]
    assert claims["bff:logout_url"][0].startswith("/bff/logout?sid=")
    (left,) = claims["bff:session_expires_in"]
    assert isinstance(left, int)
    assert 1795 <= left <= 1800


def test_session_state_is_handed_on(stack: Stack) -> None:
    """A `session_state` of the provider's answer is there for the front end, and only then."""
    plain = claims_of(stack.sign_in(stack.browser()).api("/bff/user"))
    told = claims_of(stack.sign_in(stack.browser(), session_state="abc.def").api("/bff/user"))
    assert "bff:session_state" not in plain
    assert told["bff:session_state"] == ["abc.def"]


def test_protocol_claims_are_absent(stack: Stack, browser: Browser) -> None:
    """What speaks to the protocol is not the front end's business."""
    stack.provider.claims |= {
        "azp": "web-client",
        "token_use": "id",
        "origin_jti": "x",
        "nbf": 1,
        "c_hash": "x",
    }
    claims = claims_of(stack.sign_in(stack.browser()).api("/bff/user"))
    kept = {"sub", "auth_time", "email", "name", "groups", "bff:logout_url", "bff:session_expires_in"}
    assert claims.keys() == kept


def test_claims_of_every_kind(stack: Stack) -> None:
    """Objects, booleans, numbers and null come through as they are, an empty array as nothing."""
    odd = {"address": {"city": "Bern"}, "email_verified": True, "age": 7, "none": None, "empty": [], "é": "ü"}
    stack.provider.claims |= odd
    claims = claims_of(stack.sign_in(stack.browser()).api("/bff/user"))
    assert claims["address"] == [{"city": "Bern"}]
    assert (claims["email_verified"], claims["age"], claims["none"], claims["é"]) == (
        [True],
        [7],
        [None],
        ["ü"],
    )
    assert "empty" not in claims


def test_provider_cannot_speak_for_us(stack: Stack) -> None:
    """A claim that pretends to be ours is left out: the front end follows `bff:logout_url`."""
    stack.provider.claims |= {"bff:logout_url": "https://evil.example", "bff:session_expires_in": 9}
    claims = claims_of(stack.sign_in(stack.browser()).api("/bff/user"))
    assert len(claims["bff:logout_url"]) == len(claims["bff:session_expires_in"]) == 1
    assert claims["bff:logout_url"][0].startswith("/bff/logout?sid=")


def test_sid_of_the_link_is_not_the_cookie(browser: Browser) -> None:
    """The sign-out link opens nothing: it cannot be used as the cookie."""
    sid = query_of(logout_url(browser))["sid"]
    assert sid != browser.session
    assert browser.api("/bff/user", cookies={"bff": sid}).code == "session_expired"
    assert browser.api("/bff/user", cookies={"bff": sid[:43]}).code == "session_expired"


@pytest.mark.parametrize(
    ("cookies", "code"),
    [
        ({}, "not_signed_in"),
        ({"other": "x"}, "not_signed_in"),
        ({"bff": "A" * 43}, "session_expired"),
        ({"bff": ""}, "session_expired"),
        ({"bff": "../../etc"}, "session_expired"),
        ({"bff": "x" * 4000}, "session_expired"),
        ({"bff": "\u00e9" * 43}, "session_expired"),
    ],
    ids=str,
)
def test_signed_out(stack: Stack, cookies: Mapping[str, str], code: str) -> None:
    """Without a session: 401 with where to sign in, told apart by whether a cookie came; none is deleted."""
    answer = stack.browser().api("/bff/user", cookies=cookies)
    assert (answer.status, answer.code) == (401, code)
    assert answer.json()["login_url"] == "/bff/login"
    assert answer.all("set-cookie") == []


def test_session_cookie_twice(stack: Stack, browser: Browser) -> None:
    """A session cookie that comes twice counts as none, and neither is deleted."""
    header = CSRF | {"Cookie": f"bff={browser.session}; bff={browser.session}"}
    answer = stack.browser().get("/bff/user", header)
    assert (answer.status, answer.code) == (401, "not_signed_in")
    assert answer.all("set-cookie") == []


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-CSRF": "0"},
        {"X-CSRF": "1, 1"},
        CSRF | {"Origin": "https://evil.example"},
        CSRF | {"Origin": "null"},
        CSRF | {"Sec-Fetch-Site": "cross-site"},
        CSRF | {"Sec-Fetch-Site": "same-site"},
        CSRF | {"Sec-Fetch-Site": "none"},
        CSRF | {"Service-Worker": "script"},
        {"X_CSRF": "1"},
    ],
    ids=str,
)
def test_user_needs_proof(browser: Browser, headers: dict[str, str]) -> None:
    """Without our header, or from another origin or site, nothing is told."""
    answer = browser.get("/bff/user", headers)
    assert (answer.status, answer.code) == (403, "csrf_required")


def seconds_left(browser: Browser, query: str = "?slide=false") -> int:
    (left,) = claims_of(browser.api("/bff/user" + query))["bff:session_expires_in"]
    return int(left)


def test_slide(stack: Stack, browser: Browser) -> None:
    """`/bff/user` extends the session unless it is told not to."""
    stack.clock.ahead = 1000
    assert 790 <= seconds_left(browser) <= 800
    assert 790 <= seconds_left(browser) <= 800, "slide=false has not extended it"
    assert 1790 <= seconds_left(browser, "") <= 1800
    stack.clock.ahead = 1900
    assert 890 <= seconds_left(browser) <= 900
    stack.clock.ahead = 3000
    assert browser.api("/bff/user").code == "session_expired"


def test_absolute_end(stack: Stack, browser: Browser) -> None:
    """However busy, the session ends eight hours after it began."""
    for step in range(1, 16):
        stack.clock.ahead = step * 1700
        assert seconds_left(browser, "") == pytest.approx(1800, abs=5)
    stack.clock.ahead = 27_200
    assert seconds_left(browser, "") == pytest.approx(1600, abs=5)
    stack.clock.ahead = 28_000
    assert seconds_left(browser, "") == pytest.approx(800, abs=5)
    stack.clock.ahead = 28_801
    assert browser.api("/bff/user").code == "session_expired"


def test_session_without_a_refresh_token(stack: Stack) -> None:
    """Where nothing can renew the token, the session ends with it, and says so."""
    stack.provider.token_members["refresh_token"] = ABSENT
    browser = stack.sign_in(stack.browser())
    assert 290 <= seconds_left(browser) <= 300
    stack.clock.ahead = 301
    assert browser.api("/bff/user").code == "session_expired"


def test_user_reads_no_token(stack: Stack) -> None:
    """A session whose token is dead still tells who is signed in."""
    now = stack.clock()
    tokens = TokenSet(access_token="a", refresh_token="r", obtained_at=now - 600, expires_at=now - 300)
    browser = stack.browser()
    browser.cookies["bff"] = stack.plant(tokens, {"who": {"claims": [{"type": "sub", "value": "x"}]}})
    assert claims_of(browser.api("/bff/user"))["sub"] == ["x"]


# -- sign-out ---------------------------------------------------------------------------------------


def signed_out(stack: Stack, browser: Browser, held: str | None) -> bool:
    """The cookie is dropped, the session gone and the refresh token revoked."""
    old = browser.api("/bff/user", cookies={"bff": str(held)})
    revoked = stack.provider.last("revoke").form["token"]
    return browser.session is None and old.code == "session_expired" and revoked.startswith("refresh-")


def test_logout_by_script(stack: Stack, browser: Browser) -> None:
    """POST with our header: 200 and the address at the provider, which holds no token."""
    held = browser.session
    answer = browser.request("POST", "/bff/logout", CSRF)
    assert (answer.status, answer.get("cache-control")) == (200, "no-store")
    url = answer.json()["logout_url"]
    assert url.startswith(stack.provider.base + "/logout?")
    query = query_of(url)
    assert (query["post_logout_redirect_uri"], query["logout_hint"]) == (
        stack.origin + "/",
        "alice@example.com",
    )
    assert signed_out(stack, browser, held)


def test_logout_by_form(stack: Stack, browser: Browser) -> None:
    """A form of this origin with the right `sid`: 303 to the provider."""
    held, sid = browser.session, query_of(logout_url(browser))["sid"]
    answer = browser.post("/bff/logout", {"Origin": stack.origin}, sid=sid)
    assert (answer.status, answer.get("referrer-policy")) == (303, "no-referrer")
    assert answer.get("location").startswith(stack.provider.base + "/logout?")
    assert signed_out(stack, browser, held)


def test_logout_by_link(stack: Stack, browser: Browser) -> None:
    """The link that `/bff/user` gives: 303 to the provider."""
    held = browser.session
    answer = browser.get(logout_url(browser))
    assert (answer.status, answer.get("referrer-policy")) == (303, "no-referrer")
    assert answer.get("location").startswith(stack.provider.base + "/logout?")
    assert signed_out(stack, browser, held)


@pytest.mark.parametrize("target", ["/bff/logout", "/bff/logout?sid=", "/bff/logout?sid=wrong", "SID&sid=x"])
def test_link_with_a_wrong_sid(browser: Browser, target: str) -> None:
    """While signed in, a link without the session's own `sid` is refused, and the right one is not told."""
    sid = query_of(logout_url(browser))["sid"]
    answer = browser.get(target.replace("SID", f"/bff/logout?sid={sid}"))
    assert error_page(answer, 400) == "bad_request"
    assert sid not in answer.text
    assert browser.api("/bff/user").status == 200


def test_link_of_another_session(stack: Stack, browser: Browser) -> None:
    """The link of one session does not end another one."""
    other = stack.sign_in(stack.browser())
    assert error_page(browser.get(logout_url(other)), 400) == "bad_request"
    assert other.api("/bff/user").status == browser.api("/bff/user").status == 200


def test_logout_when_signed_out(stack: Stack) -> None:
    """With nobody signed in, all forms lead to the start page, and nothing is revoked."""
    for cookies in ({}, {"bff": "A" * 43}, {"bff": "odd"}):
        visitor = stack.browser()
        visitor.cookies |= cookies
        assert visitor.get("/bff/logout").get("location") == "/"
        assert visitor.get("/bff/logout?sid=old").get("location") == "/"
        answer = visitor.post("/bff/logout", {"Origin": stack.origin}, sid="old")
        assert (answer.status, answer.get("location")) == (303, "/")
        visitor.cookies |= cookies
        assert visitor.request("POST", "/bff/logout", CSRF).json() == {"logout_url": "/"}
    assert stack.provider.count("revoke") == 0


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "same-origin"},
        {"Referer": "ORIGIN/"},
        {"Origin": "ORIGIN.evil.example"},
    ],
    ids=str,
)
def test_form_of_another_site(stack: Stack, browser: Browser, headers: dict[str, str]) -> None:
    """A form without our exact Origin is refused, also with the right `sid`; `Origin: null` is never ours."""
    sid = query_of(logout_url(browser))["sid"]
    sent = {name: value.replace("ORIGIN", stack.origin) for name, value in headers.items()}
    assert error_page(browser.post("/bff/logout", sent, sid=sid), 403) == "csrf_required"
    assert browser.api("/bff/user").status == 200


@pytest.mark.parametrize("fields", [{}, {"SID": "x"}], ids=str)
def test_form_without_sid(stack: Stack, browser: Browser, fields: dict[str, str]) -> None:
    """A form of this origin that has no `sid` at all is refused."""
    answer = browser.post("/bff/logout", {"Origin": stack.origin}, **fields)
    assert error_page(answer, 403) == "csrf_required"


@pytest.mark.parametrize("body", ["sid=wrong", "sid=", "sid=SID&sid=SID", "sid=%FF"])
def test_form_with_a_wrong_sid(stack: Stack, browser: Browser, body: str) -> None:
    """A form with a wrong or doubled `sid` ends nothing."""
    sid = query_of(logout_url(browser))["sid"]
    headers = FORM | {"Origin": stack.origin}
    answer = browser.request("POST", "/bff/logout", headers, body.replace("SID", sid).encode())
    assert error_page(answer, 400) == "bad_request"
    assert browser.api("/bff/user").status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"X-CSRF": "0"},
        CSRF | {"Origin": "https://evil.example"},
        CSRF | {"Origin": "null"},
        CSRF | {"Sec-Fetch-Site": "cross-site"},
    ],
    ids=str,
)
def test_script_of_another_site(browser: Browser, headers: dict[str, str]) -> None:
    """Our header does not help where the browser says that another site sends it."""
    answer = browser.request("POST", "/bff/logout", headers)
    assert (answer.status, answer.code) == (403, "csrf_required")
    assert browser.api("/bff/user").status == 200


def test_cross_site_sign_out_deletes_no_cookie(stack: Stack) -> None:
    """A request that came without the cookie (a foreign page's, under Strict) must not delete it."""
    visitor = stack.browser()
    answers = [
        visitor.get("/bff/logout?sid=x"),
        visitor.post("/bff/logout", {"Origin": stack.origin}, sid="x"),
        visitor.request("POST", "/bff/logout", CSRF),
        visitor.post("/bff/logout", {"Origin": "https://evil.example"}, sid="x"),
    ]
    assert [answer.all("set-cookie") for answer in answers] == [[], [], [], []]


@pytest.mark.parametrize(
    "reply", [Reply(500), HTML, Reply(drop=True), Reply(400, {"error": "x"}), Reply(delay=4)]
)
def test_sign_out_without_the_provider(stack: Stack, browser: Browser, reply: Reply) -> None:
    """Whatever the revocation endpoint does, the session here is over."""
    stack.provider.replies["revoke"] = reply
    held, started = browser.session, Stopwatch()
    assert browser.request("POST", "/bff/logout", CSRF).status == 200
    assert started.own < 2
    assert signed_out(stack, browser, held)


def test_large_form(stack: Stack, browser: Browser) -> None:
    """Bodies for our own addresses have a limit of their own, declared or not."""
    body = urlencode({"sid": "x" * 70_000}).encode()
    answer = browser.request("POST", "/bff/logout", FORM | {"Origin": stack.origin}, body)
    assert error_page(answer, 413) == "body_too_large"


@pytest.mark.parametrize(
    "kind", ["application/json", "multipart/form-data; boundary=x", "text/plain", "é/é", ""]
)
def test_body_of_another_kind(stack: Stack, browser: Browser, kind: str) -> None:
    """A body that is no form has no `sid`, and breaks nothing."""
    headers = {"Origin": stack.origin, "Content-Type": kind}
    answer = browser.request("POST", "/bff/logout", headers, b'--x\r\n{"sid": "x"')
    assert (error_page(answer, 403) if kind.startswith("multipart") else answer.code) == "csrf_required"
    assert answer.status == 403


@pytest.mark.parametrize("headers", [{}, {"Origin": "https://evil.example"}, {"Origin": "null"}])
def test_origin_before_length(stack: Stack, browser: Browser, headers: dict[str, str]) -> None:
    """Who may not sign out is told so (403), however long the body is (413)."""
    answer = browser.request("POST", "/bff/logout", headers, b"x" * 100_000)
    assert (answer.status, answer.code) == (403, "csrf_required")
    assert browser.request("POST", "/bff/logout", CSRF, b"x" * 100_000).status == 413
    assert browser.api("/bff/user").status == 200
