"""The control API: who may use it, what it does, and what it refuses."""

import json
import logging
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from tests.dev_idp.conftest import MakeBrowser
from tests.dev_idp.control import BEARER, TOKEN, call, fault
from tests.dev_idp.flow import ADMIN, ALICE, ORIGIN, Browser, Clock, decode, services

JWKS = "/local_pool/.well-known/jwks.json"
CALLS = [
    ("GET", "/control/faults"),
    ("POST", "/control/faults"),
    ("DELETE", "/control/faults"),
    ("DELETE", "/control/faults/1"),
    ("POST", "/control/keys/rotate"),
    ("GET", f"/control/users/{ALICE}/groups"),
    ("PUT", f"/control/users/{ALICE}/groups"),
    ("POST", f"/control/users/{ALICE}/revoke"),
    ("POST", "/control/clients"),
    ("GET", "/control/unknown"),
]
PAGES = [
    ("GET", "/control"),
    ("GET", "/control/"),
    ("POST", "/control/page/enter"),
    ("POST", "/control/page/groups"),
    ("POST", "/control/page/faults"),
]


@pytest.fixture
def browser(make: MakeBrowser) -> Browser:
    """A browser at a provider with a control token."""
    return make(control_token=TOKEN)


def _open(browser: Browser, method: str, path: str, headers: dict[str, str]) -> Any:
    body: dict[str, Any] = {} if method == "GET" else {"json": {}}
    return browser.client.open(
        path,
        method=method,
        base_url=browser.origin,
        headers=headers,
        **body,
    )


@pytest.mark.parametrize(("method", "path"), CALLS + PAGES)
@pytest.mark.parametrize("authorization", ["", "Bearer ", f"Bearer {TOKEN}"])
def test_without_the_setting_there_is_no_control(
    make: MakeBrowser, method: str, path: str, authorization: str
) -> None:
    """Every control and admin address is one that doesn't exist, whatever is sent."""
    response = _open(make(), method, path, {"Authorization": authorization})
    assert response.status_code == 404
    assert "Set-Cookie" not in response.headers


@pytest.mark.parametrize(("method", "path"), CALLS)
@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Bearer wrong",
        f"Bearer {TOKEN[:-1]}",
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN.upper()}",
        f"Basic {TOKEN}",
        TOKEN,
        "Bearer \xff\xfe",
    ],
)
def test_nobody_gets_in_without_the_token(
    browser: Browser, method: str, path: str, authorization: str | None
) -> None:
    """401 as RFC 9457 has it, before anything else is looked at, and nothing happens."""
    headers = {} if authorization is None else {"Authorization": authorization}
    response = _open(browser, method, path, headers)
    assert response.status_code == 401
    assert response.mimetype == "application/problem+json"
    assert response.get_json()["status"] == 401
    assert response.headers["WWW-Authenticate"].startswith("Bearer")
    assert TOKEN not in response.text


@pytest.mark.parametrize(("method", "path"), CALLS)
@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "http://127.0.0.1:5003"},
        {"Origin": "http://localhost:5002"},
        {"Origin": "null"},
        {"Origin": ""},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "junk"},
        {"Origin": ORIGIN, "Sec-Fetch-Site": "same-site"},
    ],
)
def test_no_page_of_another_origin_gets_in(
    browser: Browser, method: str, path: str, headers: dict[str, str]
) -> None:
    """403 even with the right token: any web page can reach a port of this machine."""
    response = _open(browser, method, path, {**BEARER, **headers})
    assert response.status_code == 403
    assert response.mimetype == "application/problem+json"
    assert "Access-Control-Allow-Origin" not in response.headers


@pytest.mark.parametrize(("method", "path"), CALLS + PAGES)
@pytest.mark.parametrize("host", ["evil.example", "evil.example:5002", "127.0.0.1", ""])
def test_the_host_rule_holds_for_control(browser: Browser, method: str, path: str, host: str) -> None:
    """DNS rebinding: 400 even with the right token."""
    response = _open(browser, method, path, {**BEARER, "Host": host})
    assert response.status_code == 400


