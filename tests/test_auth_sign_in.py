"""The sign-in through the whole application: request, attempt cookies, callback, session."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from structlog.testing import capture_logs

from bff.attempts import Attempt, Attempts
from bff.sealing import Keyring, new_key, parse_key
from tests.support.browser import CSRF, Browser, error_page
from tests.support.client import query_of
from tests.support.provider import ABSENT, CLIENT_ID, HTML, Reply, scripted_provider
from tests.support.stack import Stack, Store, running, store
from tests.support.wire import until


@pytest.fixture(scope="module")
def module_store() -> Iterator[Store]:
    with store() as found:
        yield found


@pytest.fixture(scope="module")
def strict(module_store: Store) -> Iterator[Stack]:
    with running(module_store) as stack:
        yield stack


@pytest.fixture
def stack(strict: Stack) -> Stack:
    strict.provider.reset()
    return strict


@pytest.fixture
def browser(stack: Stack) -> Browser:
    return stack.browser()


def begin(stack: Stack, browser: Browser, target: str = "/bff/login", **changes: Any) -> dict[str, str]:
    """Go to the provider and sign in there: the members of its response."""
    asked = browser.get(target)
    assert asked.status == 302, asked.text
    return stack.provider.authorize(asked.get("location"), **changes)


# -- the sign-in page -------------------------------------------------------------------------------


def test_login(stack: Stack, browser: Browser) -> None:
    """It leads to the provider with PKCE, state and nonce, and keeps the attempt in a cookie of its own."""
    answer = browser.get("/bff/login")
    query = query_of(answer.get("location"))
    assert answer.status == 302
    assert answer.get("location").startswith(stack.provider.base + "/authorize?")
    assert (query["response_type"], query["code_challenge_method"]) == ("code", "S256")
    assert query["redirect_uri"] == stack.origin + "/bff/callback"
    assert (answer.get("cache-control"), answer.get("referrer-policy")) == ("no-store", "no-referrer")
    (name,) = browser.attempts
    assert re.fullmatch(r"bff-[\w-]{12}", name)
    assert {"httponly", "samesite=lax", "path=/"} < browser.attributes[name]
    assert not any(attribute.startswith("domain") for attribute in browser.attributes[name])
    assert any(re.fullmatch(r"max-age=\d+", attribute) for attribute in browser.attributes[name])
    assert stack.sessions() == [], "an anonymous visitor costs the store nothing"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("prompt", "login"),
        ("login_hint", "alice@example.com & co"),
        ("ui_locales", "de en"),
        ("max_age", "0"),
        ("acr_values", "urn:mfa"),
    ],
)
def test_parameter_passes_through(browser: Browser, name: str, value: str) -> None:
    """Each of the documented parameters reaches the provider as it came."""
    answer = browser.get(f"/bff/login?{name}={quote(value)}")
    assert query_of(answer.get("location"))[name] == value


def test_other_parameters_do_not(browser: Browser) -> None:
    """Nothing else reaches the provider, least of all what is ours to say."""
    asked = "client_id=evil&redirect_uri=https://evil.example&scope=admin&request=x&state=s&response_mode=x"
    query = query_of(browser.get("/bff/login?" + asked).get("location"))
    assert query["client_id"] == CLIENT_ID
    assert query["scope"] == "openid email profile"
    assert query["state"] != "s"
    assert {"request", "response_mode"}.isdisjoint(query)


@pytest.mark.parametrize(
    "query",
    [
        "returnUrl=//evil.example",
        "returnUrl=https://evil.example",
        "returnUrl=/%5Cevil.example",
        "returnUrl=/%09/evil.example",
        "returnUrl=evil",
        "returnUrl=/bff/login",
        "returnUrl=/./bff/logout",
        "returnUrl=/" + "a" * 2048,
        "returnUrl=/a&returnUrl=/b",
        "prompt=none&prompt=login",
        "max_age=soon",
        "max_age=9999999999",
        "max_age=-1",
        "max_age=%D9%A1",
        "max_age=1.5",
        "max_age=",
        "login_hint=",
        "login_hint=" + "x" * 513,
        "acr_values=a%0D%0Ab",
        "ui_locales=%00",
        "prompt=%7F",
    ],
    ids=lambda query: query[:32],
)
def test_login_refusals(stack: Stack, browser: Browser, query: str) -> None:
    """A return URL off this site, a doubled, unprintable, oversized or malformed parameter gets a page."""
    assert error_page(browser.get("/bff/login?" + query), 400) == "bad_request"
    assert browser.cookies == {}


# -- attempt cookies --------------------------------------------------------------------------------


def test_attempt_is_dropped_when_used(stack: Stack, browser: Browser) -> None:
    """The callback drops the cookie of its own attempt, and only that one."""
    first = begin(stack, browser)
    begin(stack, browser)
    assert len(browser.attempts) == 2
    browser.callback(first)
    assert len(browser.attempts) == 1


def test_attempt_is_dropped_when_failed(stack: Stack, browser: Browser) -> None:
    """An attempt that has failed is over."""
    error_page(browser.callback(begin(stack, browser, error="server_error")), 400)
    assert browser.attempts == {}


def test_twelve_tabs(stack: Stack, browser: Browser) -> None:
    """Twelve attempts are kept; the thirteenth drops the oldest, whose answer is then refused."""
    responses = [begin(stack, browser) for _ in range(13)]
    assert len(browser.attempts) == 12
    assert error_page(browser.callback(responses[0]), 400) == "state_unknown"
    assert browser.callback(responses[1]).status == 200


def test_cookies_stay_small(browser: Browser) -> None:
    """However long the return URLs are, all attempts together stay below what servers in the path allow."""
    for _ in range(12):
        assert browser.get("/bff/login?returnUrl=/" + "a" * 1900).status == 302
    assert sum(len(name) + len(value) for name, value in browser.attempts.items()) <= 6144


def test_attempt_cookie_twice(stack: Stack, browser: Browser) -> None:
    """An attempt cookie that comes twice counts as none (cookie tossing)."""
    response = begin(stack, browser)
    ((name, value),) = browser.attempts.items()
    header = {"Cookie": f"{name}={value}; {name}={value}"}
    answer = browser.get("/bff/callback?" + urlencode(response), header)
    assert error_page(answer, 400) == "state_unknown"


def test_two_tabs(stack: Stack, browser: Browser) -> None:
    """Two tabs that both sign in leave one session."""
    before = set(stack.sessions())
    first, second = begin(stack, browser), begin(stack, browser)
    browser.callback(first)
    old = browser.session
    browser.callback(second)
    assert browser.session != old
    assert len(set(stack.sessions()) - before) == 1
    assert browser.get("/bff/user", CSRF, cookies={"bff": str(old)}).code == "session_expired"
    assert browser.api("/bff/user").status == 200


@pytest.mark.parametrize("round_number", range(3))
def test_ten_tabs_at_once(stack: Stack, browser: Browser, round_number: int) -> None:
    """Ten tabs that begin and end their sign-ins at the same instants leave one session, whoever is last."""
    before = set(stack.sessions())
    responses = []
    for _ in range(5):  # two each begin before the browser has any cookie of the other
        pair = [stack.browser(), stack.browser()]
        for each in pair:
            each.cookies = dict(browser.cookies) if round_number else {}
        responses += [begin(stack, each) for each in pair]
        for each in pair:
            browser.cookies |= each.cookies
    held = dict(browser.cookies)
    start = threading.Barrier(10)

    def finish(response: dict[str, str]) -> int:
        start.wait()
        return browser.get("/bff/callback?" + urlencode(response), cookies=held).status

    with ThreadPoolExecutor(10) as pool:
        assert list(pool.map(finish, responses)) == [200] * 10
    assert len(set(stack.sessions()) - before) == 1


def test_sign_in_again(stack: Stack, browser: Browser) -> None:
    """A sign-in while signed in replaces the session that the browser had."""
    stack.sign_in(browser)
    before, old = set(stack.sessions()), browser.session
    stack.sign_in(browser)
    assert len(set(stack.sessions())) == len(before)
    assert browser.session != old


# -- the callback -----------------------------------------------------------------------------------


def test_strict_callback(stack: Stack, browser: Browser) -> None:
    """With a Strict cookie a page of ours makes the last step, to exactly the return URL."""
    answer = browser.callback(begin(stack, browser, "/bff/login?returnUrl=" + quote("/a?b=1&c=%22'")))
    assert (answer.status, answer.get("cache-control")) == (200, "no-store")
    assert answer.get("referrer-policy") == "no-referrer"
    assert "default-src 'none'" in answer.get("content-security-policy")
    assert '<meta http-equiv="refresh" content="0; url=/a?b=1&amp;c=%22&#39;">' in answer.text
    assert '<a class="button primary" href="/a?b=1&amp;c=%22&#39;">' in answer.text
    assert "http://" not in answer.text.replace("http://www.w3.org", "")
    assert browser.attributes["bff"] == {"httponly", "samesite=strict", "path=/"}


def test_lax_callback(module_store: Store) -> None:
    """With a Lax cookie the callback redirects by 303, without the code in a referrer."""
    with running(module_store, cookie_samesite="Lax") as stack:
        browser = stack.browser()
        answer = browser.callback(begin(stack, browser, "/bff/login?returnUrl=/a%3Fb"))
        assert (answer.status, answer.get("location")) == (303, "/a?b")
        assert (answer.get("cache-control"), answer.get("referrer-policy")) == ("no-store", "no-referrer")
        assert browser.attributes["bff"] == {"httponly", "samesite=lax", "path=/"}


def test_secure_cookies(module_store: Store) -> None:
    """Over https both kinds of cookie are Secure and bound to this host, and HSTS is on."""
    with running(module_store, public_url="https://bff.example") as stack:
        browser = stack.browser()
        stack.sign_in(browser)
        assert browser.cookies.keys() == {"__Host-bff"}
        assert all("secure" in attributes for attributes in browser.attributes.values())
        assert all(name.startswith("__Host-bff") for name in browser.attributes)
        assert all(answer.get("strict-transport-security") for answer in browser.transcript)
        browser.request("POST", "/bff/logout", CSRF)
        assert browser.cookies == {}
        assert "secure" in browser.attributes["__Host-bff"], "without it browsers keep the cookie"


def test_callback_by_post(stack: Stack, browser: Browser) -> None:
    """A response that is posted is read from its body."""
    assert browser.post("/bff/callback", {}, **begin(stack, browser)).status == 200


def test_session_id_is_new(stack: Stack, browser: Browser) -> None:
    """A planted session cookie is not adopted, whether it opens a session or not (fixation)."""
    planted = stack.plant()
    for value in (planted, "A" * 43):
        visitor = stack.browser()
        visitor.cookies["bff"] = value
        visitor.attributes["bff"] = set()
        stack.sign_in(visitor)
        assert visitor.session not in (None, value)
        assert re.fullmatch(r"[\w-]{43}", str(visitor.session))


def no_session(browser: Browser, stack: Stack, before: list[bytes]) -> bool:
    return browser.session is None and set(stack.sessions()) == set(before)


@pytest.mark.parametrize("error", ["access_denied", "server_error", "login_required"])
def test_error_answers_cost_redis_nothing(stack: Stack, browser: Browser, error: str) -> None:
    """Anybody can bring about sign-ins that end with an error: nothing is written for them."""
    with stack.store.client() as client:
        before = client.dbsize()
        for _ in range(5):
            browser.callback(begin(stack, browser, error=error))
            browser.callback(begin(stack, browser, "/bff/login?prompt=none", error=error))
        assert client.dbsize() == before
    assert browser.attempts == {}


def test_unknown_state(stack: Stack, browser: Browser) -> None:
    """A state that this browser has not begun is refused: login CSRF, or a stolen answer."""
    before = stack.sessions()
    stranger = stack.browser()
    response = begin(stack, stranger)
    assert error_page(browser.callback(response), 400) == "state_unknown"
    assert error_page(browser.callback(response | {"state": "made-up"}), 400) == "state_unknown"
    assert no_session(browser, stack, before)
    assert stack.provider.count("token") == 0


def test_used_state(stack: Stack, browser: Browser) -> None:
    """An answer that comes twice is refused, also with the attempt's cookie still there; nothing restarts."""
    response = begin(stack, browser)
    held = dict(browser.cookies)
    browser.callback(response)
    assert error_page(browser.callback(response), 400) == "state_unknown"
    answer = browser.get("/bff/callback?" + urlencode(response), cookies=held)
    assert error_page(answer, 400) == "state_used"
    assert answer.get("location") == ""
    assert stack.provider.count("token") == 1


