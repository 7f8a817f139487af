"""What requests meet while a fault is in force."""

import time
from typing import Any

import pytest

from bff.dev_idp.control.faults import MOST_SLOW_AT_ONCE
from bff.dev_idp.keys import Purpose
from tests.dev_idp.conftest import MakeBrowser
from tests.dev_idp.control import TOKEN, call, fault
from tests.dev_idp.flow import (
    ADMIN,
    ALICE,
    HOME,
    VERIFIER,
    Browser,
    decode,
    query_of,
    request_parameters,
    services,
)
from tests.dev_idp.test_code_flow import in_threads
from tests.support.stopwatch import Stopwatch

JWKS = "/local_pool/.well-known/jwks.json"
DISCOVERY = "/local_pool/.well-known/openid-configuration"


@pytest.fixture
def browser(make: MakeBrowser) -> Browser:
    """A browser at a provider with a control token."""
    return make(control_token=TOKEN)


def _request(browser: Browser, endpoint: str) -> Any:
    """A request to the endpoint that would succeed."""
    match endpoint:
        case "token":
            return browser.token(grant_type="client_credentials")
        case "jwks":
            return browser.get(JWKS)
        case "discovery":
            return browser.get(DISCOVERY)
        case "authorize":
            return browser.authorize()
        case "userInfo":
            return browser.user_info(browser.tokens()["access_token"])
        case "revoke":
            return browser.revoke("unknown")
    return browser.get("/logout", client_id="local-client", logout_uri=HOME)


ENDPOINTS = ["token", "jwks", "discovery", "authorize", "userInfo", "revoke", "logout"]


@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize("status", [400, 429, 500, 503])
def test_error_status_for_the_next_request(browser: Browser, endpoint: str, status: int) -> None:
    """Once, at this endpoint only: JSON for servers, a page for people."""
    normal = _request(browser, endpoint).status_code
    fault(browser, endpoint, {"kind": "status", "status": status})
    for other in ENDPOINTS:
        if other != endpoint and "token" not in (other, endpoint):
            assert _request(browser, other).status_code < 400, other
    answer = _request(browser, endpoint)
    assert answer.status_code == status
    assert answer.is_json is (endpoint not in ("authorize", "logout"))
    assert "Location" not in answer.headers
    assert _request(browser, endpoint).status_code == normal
    assert call(browser, "GET", "/faults").get_json() == []


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_a_slow_answer_is_the_right_answer(browser: Browser, endpoint: str) -> None:
    """It comes late and is otherwise as always."""
    before = _request(browser, endpoint).status_code
    fault(browser, endpoint, {"kind": "slow", "seconds": 0.2})
    began = time.monotonic()
    assert _request(browser, endpoint).status_code == before
    assert time.monotonic() - began >= 0.2


def test_slow_and_another_fault_come_together(browser: Browser) -> None:
    """Every slow one and the oldest other, whichever was added first."""
    fault(browser, "jwks", {"kind": "status", "status": 500})
    fault(browser, "jwks", {"kind": "status", "status": 502})
    fault(browser, "jwks", {"kind": "slow", "seconds": 0.1})
    began = time.monotonic()
    assert browser.get(JWKS).status_code == 500
    assert time.monotonic() - began >= 0.1
    assert call(browser, "GET", "/faults").get_json()[0]["fault"] == {"kind": "status", "status": 502}
    assert [browser.get(JWKS).status_code for _ in range(2)] == [502, 200]


def test_times_count_down(browser: Browser) -> None:
    """Three requests, and then all is well; the list says how many are left."""
    fault(browser, "jwks", {"kind": "status", "status": 500}, times=3)
    assert browser.get(JWKS).status_code == 500
    assert call(browser, "GET", "/faults").get_json()[0]["times"] == 2
    assert [browser.get(JWKS).status_code for _ in range(3)] == [500, 500, 200]


def test_times_zero_lasts_until_it_is_deleted(browser: Browser) -> None:
    """However many requests come."""
    number = fault(browser, "jwks", {"kind": "status", "status": 500}, times=0)
    assert {browser.get(JWKS).status_code for _ in range(5)} == {500}
    call(browser, "DELETE", f"/faults/{number}")
    assert browser.get(JWKS).status_code == 200


def test_of_requests_at_once_one_meets_the_fault(browser: Browser) -> None:
    """The next request is one request, over all threads."""
    fault(browser, "jwks", {"kind": "status", "status": 500})
    statuses = in_threads(8, lambda: Browser(browser.app).get(JWKS).status_code)
    assert sorted(statuses) == [200] * 7 + [500]