@pytest.mark.parametrize("headers", [{}, {"Origin": ORIGIN}, {"Sec-Fetch-Site": "none"}])
def test_the_token_opens_it(browser: Browser, headers: dict[str, str]) -> None:
    """From a program, and from a page of this very origin; the scheme's name in any case."""
    assert _open(browser, "GET", "/control/faults", {**BEARER, **headers}).get_json() == []
    assert _open(browser, "GET", "/control/faults", {"Authorization": f"bearer {TOKEN}"}).status_code == 200


def test_guessing_is_limited(browser: Browser, clock: Clock) -> None:
    """Ten wrong tokens, then a minute in which an address isn't listened to, with the right one neither."""
    for _ in range(10):
        assert _open(browser, "GET", "/control/faults", {"Authorization": "Bearer x"}).status_code == 401
    for headers in ({"Authorization": "Bearer x"}, BEARER):
        response = _open(browser, "GET", "/control/faults", headers)
        assert response.status_code == 429
        assert response.headers["Retry-After"] == "60"
    elsewhere = {"environ_overrides": {"REMOTE_ADDR": "192.0.2.7"}}
    other = browser.client.get("/control/faults", headers=BEARER, base_url=browser.origin, **elsewhere)
    assert other.status_code == 200
    clock.forward(60)
    assert _open(browser, "GET", "/control/faults", BEARER).status_code == 200


def test_a_foreign_page_cannot_use_up_the_guesses(browser: Browser) -> None:
    """Its wrong tokens aren't looked at, so they lock nobody out; neither do missing ones."""
    for _ in range(20):
        _open(browser, "GET", "/control/faults", {"Authorization": "Bearer x", "Origin": "null"})
        _open(browser, "GET", "/control/faults", {})
    assert _open(browser, "GET", "/control/faults", BEARER).status_code == 200


def test_a_fault_is_listed_until_it_is_deleted(browser: Browser) -> None:
    """As it was given, with its number and what is left of it."""
    kind = {"kind": "status", "status": 503}
    one = fault(browser, "jwks", kind, times=0)
    two = fault(browser, "token", {"kind": "error", "error": "invalid_grant"}, user="Alice@Example.com")
    listed = call(browser, "GET", "/faults").get_json()
    assert listed == [
        {"id": one, "endpoint": "jwks", "fault": kind, "times": 0},
        {
            "id": two,
            "endpoint": "token",
            "fault": {"kind": "error", "error": "invalid_grant"},
            "times": 1,
            "user": ALICE,
        },
    ]
    assert call(browser, "DELETE", f"/faults/{one}").get_json() == {"deleted": 1}
    assert call(browser, "DELETE", f"/faults/{one}").status_code == 404
    assert call(browser, "DELETE", "/faults").get_json() == {"deleted": 1}
    assert call(browser, "DELETE", "/faults").get_json() == {"deleted": 0}
    assert call(browser, "GET", "/faults").get_json() == []


GOOD = {"endpoint": "token", "fault": {"kind": "drop"}}


