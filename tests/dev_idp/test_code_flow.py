"""The authorization code flow with PKCE."""

import base64
import threading
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.dev_idp.conftest import MakeBrowser
from tests.dev_idp.flow import (
    CALLBACK,
    CHALLENGE,
    SCOPE,
    VERIFIER,
    Browser,
    Clock,
    decode,
    query_of,
    request_parameters,
)


def test_whole_flow_from_authorize_to_tokens(browser: Browser) -> None:
    """A browser without session is sent to the page, signs in, and its code buys tokens."""
    to_page = browser.authorize()
    assert to_page.status_code == 303
    assert to_page.location.startswith("/login?")
    back = browser.submit_login()
    assert back.status_code == 303
    assert back.location.startswith(f"{CALLBACK}?")
    answer = query_of(back.location)
    assert set(answer) == {"code", "state"}
    response = browser.redeem(answer["code"])
    assert response.status_code == 200
    assert response.headers["Cache-Control"] == "no-store"
    assert response.content_type == "application/json"
    tokens = response.get_json()
    assert set(tokens) == {
        "access_token",
        "id_token",
        "refresh_token",
        "token_type",
        "expires_in",
    }
    assert tokens["token_type"] == "Bearer"
    assert tokens["expires_in"] == 300


@pytest.mark.parametrize("state", ["plain", "a+b/c=", "é ü", "%41%2B", '"quoted" & <b>', "x" * 2000, "?#;,"])
def test_state_comes_back_as_it_was_given(browser: Browser, state: str) -> None:
    """RFC 6749 section 4.1.2: the exact value, on success and on failure."""
    assert query_of(browser.submit_login(state=state).location)["state"] == state
    failed = browser.authorize(state=state, scope="unknown")
    assert query_of(failed.location)["state"] == state


def test_no_state_no_state(browser: Browser) -> None:
    """A request without state gets an answer without it."""
    assert set(query_of(browser.submit_login(state=None).location)) == {"code"}


def test_authorization_request_may_come_by_post(browser: Browser) -> None:
    """OpenID Connect Core section 3.1.2.1 asks for GET and POST."""
    response = browser.post("/oauth2/authorize", request_parameters())
    assert response.status_code == 303
    assert query_of(response.location) == request_parameters()


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"code_challenge": None, "code_challenge_method": None}, "invalid_request"),
        ({"code_challenge": None}, "invalid_request"),
        ({"code_challenge_method": None}, "invalid_request"),
        ({"code_challenge_method": "plain", "code_challenge": VERIFIER}, "invalid_request"),
        ({"code_challenge_method": "s256"}, "invalid_request"),
        ({"code_challenge": CHALLENGE[:-1]}, "invalid_request"),
        ({"code_challenge": CHALLENGE + "\n"}, "invalid_request"),
        ({"code_challenge": CHALLENGE[:-1] + "~"}, "invalid_request"),
        ({"code_challenge": CHALLENGE[:-1] + "é"}, "invalid_request"),
        ({"scope": "openid unknown"}, "invalid_scope"),
        ({"scope": "openid API://weather/access"}, "invalid_scope"),
        ({"scope": 'openid "é\\'}, "invalid_scope"),
        ({"response_type": None}, "invalid_request"),
        ({"response_type": "token"}, "unauthorized_client"),
        ({"response_type": "code id_token"}, "unsupported_response_type"),
        ({"response_type": 'é"\\'}, "unsupported_response_type"),
        ({"response_mode": "form_post"}, "invalid_request"),
        ({"prompt": "none login"}, "invalid_request"),
        ({"prompt": "none"}, "login_required"),
        ({"max_age": "-1"}, "invalid_request"),
        ({"max_age": "soon"}, "invalid_request"),
        ({"max_age": "9" * 500}, "invalid_request"),
        ({"request": "eyJ"}, "request_not_supported"),
        ({"request_uri": "https://evil.example/"}, "request_uri_not_supported"),
    ],
)
def test_bad_request_of_a_known_client_gets_an_error_redirect(
    browser: Browser, changes: dict[str, str | None], error: str
) -> None:
    """The registered redirect URI is told what was wrong, and gets no code."""
    response = browser.authorize(**changes)
    assert response.status_code == 302
    assert response.location.startswith(f"{CALLBACK}?")
    answer = query_of(response.location)
    assert answer["error"] == error
    assert answer["state"] == "state-1"
    assert "code" not in answer