def test_state_that_races(stack: Stack, browser: Browser) -> None:
    """Of many copies of an answer that arrive at once, one is redeemed."""
    response, held = begin(stack, browser), dict(browser.cookies)
    visitors = [stack.browser() for _ in range(6)]
    threads = [
        threading.Thread(
            target=visitor.get, args=("/bff/callback?" + urlencode(response),), kwargs={"cookies": held}
        )
        for visitor in visitors
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    statuses = sorted(visitor.transcript[0].status for visitor in visitors)
    assert statuses == [200, 400, 400, 400, 400, 400]
    assert stack.provider.count("token") == 1


def test_attempt_that_is_over(stack: Stack, browser: Browser) -> None:
    """An attempt is good for a quarter of an hour."""
    response = begin(stack, browser)
    stack.clock.ahead = 901
    try:
        assert error_page(browser.callback(response), 400) == "state_unknown"
    finally:
        stack.clock.ahead = 0


CALLBACK_FAILURES: list[tuple[dict[str, Any], str]] = [
    ({"error": "access_denied", "code": ABSENT}, "access_denied"),
    ({"error": "server_error"}, "provider_refused"),
    ({"error": "login_required"}, "provider_refused"),
    ({"error": "<script>alert(1)</script>"}, "provider_refused"),
    ({"code": ABSENT}, "response_invalid"),
    ({"code": ""}, "response_invalid"),
    ({"iss": "https://evil.example"}, "response_invalid"),
    ({"code": "made-up"}, "code_refused"),
    ({"state": ABSENT}, "response_invalid"),
    ({"state": ABSENT, "error": "access_denied"}, "access_denied"),
    ({"state": ABSENT, "error": "invalid_scope", "error_description": "<b>x"}, "provider_refused"),
]


@pytest.mark.parametrize(("changes", "code"), CALLBACK_FAILURES, ids=str)
def test_callback_failure(stack: Stack, browser: Browser, changes: dict[str, Any], code: str) -> None:
    """Each failed answer gets its page, quotes nothing from outside and leaves nobody signed in."""
    before = stack.sessions()
    answer = browser.callback(begin(stack, browser, **changes))
    assert error_page(answer, 400) == code
    assert "alert(1)" not in answer.text
    assert "<b>" not in answer.text
    assert no_session(browser, stack, before)


@pytest.mark.parametrize("name", ["code", "state", "iss", "error", "session_state"])
def test_doubled_parameter(stack: Stack, browser: Browser, name: str) -> None:
    """A member of the response that comes twice is refused before anything is done (RFC 6749 §3.1)."""
    response = begin(stack, browser)
    query = urlencode([*response.items(), (name, "a"), (name, "b")])
    answer = browser.get("/bff/callback?" + query)
    assert error_page(answer, 400) == "response_invalid"
    assert stack.provider.count("token") == 0


TOKEN_FAILURES: list[tuple[Reply, int, str]] = [
    (Reply(400, {"error": "invalid_grant"}), 400, "code_refused"),
    (Reply(401, {"error": "invalid_client"}), 400, "client_refused"),
    (Reply(500), 503, "provider_unavailable"),
    (HTML, 503, "provider_unavailable"),
    (Reply(302, b"", {"Location": "/x"}), 503, "provider_unavailable"),
    (Reply(drop=True), 503, "provider_unavailable"),
    (Reply(200, b"[]"), 400, "response_invalid"),
    (Reply(200, {}), 400, "response_invalid"),
    (Reply(200, {"access_token": "a", "token_type": "Bearer"}), 400, "id_token_invalid"),
    (Reply(200, {"access_token": "a", "token_type": "Bearer", "id_token": "x"}), 400, "id_token_invalid"),
]


@pytest.mark.parametrize(
    ("reply", "status", "code"),
    TOKEN_FAILURES,
    ids=[f"{r.status} {r.raw()[:20]!r}" for r, *_ in TOKEN_FAILURES],
)
def test_redeem_failure(stack: Stack, browser: Browser, reply: Reply, status: int, code: str) -> None:
    """Whatever the token endpoint does, the person sees a page with its code and is not signed in."""
    before = stack.sessions()
    response = begin(stack, browser)
    stack.provider.replies["token"] = reply
    assert error_page(browser.callback(response), status) == code
    assert no_session(browser, stack, before)
    assert browser.attempts == {}


def test_redeem_that_hangs(module_store: Store) -> None:
    """Nor does it sign anybody in where the token endpoint does not answer in time."""
    with running(module_store, provider_timeout_seconds="3") as stack:
        browser = stack.browser()
        response = begin(stack, browser)
        stack.provider.replies["token"] = Reply(delay=10)
        assert error_page(browser.callback(response), 503) == "provider_unavailable"
        assert no_session(browser, stack, [])


@pytest.mark.parametrize(
    "claims",
    [
        {"nonce": "another"},
        {"iss": "https://evil.example"},
        {"aud": ["other"]},
        {"exp": 10**400},
        {"sub": None},
    ],
    ids=lambda claims: str(claims)[:30],
)
def test_id_token_failure(stack: Stack, browser: Browser, claims: dict[str, Any]) -> None:
    """An ID token that breaks a rule signs nobody in, and the page does not say which."""
    before = stack.sessions()
    stack.provider.claims |= claims
    answer = browser.callback(begin(stack, browser))
    assert error_page(answer, 400) == "id_token_invalid"
    assert no_session(browser, stack, before)


@pytest.mark.parametrize(
    "error",
    ["login_required", "interaction_required", "consent_required", "account_selection_required"],
)
def test_silent_sign_in(stack: Stack, browser: Browser, error: str) -> None:
    """After prompt=none these errors lead on to the return URL, signed out."""
    response = begin(stack, browser, "/bff/login?prompt=none&returnUrl=/x", code=ABSENT, error=error)
    answer = browser.callback(response)
    assert (answer.status, browser.session) == (200, None)
    assert 'url=/x"' in answer.text


@pytest.mark.parametrize(
    "changes", [{"error": "access_denied"}, {"error": "login_required", "iss": "https://x"}]
)
def test_silent_sign_in_that_fails(stack: Stack, browser: Browser, changes: dict[str, str]) -> None:
    """After prompt=none other errors are failures, and so is an answer of another issuer."""
    error_page(browser.callback(begin(stack, browser, "/bff/login?prompt=none", **changes)), 400)


def test_issuer_in_every_answer(module_store: Store) -> None:
    """Where the provider advertises `iss`, an answer without it is refused, error or not (RFC 9207)."""
    with scripted_provider() as provider:
        provider.discovery["authorization_response_iss_parameter_supported"] = True
        with running(module_store, provider=provider) as stack:
            browser = stack.browser()
            login = "/bff/login?prompt=none"
            for changes in ({}, {"error": "login_required"}, {"error": "access_denied"}):
                answer = browser.callback(begin(stack, browser, login, **changes))
                assert error_page(answer, 400) == "response_invalid"
            stack.sign_in(browser, iss=provider.issuer)
            assert browser.session


def test_refused_answer_is_not_repeated(stack: Stack, browser: Browser) -> None:
    """A failed callback starts no new sign-in by itself: it would go round in circles."""
    answer = browser.callback(begin(stack, browser, error="access_denied"))
    assert answer.get("location") == ""
    assert "http-equiv" not in answer.text
    assert 'href="/bff/login"' in answer.text


def test_max_age(stack: Stack, browser: Browser) -> None:
    """A sign-in that is older than `max_age` allows, or of unknown age, is refused (Core §3.1.3.7)."""
    stack.provider.claims["auth_time"] = int(stack.clock()) - 600
    answer = browser.callback(begin(stack, browser, "/bff/login?max_age=60"))
    assert error_page(answer, 400) == "id_token_invalid"
    assert browser.callback(begin(stack, browser, "/bff/login?max_age=3600")).status == 200
    stack.provider.claims["auth_time"] = ABSENT
    answer = browser.callback(begin(stack, browser, "/bff/login?max_age=3600"))
    assert error_page(answer, 400) == "id_token_invalid"


# -- the audit --------------------------------------------------------------------------------------

FAILED: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({"error": "access_denied", "code": ABSENT}, {}, "access_denied"),
    ({"iss": "https://evil.example"}, {}, "response_invalid"),
    ({"state": "made-up"}, {}, "state_unknown"),
    ({}, {"nonce": "x"}, "id_token_invalid"),
    ({"code": "made-up"}, {}, "code_refused"),
]