@pytest.mark.parametrize(
    "body",
    [
        {},
        {**GOOD, "endpoint": "health"},
        {**GOOD, "endpoint": None},
        {**GOOD, "endpoint": ["token"]},
        {**GOOD, "endpoint": {}},
        {**GOOD, "fault": None},
        {**GOOD, "fault": "drop"},
        {**GOOD, "fault": []},
        {**GOOD, "fault": {}},
        {**GOOD, "fault": {"kind": "explode"}},
        {**GOOD, "fault": {"kind": []}},
        {**GOOD, "fault": {"kind": "drop", "seconds": 1}},
        {**GOOD, "fault": {"kind": "slow"}},
        {**GOOD, "fault": {"kind": "slow", "seconds": "5"}},
        {**GOOD, "fault": {"kind": "slow", "seconds": True}},
        {**GOOD, "fault": {"kind": "slow", "seconds": 0}},
        {**GOOD, "fault": {"kind": "slow", "seconds": -1}},
        {**GOOD, "fault": {"kind": "slow", "seconds": 60.001}},
        {**GOOD, "fault": {"kind": "slow", "seconds": 10**400}},
        {**GOOD, "fault": {"kind": "slow", "seconds": None}},
        {**GOOD, "fault": {"kind": "status"}},
        {**GOOD, "fault": {"kind": "status", "status": 200}},
        {**GOOD, "fault": {"kind": "status", "status": 399}},
        {**GOOD, "fault": {"kind": "status", "status": 600}},
        {**GOOD, "fault": {"kind": "status", "status": 503.0}},
        {**GOOD, "fault": {"kind": "status", "status": "503"}},
        {**GOOD, "fault": {"kind": "status", "status": True}},
        {**GOOD, "fault": {"kind": "error"}},
        {**GOOD, "fault": {"kind": "error", "error": ""}},
        {**GOOD, "fault": {"kind": "error", "error": 'x"y'}},
        {**GOOD, "fault": {"kind": "error", "error": "x\r\nSet-Cookie: a=b"}},
        {**GOOD, "fault": {"kind": "error", "error": "x" * 65}},
        {**GOOD, "fault": {"kind": "error", "error": 7}},
        {"endpoint": "jwks", "fault": {"kind": "error", "error": "invalid_grant"}},
        {"endpoint": "discovery", "fault": {"kind": "error", "error": "invalid_grant"}},
        {"endpoint": "logout", "fault": {"kind": "error", "error": "invalid_grant"}},
        {**GOOD, "fault": {"kind": "claims"}},
        {**GOOD, "fault": {"kind": "claims", "id_token": {}}},
        {**GOOD, "fault": {"kind": "claims", "id_token": []}},
        {**GOOD, "fault": {"kind": "claims", "id_token": {"a": 1}, "access_token": "x"}},
        {"endpoint": "jwks", "fault": {"kind": "claims", "id_token": {"a": 1}}},
        {**GOOD, "times": -1},
        {**GOOD, "times": 1_000_001},
        {**GOOD, "times": 10**300},
        {**GOOD, "times": 1.5},
        {**GOOD, "times": "1"},
        {**GOOD, "times": None},
        {**GOOD, "times": True},
        {**GOOD, "user": "nobody@example.com"},
        {**GOOD, "user": ""},
        {**GOOD, "user": None},
        {**GOOD, "user": ["alice@example.com"]},
        {**GOOD, "user": "\ud800@example.com"},
        {**GOOD, "user": "x" * 10_000},
        {"endpoint": "jwks", "fault": {"kind": "drop"}, "user": ALICE},
        {**GOOD, "time": 1},
    ],
)
def test_a_bad_fault_is_refused_with_what_is_wrong(browser: Browser, body: dict[str, Any]) -> None:
    """400 with a sentence, and nothing is in force."""
    response = call(browser, "POST", "/faults", body)
    assert response.status_code == 400, response.text
    assert response.mimetype == "application/problem+json"
    detail = response.get_json()["detail"]
    assert any(word in detail for word in ("'", "member", "surrogate", "number"))
    assert call(browser, "GET", "/faults").get_json() == []


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/json", b""),
        ("application/json", b"{"),
        ("application/json", b"null"),
        ("application/json", b"[]"),
        ("application/json", b'"x"'),
        ("application/json", b"\xff\xfe{}"),
        ("application/json", b"\xef\xbb\xbf{}"),
        ("application/json", b"[" * 30_000),
        ("application/json", b'{"a":' * 10_000),
        ("application/json", b'{"endpoint":"token","endpoint":"jwks","fault":{"kind":"drop"}}'),
        ("application/json", b'{"endpoint":"token","fault":{"kind":"slow","seconds":NaN}}'),
        ("application/json", b'{"endpoint":"token","fault":{"kind":"slow","seconds":Infinity}}'),
        ("application/json", b'{"endpoint":"token","fault":{"kind":"slow","seconds":1e999}}'),
        ("application/json", b'{"endpoint":"token","fault":{"kind":"drop"},"times":' + b"9" * 5000 + b"}"),
        (
            "application/json",
            b'{"endpoint":"token","fault":{"kind":"claims","id_token":{"a":' + b"[" * 9 + b"]" * 9 + b"}}}",
        ),
        ("text/plain", b'{"endpoint":"token","fault":{"kind":"drop"}}'),
        ("application/x-www-form-urlencoded", b'{"endpoint":"token","fault":{"kind":"drop"}}'),
        ("", b'{"endpoint":"token","fault":{"kind":"drop"}}'),
    ],
)
@pytest.mark.parametrize("path", ["/faults", "/clients"])
def test_what_is_no_json_object_is_refused(
    browser: Browser, path: str, content_type: str, body: bytes
) -> None:
    """A simple request of a foreign form among them; 400, never a 500."""
    response = browser.client.post(
        f"/control{path}", data=body, headers=BEARER, content_type=content_type, base_url=browser.origin
    )
    assert response.status_code == 400
    assert response.mimetype == "application/problem+json"


