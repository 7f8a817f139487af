"""What the tokens say and who signed them."""

import hashlib
from base64 import urlsafe_b64encode
from typing import Any

import pytest
from jose import JWTError, jwt

from bff.dev_idp import TEST_USERS
from tests.dev_idp.conftest import MakeBrowser
from tests.dev_idp.flow import ADMIN, ALICE, ORIGIN, Browser, Clock, decode

ISSUER = "http://localhost:5002/local_pool"
USERS = {user.email: user for user in TEST_USERS}


def _keys(browser: Browser) -> list[dict[str, Any]]:
    keys: list[dict[str, Any]] = browser.get("/local_pool/.well-known/jwks.json").get_json()["keys"]
    return keys


@pytest.mark.parametrize(("email", "groups"), [(ALICE, ["readers"]), (ADMIN, ["admins", "readers"])])
def test_access_token_has_cognitos_claims(
    browser: Browser, clock: Clock, email: str, groups: list[str]
) -> None:
    """Member by member, and no other; the header holds kid and alg only."""
    header, claims = decode(browser.tokens(email)["access_token"])
    assert set(header) == {"kid", "alg"}
    assert header["alg"] == "RS256"
    ids = {claims.pop(name) for name in ("origin_jti", "event_id", "jti")}
    assert len(ids) == 3
    now = int(clock.now)
    assert claims == {
        "sub": USERS[email].sub,
        "cognito:groups": groups,
        "iss": ISSUER,
        "version": 2,
        "client_id": "local-client",
        "token_use": "access",
        "scope": "openid email profile api://weather/access",
        "auth_time": now,
        "exp": now + 300,
        "iat": now,
        "username": USERS[email].sub,
    }


def test_id_token_has_cognitos_claims(browser: Browser, clock: Clock) -> None:
    """Member by member, and no other; origin_jti and event_id are the access token's."""
    tokens = browser.tokens(ALICE)
    header, claims = decode(tokens["id_token"])
    access = decode(tokens["access_token"])[1]
    assert set(header) == {"kid", "alg"}
    assert claims.pop("origin_jti") == access["origin_jti"]
    assert claims.pop("event_id") == access["event_id"]
    assert claims.pop("jti") != access["jti"]
    half = hashlib.sha256(tokens["access_token"].encode()).digest()[:16]
    now = int(clock.now)
    assert claims == {
        "at_hash": urlsafe_b64encode(half).decode().rstrip("="),
        "sub": USERS[ALICE].sub,
        "cognito:groups": ["readers"],
        "email": ALICE,
        "email_verified": True,
        "name": "Alice Reader",
        "given_name": "Alice",
        "iss": ISSUER,
        "cognito:username": USERS[ALICE].sub,
        "nonce": "nonce-1",
        "aud": "local-client",
        "token_use": "id",
        "auth_time": now,
        "exp": now + 300,
        "iat": now,
    }


def test_client_token_has_cognitos_claims(browser: Browser, clock: Clock) -> None:
    """A client's own token speaks of no user."""
    response = browser.token(grant_type="client_credentials")
    header, claims = decode(response.get_json()["access_token"])
    assert set(header) == {"kid", "alg"}
    assert claims.pop("jti")
    now = int(clock.now)
    assert claims == {
        "sub": "local-client",
        "token_use": "access",
        "scope": "api://weather/access",
        "auth_time": now,
        "iss": ISSUER,
        "exp": now + 300,
        "iat": now,
        "version": 2,
        "client_id": "local-client",
    }


def test_scopes_decide_what_the_id_token_tells(browser: Browser) -> None:
    """Without email and profile there is neither; without openid there is no ID token."""
    claims = decode(browser.tokens(scope="openid", nonce=None)["id_token"])[1]
    assert not {"email", "email_verified", "name", "given_name", "nonce"} & set(claims)
    assert "id_token" not in browser.tokens(scope="api://weather/access")