@pytest.mark.parametrize(
    "changes",
    [
        {"client_id": None},
        {"client_id": ""},
        {"client_id": "other"},
        {"client_id": 'é"\\'},
        {"redirect_uri": None},
        {"redirect_uri": ""},
        {"redirect_uri": CALLBACK + "/"},
        {"redirect_uri": CALLBACK + "?x=1"},
        {"redirect_uri": CALLBACK.replace("localhost", "LOCALHOST")},
        {"redirect_uri": CALLBACK.replace("5003", "5004")},
        {"redirect_uri": "https://evil.example/é"},
        {"redirect_uri": "javascript:alert(1)"},
        {"redirect_uri": CALLBACK + "\n"},
    ],
)
@pytest.mark.parametrize("path", ["/oauth2/authorize", "/login", "/signup"])
def test_unknown_client_or_redirect_uri_gets_a_page(
    browser: Browser, path: str, changes: dict[str, str | None]
) -> None:
    """Never a redirect: nobody known could receive it (RFC 6749 section 4.1.2.1)."""
    response = browser.get(path, **request_parameters(**changes))
    assert response.status_code == 400
    assert "Location" not in response.headers
    assert response.mimetype == "text/html"
    assert "evil.example" not in response.text
    assert "javascript:" not in response.text


@pytest.mark.parametrize("name", ["client_id", "redirect_uri"])
def test_doubled_client_or_redirect_uri_gets_a_page(browser: Browser, name: str) -> None:
    """Two values could be judged by one and answered by the other."""
    query = request_parameters()
    path = f"/oauth2/authorize?{urlencode(query)}&{urlencode({name: query[name]})}"
    assert browser.client.get(path, base_url=browser.origin).status_code == 400


@pytest.mark.parametrize("name", ["scope", "state", "nonce", "code_challenge", "prompt"])
def test_doubled_parameter_is_an_invalid_request(browser: Browser, name: str) -> None:
    """RFC 6749 section 3.1: no parameter more than once."""
    path = f"/oauth2/authorize?{urlencode(request_parameters())}&{name}=a&{name}=b"
    response = browser.client.get(path, base_url=browser.origin)
    assert query_of(response.location)["error"] == "invalid_request"


def test_scope_left_out_means_all_registered_ones(browser: Browser) -> None:
    """As at Cognito."""
    access = decode(browser.tokens(scope=None)["access_token"])[1]
    assert set(access["scope"].split()) == {*SCOPE.split(), "phone"}


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"code_verifier": "other-" * 9}, "invalid_grant"),
        ({"code_verifier": CHALLENGE}, "invalid_grant"),
        ({"code_verifier": ""}, "invalid_request"),
        ({"code_verifier": "short"}, "invalid_request"),
        ({"code_verifier": "é" * 50}, "invalid_request"),
        ({"redirect_uri": "http://localhost:5003/"}, "invalid_grant"),
        ({"redirect_uri": ""}, "invalid_grant"),
        ({"code": "unknown"}, "invalid_grant"),
        ({"code": "é\x00"}, "invalid_grant"),
        ({"code": ""}, "invalid_grant"),
    ],
)
def test_code_is_bound_to_its_request(browser: Browser, changes: dict[str, str], error: str) -> None:
    """Anything that differs is refused, and the honest redeem still works afterwards."""
    code = browser.sign_in()
    response = browser.redeem(**{"code": code, **changes})
    assert response.status_code == 400
    assert response.get_json()["error"] == error
    assert browser.redeem(code).status_code == 200