@pytest.mark.parametrize(
    ("endpoint", "error", "status"),
    [
        ("token", "invalid_grant", 400),
        ("token", "invalid_client", 401),
        ("token", "unauthorized_client", 400),
        ("token", "made_up", 400),
        ("revoke", "unsupported_token_type", 400),
        ("userInfo", "invalid_token", 401),
        ("userInfo", "insufficient_scope", 403),
    ],
)
def test_protocol_errors(browser: Browser, endpoint: str, error: str, status: int) -> None:
    """In the protocol's own form, with no-store, and the challenge where one belongs."""
    fault(browser, endpoint, {"kind": "error", "error": error})
    answer = browser.user_info("x") if endpoint == "userInfo" else _request(browser, endpoint)
    assert answer.status_code == status
    assert answer.get_json()["error"] == error
    assert answer.headers["Cache-Control"] == "no-store"
    challenge = answer.headers.get("WWW-Authenticate", "")
    assert bool(challenge) is (error == "invalid_client" or endpoint == "userInfo")


@pytest.mark.parametrize("error", ["access_denied", "temporarily_unavailable", "invalid_client"])
def test_authorization_errors_go_to_the_client(browser: Browser, error: str) -> None:
    """A redirect with the state, as RFC 6749 section 4.1.2.1 has it; never to an address not registered."""
    fault(browser, "authorize", {"kind": "error", "error": error})
    evil = browser.authorize(redirect_uri="https://evil.example/")
    assert evil.status_code == 400
    answer = browser.authorize()
    assert answer.status_code == 302
    assert query_of(answer.location)["error"] == error
    assert query_of(answer.location)["state"] == "state-1"
    assert browser.authorize().location.startswith("/login?")


def test_a_refused_refresh_leaves_the_token_as_it_was(browser: Browser) -> None:
    """The fault takes the place of the request: nothing is used up, nothing revoked."""
    token = browser.tokens()["refresh_token"]
    fault(browser, "token", {"kind": "error", "error": "invalid_grant"})
    assert browser.refresh(token).get_json()["error"] == "invalid_grant"
    assert browser.refresh(token).status_code == 200


def test_fault_for_one_user_at_the_token_endpoint(browser: Browser) -> None:
    """Only this user's code and refresh token meet it; a client's own request doesn't."""
    other = Browser(browser.app)
    admin, alice = other.tokens(ADMIN), browser.tokens()
    fault(browser, "token", {"kind": "error", "error": "invalid_grant"}, user=ALICE, times=2)
    assert _request(browser, "token").status_code == 200
    assert other.refresh(admin["refresh_token"]).status_code == 200
    assert browser.redeem("junk").get_json()["error_description"] != "A fault that was asked for at /control."
    assert browser.refresh(alice["refresh_token"]).get_json()["error"] == "invalid_grant"
    code = browser.sign_in()
    assert browser.redeem(code).get_json()["error"] == "invalid_grant"
    assert browser.redeem(code).status_code == 200
    assert browser.refresh(alice["refresh_token"]).status_code == 200


def test_fault_for_one_user_at_the_authorization_endpoint(browser: Browser) -> None:
    """The session's user, or whom the login hint names."""
    other = Browser(browser.app)
    other.sign_in(ADMIN)
    browser.sign_in()
    fault(browser, "authorize", {"kind": "error", "error": "access_denied"}, user=ALICE, times=2)
    assert "code" in query_of(other.authorize(login_hint=ALICE).location)
    assert query_of(browser.authorize().location)["error"] == "access_denied"
    stranger = Browser(browser.app)
    assert stranger.authorize(login_hint=ADMIN).location.startswith("/login?")
    assert query_of(stranger.authorize(login_hint="ALICE@example.com").location)["error"] == "access_denied"
    assert "code" in query_of(browser.authorize().location)


def test_fault_for_one_user_at_the_end_of_the_sign_in(browser: Browser) -> None:
    """Who it is turns out with the password: an error for the client in place of a code, and no session."""
    fault(browser, "authorize", {"kind": "error", "error": "access_denied"}, user=ALICE)
    assert "code" in query_of(Browser(browser.app).submit_login(ADMIN).location)
    assert query_of(browser.submit_login().location)["error"] == "access_denied"
    assert query_of(browser.authorize(prompt="none").location)["error"] == "login_required"
    assert "code" in query_of(browser.submit_login().location)


def test_faults_for_everybody_spare_the_sign_in_page(browser: Browser) -> None:
    """They are for requests to the endpoint itself."""
    fault(browser, "authorize", {"kind": "status", "status": 500}, times=0)
    assert "code" in query_of(browser.submit_login().location)
    assert browser.authorize().status_code == 500