def test_tokens_are_signed_with_two_keys_of_the_jwks(browser: Browser) -> None:
    """An independent library verifies each with its own key and not with the other's."""
    tokens = browser.tokens()
    keys = {key["kid"]: key for key in _keys(browser)}
    assert len(keys) == 2
    access_kid = decode(tokens["access_token"])[0]["kid"]
    id_kid = decode(tokens["id_token"])[0]["kid"]
    assert access_kid != id_kid
    options = {"verify_exp": False, "verify_aud": False, "verify_at_hash": False}
    jwt.decode(tokens["access_token"], keys[access_kid], ["RS256"], options)
    jwt.decode(tokens["id_token"], keys[id_kid], ["RS256"], options)
    with pytest.raises(JWTError):
        jwt.decode(tokens["access_token"], keys[id_kid], ["RS256"], options)


def test_jwks_holds_public_keys_only(browser: Browser) -> None:
    """No private member leaves the process."""
    for key in _keys(browser):
        assert set(key) == {"kty", "n", "e", "kid", "use", "alg"}
        assert (key["kty"], key["use"], key["alg"]) == ("RSA", "sig", "RS256")


def test_discovery_has_cognitos_members(make: MakeBrowser) -> None:
    """No PKCE methods, no PAR, no iss parameter; pages, servers and keys on their own origins."""
    browser = make(backend_url="http://idp:5002")
    document = browser.get("/local_pool/.well-known/openid-configuration").get_json()
    assert document == {
        "authorization_endpoint": f"{ORIGIN}/oauth2/authorize",
        "end_session_endpoint": f"{ORIGIN}/logout",
        "id_token_signing_alg_values_supported": ["RS256"],
        "issuer": ISSUER,
        "jwks_uri": f"{ISSUER}/.well-known/jwks.json",
        "response_types_supported": ["code"],
        "revocation_endpoint": "http://idp:5002/oauth2/revoke",
        "scopes_supported": ["openid", "email", "phone", "profile"],
        "subject_types_supported": ["public"],
        "token_endpoint": "http://idp:5002/oauth2/token",
        "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
        "userinfo_endpoint": "http://idp:5002/oauth2/userInfo",
    }


@pytest.mark.parametrize("issuer", ["http://localhost:5002", "http://localhost:5002/", ISSUER + "/"])
def test_issuer_with_a_final_slash_is_not_doubled(make: MakeBrowser, issuer: str) -> None:
    """The issuer stays as it was set, and its documents are where clients look for them."""
    browser = make(issuer=issuer)
    path = issuer.removeprefix("http://localhost:5002").rstrip("/")
    document = browser.get(f"{path}/.well-known/openid-configuration").get_json()
    assert document["issuer"] == issuer
    assert document["jwks_uri"] == issuer.rstrip("/") + "/.well-known/jwks.json"
    assert decode(browser.tokens()["access_token"])[1]["iss"] == issuer


def test_user_info(browser: Browser) -> None:
    """Cognito's members; its email_verified is a string."""
    response = browser.user_info(browser.tokens()["access_token"])
    assert response.get_json() == {
        "sub": USERS[ALICE].sub,
        "email": ALICE,
        "email_verified": "true",
        "name": "Alice Reader",
        "given_name": "Alice",
        "username": USERS[ALICE].sub,
    }


def test_user_info_needs_the_openid_scope(browser: Browser) -> None:
    """A token without it is told so; so is a client's own."""
    for token in (
        browser.tokens(scope="email")["access_token"],
        browser.token(grant_type="client_credentials").get_json()["access_token"],
    ):
        response = browser.user_info(token)
        assert response.status_code == 403
        assert 'error="insufficient_scope"' in response.headers["WWW-Authenticate"]


def test_user_info_without_credentials(browser: Browser) -> None:
    """RFC 6750 section 3.1: a challenge without an error code."""
    response = browser.get("/oauth2/userInfo")
    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"] == "Bearer"


def test_user_info_refuses_other_tokens(browser: Browser, clock: Clock) -> None:
    """ID tokens, refresh tokens, junk and expired tokens are all invalid_token."""
    tokens = browser.tokens()
    hostile = [
        tokens["id_token"],
        tokens["refresh_token"],
        tokens["access_token"][:-6] + "AAAAAA",
        "eyJhbGciOiJub25lIn0.eyJzdWIiOiJ4In0.",
        "a.b.c",
        "",
        "x" * 9000,
        "\xe9",
    ]
    for token in hostile:
        response = browser.user_info(token)
        assert response.status_code == 401
        assert 'error="invalid_token"' in response.headers["WWW-Authenticate"]
    clock.forward(300)
    assert browser.user_info(tokens["access_token"]).status_code == 401