def test_other_errors_are_problems_too(browser: Browser) -> None:
    """Unknown addresses, wrong methods and large bodies."""
    assert call(browser, "GET", "/unknown").status_code == 404
    wrong = call(browser, "PATCH", "/faults")
    assert wrong.status_code == 405
    assert "POST" in wrong.headers["Allow"]
    assert wrong.mimetype == "application/problem+json"
    assert call(browser, "POST", "/faults", {"x": "y" * 70_000}).status_code == 413


def test_there_is_a_limit_to_faults(browser: Browser) -> None:
    """A hundred at once; deleting makes room."""
    for _ in range(100):
        fault(browser, "jwks", {"kind": "drop"})
    full = call(browser, "POST", "/faults", {"endpoint": "jwks", "fault": {"kind": "drop"}})
    assert full.status_code == 409
    call(browser, "DELETE", "/faults")
    fault(browser, "jwks", {"kind": "drop"})


def _kids(browser: Browser) -> list[str]:
    return [key["kid"] for key in browser.get(JWKS).get_json()["keys"]]


def test_rotated_keys_sign_and_the_old_ones_still_verify(browser: Browser) -> None:
    """New tokens name new keys; what the old ones signed goes on being accepted."""
    old, before = browser.tokens(), _kids(browser)
    answer = call(browser, "POST", "/keys/rotate").get_json()
    after = _kids(browser)
    assert set(before) < set(after)
    assert answer["published"] == after
    new = browser.tokens()
    headers = {name: decode(new[f"{name}_token"])[0]["kid"] for name in ("access", "id")}
    assert headers == answer["signing"]
    assert not set(headers.values()) & set(before)
    assert browser.user_info(old["access_token"]).status_code == 200
    assert browser.user_info(new["access_token"]).status_code == 200


def test_forgotten_keys_verify_nothing(browser: Browser) -> None:
    """Only the new ones are published."""
    old = browser.tokens()
    call(browser, "POST", "/keys/rotate", {"forget_old": True})
    assert len(_kids(browser)) == 2
    assert browser.user_info(old["access_token"]).status_code == 401
    assert browser.user_info(browser.tokens()["access_token"]).status_code == 200


def test_rotated_keys_outlive_a_restart(browser: Browser, make: MakeBrowser, clock: Clock) -> None:
    """The newest goes on signing, even where the clock was set back between."""
    before = _kids(browser)
    clock.now = 1000.0  # long before the first keys were made
    signing = call(browser, "POST", "/keys/rotate").get_json()["signing"]
    assert not set(signing.values()) & set(before)
    again = make(control_token=TOKEN)
    assert services(again.app).keys.signing() == signing
    assert _kids(again) == _kids(browser)