def test_code_lives_five_minutes(browser: Browser, clock: Clock) -> None:
    """A code is good just before its end and not at it."""
    early, late = browser.sign_in(), browser.sign_in()
    clock.forward(299)
    assert browser.redeem(early).status_code == 200
    clock.forward(1)
    assert browser.redeem(late).get_json()["error"] == "invalid_grant"


def test_code_reuse_is_refused_and_revokes_its_refresh_token(browser: Browser) -> None:
    """RFC 6749 section 4.1.2: somebody else has the code, so its tokens end."""
    code = browser.sign_in()
    tokens = browser.redeem(code).get_json()
    assert browser.redeem(code).get_json()["error"] == "invalid_grant"
    assert browser.refresh(tokens["refresh_token"]).get_json()["error"] == "invalid_grant"
    assert browser.user_info(tokens["access_token"]).status_code == 401


def test_code_of_another_client_is_refused_and_revokes_nothing(make: MakeBrowser) -> None:
    """A client can neither redeem another's code nor end its family by trying."""
    browser = make()
    code = browser.sign_in()
    tokens = browser.redeem(code).get_json()
    other = make(client_id="another", client_secret="another-secret")
    assert other.redeem(code).get_json()["error"] == "invalid_grant"
    assert browser.refresh(tokens["refresh_token"]).status_code == 200


def test_of_many_redeems_at_once_one_wins(browser: Browser) -> None:
    """A code buys one token response, however many threads ask."""
    code = browser.sign_in()
    answers = in_threads(8, lambda: browser.redeem(code).status_code)
    assert sorted(answers) == [200] + [400] * 7


def in_threads(count: int, call: Any) -> list[Any]:
    """Run the call in so many threads at once; gives what they returned."""
    results: list[Any] = []
    barrier = threading.Barrier(count)

    def run() -> None:
        barrier.wait()
        results.append(call())

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_client_may_authenticate_in_the_body(browser: Browser) -> None:
    """client_secret_post, as discovery offers it."""
    form = {
        "grant_type": "authorization_code",
        "code": browser.sign_in(),
        "redirect_uri": CALLBACK,
        "code_verifier": VERIFIER,
        "client_id": browser.settings.client_id,
        "client_secret": browser.settings.client_secret,
    }
    assert browser.post("/oauth2/token", form).status_code == 200


def test_secret_may_be_form_encoded_in_basic(make: MakeBrowser) -> None:
    """RFC 6749 section 2.3.1 asks for it, and many libraries leave it out."""
    browser = make(client_secret="a+b%c d:é")
    for secret in ("a+b%c d:é", "a%2Bb%25c+d%3A%C3%A9"):
        header = base64.b64encode(f"local-client:{secret}".encode()).decode()
        response = browser.post(
            "/oauth2/token",
            {"grant_type": "refresh_token", "refresh_token": "unknown"},
            headers={"Authorization": f"Basic {header}"},
        )
        assert response.get_json()["error"] == "invalid_grant"


def _basic(text: bytes) -> str:
    return "Basic " + base64.b64encode(text).decode()


@pytest.mark.parametrize(
    ("authorization", "form"),
    [
        (None, {}),
        (None, {"client_id": "local-client"}),
        (None, {"client_id": "local-client", "client_secret": "wrong"}),
        (None, {"client_id": "local-client", "client_secret": "é"}),
        (None, {"client_id": "unknown", "client_secret": "x"}),
        ("Basic", {}),
        ("Basic !!!", {}),
        ("Basic \xe9", {}),
        ("Bearer abc", {}),
        (_basic(b"local-client"), {}),
        (_basic(b"local-client:"), {}),
        (_basic(b"local-client:wrong"), {}),
        (_basic(b"unknown:x"), {}),
        (_basic(b"\xff\xfe:\xff"), {}),
        (_basic(b":"), {}),
    ],
)
def test_failed_client_authentication_is_401_with_a_challenge(
    browser: Browser, authorization: str | None, form: dict[str, str]
) -> None:
    """RFC 6749 section 5.2, whatever the junk, and it redeems nothing."""
    code = browser.sign_in()
    redeem = {"grant_type": "authorization_code", "code": code, "redirect_uri": CALLBACK}
    response = browser.post(
        "/oauth2/token",
        {**redeem, "code_verifier": VERIFIER, **form},
        headers={"Authorization": authorization} if authorization else {},
    )
    assert response.status_code == 401
    assert response.get_json()["error"] == "invalid_client"
    assert response.headers["WWW-Authenticate"].startswith("Basic realm=")
    assert browser.redeem(code).status_code == 200