@pytest.mark.parametrize(("response", "claims", "code"), FAILED, ids=lambda value: str(value)[:24])
def test_a_failed_sign_in_is_audited(
    stack: Stack, browser: Browser, response: dict[str, Any], claims: dict[str, Any], code: str
) -> None:
    """One record with code, reason and address, and nothing secret in it."""
    answer = begin(stack, browser, **response)
    stack.provider.claims |= claims
    with capture_logs() as lines:
        browser.callback(answer)
    (record,) = [line for line in lines if line["event"] == "sign_in_failed"]
    assert (record["code"], record["address"], record["log_level"]) == (code, "127.0.0.1", "warning")
    assert not any(secret in str(lines) for secret in stack.provider.secrets)


def test_a_sign_in_that_cannot_begin_is_audited(module_store: Store) -> None:
    """The same where the provider does not take the request."""
    with scripted_provider() as provider:
        provider.discovery["pushed_authorization_request_endpoint"] = provider.base + "/par"
        provider.replies["par"] = Reply(401, {"error": "invalid_client"})
        with running(module_store, provider=provider) as stack, capture_logs() as lines:
            assert error_page(stack.browser().get("/bff/login"), 400) == "client_refused"
        (record,) = [line for line in lines if line["event"] == "sign_in_failed"]
        assert record["reason"] == "pushed request: invalid_client"


def test_when_a_sign_in_began_is_told_by_redis_clock(module_store: Store) -> None:
    """The same clock for all machines, once this one has asked for it; to begin a sign-in asks nobody."""
    key = new_key()
    with running(module_store, secret_keys=key) as stack:
        stack.clock.ahead = 900
        attempts = Attempts(Keyring([parse_key(key)]), stack.clock, prefix="bff-")

        def begun() -> Attempt:
            browser = stack.browser()
            browser.get("/bff/login")
            (found,) = (attempts.open(name, value) for name, value in browser.cookies.items())
            assert found is not None
            return found

        assert begun().began_at is None
        assert until(lambda: stack.browser().get("/health/ready").status == 200)
        told = begun()
        assert told.started_at == pytest.approx(time.time() + 900, abs=5)
        assert told.began_at == pytest.approx(time.time(), abs=5)