def test_rotating_in_a_loop_keeps_ten(browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    """The set doesn't grow for ever. (Three here, since making keys takes time.)"""
    monkeypatch.setattr("bff.dev_idp.keys.MOST_PUBLISHED", 3)
    for _ in range(4):
        signing = call(browser, "POST", "/keys/rotate").get_json()["signing"]
    assert len(_kids(browser)) == 6
    assert set(signing.values()) < set(_kids(browser))


@pytest.mark.parametrize(
    "body", [{"forget_old": "yes"}, {"forget_old": 1}, {"forget_old": None}, {"forget": True}, []]
)
def test_a_bad_rotation_changes_nothing(browser: Browser, body: Any) -> None:
    """400, and the keys are the same."""
    before = _kids(browser)
    assert call(browser, "POST", "/keys/rotate", body).status_code == 400
    assert _kids(browser) == before


def test_groups_are_in_the_next_tokens(browser: Browser) -> None:
    """Also in those of a refresh; without groups the claim is left out."""
    refresh_token = browser.tokens()["refresh_token"]
    answer = call(browser, "PUT", f"/users/{ALICE}/groups", {"groups": ["admins", "été", "admins"]})
    assert answer.get_json() == {"groups": ["admins", "été"]}
    assert call(browser, "GET", "/users/ALICE@example.com/groups").get_json() == answer.get_json()
    new = browser.refresh(refresh_token).get_json()
    for name in ("access_token", "id_token"):
        assert decode(new[name])[1]["cognito:groups"] == ["admins", "été"]
    call(browser, "PUT", f"/users/{ALICE}/groups", {"groups": []})
    last = browser.refresh(new["refresh_token"]).get_json()
    assert "cognito:groups" not in decode(last["access_token"])[1]
    assert "admins" in decode(browser.tokens(ADMIN, prompt="login")["access_token"])[1]["cognito:groups"]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"groups": None},
        {"groups": "admins"},
        {"groups": {"admins": True}},
        {"groups": [1]},
        {"groups": [None]},
        {"groups": [["admins"]]},
        {"groups": [""]},
        {"groups": ["two words"]},
        {"groups": ["a,b"]},
        {"groups": ["a\nb"]},
        {"groups": ["\ud800"]},
        {"groups": ["\u200b"]},
        {"groups": ["x" * 129]},
        {"groups": [str(number) for number in range(101)]},
        {"groups": [], "more": 1},
    ],
)
def test_bad_groups_change_nothing(browser: Browser, body: dict[str, Any]) -> None:
    """400, and the user stays as it was."""
    response = call(browser, "PUT", f"/users/{ALICE}/groups", body)
    assert response.status_code == 400
    assert call(browser, "GET", f"/users/{ALICE}/groups").get_json() == {"groups": ["readers"]}


@pytest.mark.parametrize("email", ["nobody@example.com", "x", "%00", "%ff", "'--", "a" * 5000])
def test_unknown_users_are_not_found(browser: Browser, email: str) -> None:
    """404 for each of the three calls."""
    assert call(browser, "GET", f"/users/{email}/groups").status_code == 404
    assert call(browser, "PUT", f"/users/{email}/groups", {"groups": []}).status_code == 404
    assert call(browser, "POST", f"/users/{email}/revoke").status_code == 404


def test_revoking_a_user_ends_every_refresh_token(browser: Browser) -> None:
    """And codes that haven't been redeemed; other users go on, and so does the provider's own session."""
    one, two = browser.tokens(), browser.tokens()
    code = browser.sign_in()
    other = Browser(browser.app).tokens(ADMIN)
    assert call(browser, "POST", f"/users/{ALICE}/revoke").get_json() == {"revoked": 2}
    for tokens in (one, two):
        assert browser.refresh(tokens["refresh_token"]).get_json()["error"] == "invalid_grant"
        assert browser.user_info(tokens["access_token"]).status_code == 401
    assert browser.redeem(code).get_json()["error"] == "invalid_grant"
    assert browser.refresh(other["refresh_token"]).status_code == 200
    assert "code=" in browser.authorize(prompt="none").location
    assert call(browser, "POST", f"/users/{ALICE}/revoke").get_json() == {"revoked": 0}