@pytest.mark.parametrize(
    ("path", "data", "content_type", "error"),
    [
        ("/oauth2/token", "", "application/x-www-form-urlencoded", "invalid_request"),
        ("/oauth2/token", "grant_type=", "application/x-www-form-urlencoded", "invalid_request"),
        ("/oauth2/token", "{}", "application/json", "invalid_request"),
        (
            "/oauth2/token",
            "grant_type=password&username=a&password=b",
            "application/x-www-form-urlencoded",
            "unsupported_grant_type",
        ),
        (
            "/oauth2/token?client_secret=x",
            "grant_type=refresh_token",
            "application/x-www-form-urlencoded",
            "invalid_request",
        ),
        (
            "/oauth2/token",
            "grant_type=refresh_token",
            "application/x-www-form-urlencoded",
            "invalid_request",
        ),
        (
            "/oauth2/token",
            "grant_type=authorization_code",
            "application/x-www-form-urlencoded",
            "invalid_request",
        ),
        (
            "/oauth2/token",
            "grant_type=refresh_token&refresh_token=a&refresh_token=b",
            "application/x-www-form-urlencoded",
            "invalid_request",
        ),
        (
            "/oauth2/token",
            "grant_type=refresh_token&refresh_token=a&client_secret=b",
            "application/x-www-form-urlencoded",
            "invalid_request",
        ),
        ("/oauth2/revoke", "", "application/x-www-form-urlencoded", "invalid_request"),
        ("/oauth2/revoke", "token=", "application/x-www-form-urlencoded", "invalid_request"),
    ],
)
def test_malformed_token_request(
    browser: Browser, path: str, data: str, content_type: str, error: str
) -> None:
    """Bad requests get RFC 6749 section 5.2's JSON, never a stack trace."""
    response = browser.client.post(
        path,
        data=data,
        content_type=content_type,
        base_url=browser.origin,
        auth=(browser.settings.client_id, browser.settings.client_secret),
    )
    assert response.status_code == 400
    assert response.get_json()["error"] == error
    assert response.headers["Cache-Control"] == "no-store"


def test_client_credentials_of_the_only_client(browser: Browser) -> None:
    """Without a service client the main client may use the grant, for API scopes."""
    response = browser.token(grant_type="client_credentials")
    tokens = response.get_json()
    assert set(tokens) == {"access_token", "token_type", "expires_in"}
    claims = decode(tokens["access_token"])[1]
    assert claims["sub"] == claims["client_id"] == "local-client"
    assert claims["scope"] == "api://weather/access"
    refused = browser.token(grant_type="client_credentials", scope="openid")
    assert refused.get_json()["error"] == "invalid_scope"


def test_service_client_takes_the_grant_over(make: MakeBrowser) -> None:
    """With a service client the two are separate, as Cognito demands."""
    browser = make(service_client_id="service", service_client_secret="service-secret")
    own = browser.token(grant_type="client_credentials")
    assert own.get_json()["error"] == "unauthorized_client"
    form = {"grant_type": "client_credentials", "scope": "api://weather/access"}
    response = browser.post("/oauth2/token", form, auth=("service", "service-secret"))
    assert decode(response.get_json()["access_token"])[1]["client_id"] == "service"
    code_grant = {"grant_type": "authorization_code", "code": browser.sign_in()}
    refused = browser.post("/oauth2/token", code_grant, auth=("service", "service-secret"))
    assert refused.get_json()["error"] == "unauthorized_client"