def test_wrong_claims(browser: Browser) -> None:
    """Changed, added and removed in the tokens of one answer, which are signed as always."""
    wanted = {
        "kind": "claims",
        "id_token": {"nonce": "other", "aud": ["a", "b"], "email": None, "extra": {"x": [1]}},
        "access_token": {"client_id": "another", "scope": None},
    }
    code = browser.sign_in()
    fault(browser, "token", wanted)
    answer = browser.redeem(code).get_json()
    identity, access = decode(answer["id_token"])[1], decode(answer["access_token"])[1]
    assert (identity["nonce"], identity["aud"], identity["extra"]) == ("other", ["a", "b"], {"x": [1]})
    assert "email" not in identity
    assert access["client_id"] == "another"
    assert "scope" not in access
    assert access["sub"] == identity["sub"]
    keys = services(browser.app).keys
    assert keys.verify(Purpose.ACCESS, answer["access_token"]) == access
    assert keys.verify(Purpose.ID, answer["id_token"]) == identity
    after = browser.refresh(answer["refresh_token"]).get_json()
    assert decode(after["access_token"])[1]["client_id"] == "local-client"


def test_wrong_claims_of_a_clients_own_token(browser: Browser) -> None:
    """client_credentials makes an access token, too."""
    fault(browser, "token", {"kind": "claims", "access_token": {"exp": 1}})
    answer = browser.token(grant_type="client_credentials").get_json()
    assert decode(answer["access_token"])[1]["exp"] == 1


@pytest.mark.parametrize(
    "claims",
    [
        {"iss": None},
        {"iss": 7},
        {"exp": None},
        {"exp": "soon"},
        {"exp": 10**300},
        {"exp": [1]},
        {"sub": None},
        {"sub": {"a": 1}},
        {"sub": "nobody"},
        {"scope": None},
        {"scope": ["openid"]},
        {"origin_jti": None},
        {"origin_jti": {"a": 1}},
    ],
)
def test_wrong_claims_come_back_as_bad_tokens(browser: Browser, claims: dict[str, Any]) -> None:
    """The provider's own endpoints refuse what it made wrong, and never fail over it."""
    code = browser.sign_in()
    fault(browser, "token", {"kind": "claims", "access_token": claims, "id_token": claims | {"aud": [1]}})
    answer = browser.redeem(code).get_json()
    assert browser.user_info(answer["access_token"]).status_code in (200, 401)
    assert browser.revoke(answer["access_token"]).status_code in (200, 400)
    assert browser.get("/logout", id_token_hint=answer["id_token"]).status_code == 400


def test_a_dropped_connection_has_no_answer(browser: Browser) -> None:
    """Under a server whose connections aren't known the answer breaks off; test_live.py has the real one."""
    fault(browser, "jwks", {"kind": "drop"})
    with pytest.raises(ConnectionAbortedError):
        browser.get(JWKS)
    assert browser.get(JWKS).status_code == 200


def test_a_dropped_request_was_not_carried_out(browser: Browser) -> None:
    """The code is still good."""
    code = browser.sign_in()
    fault(browser, "token", {"kind": "drop"})
    form = {"grant_type": "authorization_code", "code": code, "code_verifier": VERIFIER}
    with pytest.raises(ConnectionAbortedError):
        browser.post("/oauth2/token", form, buffered=True)
    assert browser.redeem(code).status_code == 200


def test_deleting_all_faults_ends_the_waiting(browser: Browser) -> None:
    """Nobody has to sit out a minute; beyond a number of waiting requests the answer is 503 at once."""
    fault(browser, "jwks", {"kind": "slow", "seconds": 60}, times=0)
    began = Stopwatch()

    def one() -> int:
        status = Browser(browser.app).get(JWKS).status_code
        if status == 503:
            call(browser, "DELETE", "/faults")
        return status

    statuses = in_threads(MOST_SLOW_AT_ONCE + 1, one)
    assert sorted(statuses) == [200] * MOST_SLOW_AT_ONCE + [503]
    assert began.own < 10


def test_options_and_other_hosts_use_up_no_fault(browser: Browser) -> None:
    """Only a request that would have been answered counts."""
    fault(browser, "jwks", {"kind": "status", "status": 500})
    assert browser.client.options(JWKS, base_url=browser.origin).status_code == 200
    assert browser.client.get(JWKS, base_url="http://evil.example").status_code == 400
    assert browser.get(JWKS).status_code == 500


def test_faults_do_not_outlive_the_process(browser: Browser, make: MakeBrowser) -> None:
    """They live in memory."""
    fault(browser, "jwks", {"kind": "drop"}, times=0)
    assert make(control_token=TOKEN).get(JWKS).status_code == 200


def test_request_parameters_are_good(browser: Browser) -> None:
    """The table above stands on this: without a fault every request succeeds."""
    assert {_request(browser, each).status_code for each in ENDPOINTS} <= {200, 302, 303}
    assert browser.get("/login", **request_parameters()).status_code == 200