CLIENT = {"redirect_uris": ["http://localhost:6003/cb"]}


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"redirect_uris": []},
        {"redirect_uris": "http://localhost:6003/cb"},
        {"redirect_uris": [None]},
        {"redirect_uris": ["javascript:alert(1)"]},
        {"redirect_uris": ["http://localhost/#x"]},
        {"redirect_uris": ["http://a;b/"]},
        {"redirect_uris": ["http://localhost/'; script-src *"]},
        {"redirect_uris": ["http://x.example/" + "a" * 3000]},
        {"redirect_uris": ["http://localhost/"] * 11},
        {**CLIENT, "logout_uris": "http://localhost/"},
        {**CLIENT, "logout_uris": ["//evil.example"]},
        {**CLIENT, "client_id": ""},
        {**CLIENT, "client_id": "a:b"},
        {**CLIENT, "client_id": "a b"},
        {**CLIENT, "client_id": "x" * 129},
        {**CLIENT, "client_id": 7},
        {**CLIENT, "client_id": None},
        {**CLIENT, "client_secret": "short"},
        {**CLIENT, "client_secret": "with blank in it"},
        {**CLIENT, "client_secret": ["12345678"]},
        {**CLIENT, "scopes": ["x"]},
    ],
)
def test_a_bad_client_is_refused(browser: Browser, body: dict[str, Any]) -> None:
    """400 with what is wrong; a secret isn't repeated."""
    response = call(browser, "POST", "/clients", body)
    assert response.status_code == 400
    assert "with blank" not in response.text
    assert len(services(browser.app).clients.all()) == 1


def test_a_client_cannot_take_anothers_name(browser: Browser) -> None:
    """Neither the settings' client nor an added one; the places are limited."""
    assert call(browser, "POST", "/clients", {**CLIENT, "client_id": "local-client"}).status_code == 409
    assert call(browser, "POST", "/clients", {**CLIENT, "client_id": "other"}).status_code == 201
    assert call(browser, "POST", "/clients", {**CLIENT, "client_id": "other"}).status_code == 409
    statuses = [call(browser, "POST", "/clients", CLIENT).status_code for _ in range(50)]
    assert statuses == [201] * 48 + [409] * 2


def test_the_log_has_no_token_and_no_secret(browser: Browser, caplog: pytest.LogCaptureFixture) -> None:
    """Neither the control token, right or wrong, nor a client's secret."""
    caplog.set_level(logging.DEBUG)
    call(browser, "POST", "/clients", {**CLIENT, "client_secret": "very-secret-secret"})
    _open(browser, "GET", "/control/faults", {"Authorization": "Bearer wrong-guess-of-it"})
    assert "POST /control/clients 201" in caplog.text
    assert not [word for word in (TOKEN, "very-secret-secret", "wrong-guess") if word in caplog.text]


def test_an_issuer_may_have_the_same_path(make: MakeBrowser) -> None:
    """Discovery below it is for everybody, and no way in."""
    browser = make(control_token=TOKEN, issuer="http://localhost:5002/control")
    assert browser.get("/control/.well-known/jwks.json").status_code == 200
    assert browser.get("/control/faults").status_code == 401


def test_unexpected_errors_are_problems(browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault of ours shows nothing of the inside."""

    def fail(*_: object) -> None:
        raise RuntimeError("inner detail")

    monkeypatch.setattr("bff.dev_idp.control.faults.Faults.all", fail)
    response = call(browser, "GET", "/faults")
    assert response.status_code == 500
    assert json.loads(response.text)["status"] == 500
    assert "inner detail" not in response.text


def test_the_documented_calls_work(browser: Browser) -> None:
    """Every curl command of the manual, one after the other, as it stands there."""
    manual = (Path(__file__).parents[2] / "docs" / "local-provider.md").read_text()
    script = re.search(r"```sh\n(.*?)```", manual, re.DOTALL)
    assert script is not None
    script_lines = script[1].replace("\ncurl", "\n;curl")
    words_of_all = " ".join(map(shlex.quote, shlex.split(script_lines, comments=True)))
    calls = words_of_all.split("';curl'")[1:]
    assert len(calls) == 12
    for each in calls:
        words = shlex.split(each)
        method = words[words.index("-X") + 1] if "-X" in words else "GET"
        path = next(word.removeprefix("$IDP/control") for word in words if word.startswith("$IDP/"))
        body = json.loads(words[words.index("-d") + 1]) if "-d" in words else None
        assert "$AUTH" in words
        assert ("$JSON" in words) is (body is not None)
        assert call(browser, method, path, body).status_code in (200, 201), each
