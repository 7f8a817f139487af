"""Refresh, revocation and the sign-out address."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from bff.provider.client import Provider
from bff.provider.renewal import (
    GrantEnded,
    Refreshed,
    RefreshFailed,
    RefreshResult,
    Unrenewable,
    Unverified,
)
from bff.tokens import TokenSet
from tests.support.client import begin, client_of, query_of, sign_in, token_set
from tests.support.provider import (
    ABSENT,
    CLIENT_ID,
    CLIENT_SECRET,
    HTML,
    SUBJECT,
    Grant,
    Reply,
    ScriptedProvider,
    rsa_key,
    scripted_provider,
)
from tests.support.stopwatch import Stopwatch


@pytest.fixture
def scripted() -> Iterator[ScriptedProvider]:
    with scripted_provider() as provider:
        provider.grants["refresh-old"] = Grant(None, "", "")
        yield provider


@pytest.fixture
def provider(scripted: ScriptedProvider) -> Provider:
    return client_of(scripted)


def refresh(provider: Provider, **changes: object) -> RefreshResult:
    """Refresh as the user who signed in."""
    return provider.refresh(
        token_set(**changes), lambda issuer, sub: (issuer, sub) == (provider._settings.oidc_issuer, SUBJECT)
    )


def refreshed(result: RefreshResult) -> TokenSet:
    assert isinstance(result, Refreshed), result
    return result.tokens


def test_refresh(scripted: ScriptedProvider) -> None:
    """The new tokens are aged from before they were asked for; the request has no scope and no redirect."""
    now = time.time()
    tokens = refreshed(refresh(client_of(scripted, lambda: now)))
    seen = scripted.last("token")
    assert seen.form == {"grant_type": "refresh_token", "refresh_token": "refresh-old"}
    assert seen.basic == (CLIENT_ID, CLIENT_SECRET)
    assert {tokens.access_token, tokens.refresh_token} < scripted.secrets
    assert (tokens.obtained_at, tokens.expires_at, tokens.id_token) == (now, now + 300, None)


def test_refresh_with_post_authentication(scripted: ScriptedProvider) -> None:
    """client_secret_post holds for the refresh too."""
    refreshed(refresh(client_of(scripted, oidc_client_auth="client_secret_post")))
    seen = scripted.last("token")
    assert (seen.form["client_id"], seen.form["client_secret"], seen.basic) == (
        CLIENT_ID,
        CLIENT_SECRET,
        None,
    )


@pytest.mark.parametrize("value", [ABSENT, None, "", 7])
def test_refresh_token_that_is_not_rotated(
    scripted: ScriptedProvider, provider: Provider, value: object
) -> None:
    """Where no new refresh token comes, the old one is kept, and so is its end."""
    scripted.token_members["refresh_token"] = value
    tokens = refreshed(refresh(provider, refresh_expires_at=7e9))
    assert (tokens.refresh_token, tokens.refresh_expires_at) == ("refresh-old", 7e9)


def test_refresh_token_with_a_new_end(scripted: ScriptedProvider, provider: Provider) -> None:
    """An end that the provider tells anew replaces the one that is known."""
    scripted.token_members["refresh_expires_in"] = 600
    tokens = refreshed(refresh(provider, refresh_expires_at=7e9))
    assert tokens.refresh_expires_at == tokens.obtained_at + 600


@pytest.mark.parametrize(("value", "scope"), [(ABSENT, "openid"), ("openid email", "openid email")])
def test_scope_after_a_refresh(
    scripted: ScriptedProvider, provider: Provider, value: object, scope: str
) -> None:
    """A scope that is not told is the one as before (RFC 6749 §5.1)."""
    scripted.token_members["scope"] = value
    assert refreshed(refresh(provider)).scope == scope


@pytest.mark.parametrize("value", ["soon", [300], {}, float("nan"), 10**400])
def test_odd_lifetime_loses_no_token(scripted: ScriptedProvider, provider: Provider, value: object) -> None:
    """A lifetime that cannot be read is no failed refresh: the old refresh token is used up by then."""
    scripted.token_members["expires_in"] = value
    assert refreshed(refresh(provider)).expires_at is None


ENDED: list[Reply] = [
    Reply(400, {"error": "invalid_grant"}),
    Reply(401, {"error": "invalid_grant", "error_description": "expired"}),
    Reply(400, b'{"error": "invalid_grant"}', {"Content-Type": "text/plain"}),
]
KEPT: list[Reply] = [
    Reply(401, {"error": "invalid_client"}),
    Reply(400, {"error": "invalid_client"}),
    Reply(400, {"error": "unauthorized_client"}),
    Reply(400, {"error": "invalid_request"}),
    Reply(400, {"error": "temporarily_unavailable"}),
    Reply(400, {"error": "Invalid_Grant"}),
    Reply(400, {"error": ["invalid_grant"]}),
    Reply(400, {"error": "invalid grant"}),
    Reply(400, {"error_description": "invalid_grant"}),
    Reply(400, b"invalid_grant"),
    Reply(400, HTML.body),
    Reply(429, {"message": "slow down"}),
    Reply(500, {"error": "invalid_grant"}),
    Reply(503, {"error": "invalid_grant"}),
    Reply(302, b"", {"Location": "/elsewhere"}),
    HTML,
    Reply(200, b"", {"Content-Type": "text/plain"}),
    Reply(drop=True),
    Reply(delay=8),
    Reply(500, b"["),
    Reply(400, b"[" * 100_000),
    Reply(200, b"{}", {"Content-Type": "text/html"}),
    Reply(200, {}),
    Reply(200, b"[]"),
    Reply(200, {"status": "maintenance"}),
    Reply(200, {"access_token": None, "token_type": "Bearer"}),
    Reply(200, {"error": "invalid_grant"}),
    Reply(302, {"error": "invalid_grant"}, {"Location": "/elsewhere"}),
    Reply(400, {"error": None}),
]
ANSWERED: list[Reply] = [
    Reply(200, b""),
    Reply(200, b'{"access_token": "x", "token_type": "bea'),
    Reply(200, b"[" * 100_000),
    Reply(200, b"{", {"Content-Type": "Application/JSON;charset=UTF-8"}),
    Reply(200, {"access_token": "x"}),
    Reply(200, {"access_token": "x", "token_type": "mac"}),
    Reply(200, {"access_token": "x", "token_type": ["Bearer"]}),
    Reply(200, {"access_token": "", "token_type": "Bearer"}),
    Reply(200, {"access_token": "x\ny", "token_type": "Bearer"}),
    Reply(200, {"access_token": "x", "token_type": "Bearer", "error": "server_error"}),
    Reply(200, {"access_token": "x", "token_type": "Bearer", "error": "invalid_grant"}),
]


def _reply(reply: Reply) -> str:
    return f"{reply.status} {reply.raw()[:32]!r}"


@pytest.mark.parametrize("reply", ENDED, ids=_reply)
def test_only_invalid_grant_ends(scripted: ScriptedProvider, provider: Provider, reply: Reply) -> None:
    """A parsed `invalid_grant` in a client error says that the grant is over."""
    scripted.replies["token"] = reply
    assert isinstance(refresh(provider), GrantEnded)


@pytest.mark.parametrize("reply", KEPT, ids=_reply)
def test_anything_else_keeps_the_session(
    scripted: ScriptedProvider, provider: Provider, reply: Reply
) -> None:
    """Wrong client, outage, garbage, redirect, hang, a maintenance page in JSON, `invalid_grant` that is no
    client error: the refresh has failed, and was tried once."""
    scripted.replies["token"] = reply
    result = refresh(provider)
    assert isinstance(result, RefreshFailed)
    assert result.reason
    assert scripted.count("token") == 1
    assert scripted.count("/elsewhere") == 0


@pytest.mark.parametrize("reply", ANSWERED, ids=_reply)
def test_unusable_grant_is_no_failure(scripted: ScriptedProvider, provider: Provider, reply: Reply) -> None:
    """A token endpoint that gave a token, or began to, has used the refresh token up: no second redeem."""
    scripted.replies["token"] = reply
    result = refresh(provider)
    assert isinstance(result, Unrenewable)
    assert result.reason
    assert scripted.count("token") == 1


BROKEN: list[Reply] = [
    Reply(200, {"access_token": "x"}, {"Content-Length": "900"}),
    Reply(200, b"{" + b" " * 100, drip=0.05),
    Reply(200, b"{" + b" " * 1_100_000 + b"}"),
]


@pytest.mark.parametrize("reply", BROKEN, ids=["cut off", "drips", "too large"])
def test_grant_that_breaks_off(scripted: ScriptedProvider, provider: Provider, reply: Reply) -> None:
    """The head said yes: what was sent is used up, even if the rest never came."""
    scripted.replies["token"] = reply
    assert isinstance(refresh(provider), Unrenewable)
    assert scripted.count("token") == 1


@pytest.mark.parametrize("reply", BROKEN, ids=["cut off", "drips", "too large"])
def test_failure_that_breaks_off(scripted: ScriptedProvider, provider: Provider, reply: Reply) -> None:
    """A head that says no, or comes from no token endpoint, is a failure like others."""
    for status, kind in ((503, "application/json"), (200, "text/html")):
        headers = {"Content-Type": kind, **reply.headers}
        scripted.replies["token"] = Reply(status, reply.body, headers, drip=reply.drip)
        assert isinstance(refresh(provider), RefreshFailed)


@pytest.mark.parametrize("value", [None, ABSENT])
def test_an_error_that_is_none(scripted: ScriptedProvider, provider: Provider, value: object) -> None:
    """`"error": null` beside tokens says that there was none."""
    scripted.token_members["error"] = value
    refreshed(refresh(provider))


def test_before_the_request(scripted: ScriptedProvider, provider: Provider) -> None:
    """The caller is asked last, when discovery and keys are there; what it raises stops the redeem."""
    seen = []

    def stop() -> None:
        seen.append((scripted.count("discovery"), scripted.count("jwks"), scripted.count("token")))
        raise KeyError

    with pytest.raises(KeyError):
        provider.refresh(token_set(), lambda _issuer, _sub: True, stop)
    assert seen == [(1, 1, 0)]
    assert scripted.count("token") == 0


@pytest.mark.parametrize("endpoint", ["discovery", "jwks"])
def test_nothing_is_redeemed_blindly(scripted: ScriptedProvider, provider: Provider, endpoint: str) -> None:
    """Where the ID token that comes back could not be judged, the refresh token is not spent."""
    scripted.replies[endpoint] = Reply(503)
    assert isinstance(refresh(provider), RefreshFailed)
    assert scripted.count("token") == 0


@pytest.mark.parametrize(
    "claims",
    [
        {"sub": "somebody-else"},
        {"sub": ABSENT},
        {"iss": "https://evil.example"},
        {"aud": "other"},
        {"aud": [CLIENT_ID, "other"]},
        {"exp": 1000},
        {"iat": ABSENT},
        {"token_use": "access"},
        {"at_hash": "another-access-token"},
        {"name": 10**30},
    ],
    ids=str,
)
def test_refreshed_id_token_of_another(
    scripted: ScriptedProvider, provider: Provider, claims: dict[str, Any]
) -> None:
    """refresh-invalid-issuer, -sub: what comes with another user's ID token is not used."""
    scripted.claims |= claims
    assert isinstance(refresh(provider), Unrenewable)


def test_refreshed_id_token_of_a_stranger(scripted: ScriptedProvider, provider: Provider) -> None:
    """A refreshed ID token with a bad signature is believed no more than one at sign-in: nothing that came
    with it is used. (The keys may be those of yesterday: nothing is lost, either.)"""
    provider.prepare()
    scripted.keys = [rsa_key("stranger")]
    scripted.header["kid"] = "rsa-1"
    result = refresh(provider)
    assert isinstance(result, Unverified)
    assert result.tokens.access_token == "access-old"


@pytest.mark.parametrize("rotated", [True, False])
def test_refreshed_id_token_that_cannot_be_judged(
    scripted: ScriptedProvider, provider: Provider, *, rotated: bool
) -> None:
    """A new signing key, and the JWKS is away or not new yet: what came is not used, and nothing is lost."""
    provider.prepare()
    scripted.keys = [rsa_key("rsa-2")]
    scripted.replies["jwks"] = Reply(500)
    scripted.token_members["refresh_expires_in"] = 600
    if not rotated:
        scripted.token_members["refresh_token"] = ABSENT
    old = token_set()
    result = refresh(provider)
    assert isinstance(result, Unverified), result
    kept = result.tokens
    assert kept.access_token == "access-old"
    assert kept.expires_at == pytest.approx(old.expires_at, abs=5)
    assert (kept.refresh_token == "refresh-old") is not rotated
    assert kept.refresh_token in {*scripted.secrets, "refresh-old"}
    assert kept.refresh_expires_at == pytest.approx(time.time() + 600, abs=5)


def test_what_is_refused_is_told(scripted: ScriptedProvider, provider: Provider) -> None:
    """Tokens of somebody else come back to be revoked."""
    scripted.claims["sub"] = "somebody-else"
    result = refresh(provider)
    assert isinstance(result, Unrenewable)
    assert result.tokens is not None
    assert {result.tokens.access_token, result.tokens.refresh_token} < scripted.secrets


@pytest.mark.parametrize("value", [7, ["x"], {}, ""])
def test_refreshed_id_token_that_is_none(
    scripted: ScriptedProvider, provider: Provider, value: object
) -> None:
    """What stands in an ID token's place and is no text is an invalid one, not a missing one."""
    scripted.token_members["id_token"] = value
    assert isinstance(refresh(provider), Unrenewable)


@pytest.mark.parametrize("value", [ABSENT, None])
def test_no_refreshed_id_token(scripted: ScriptedProvider, provider: Provider, value: object) -> None:
    """A refresh need not bring an ID token (Core §12.2)."""
    scripted.token_members["id_token"] = value
    refreshed(refresh(provider))


def test_refresh_while_discovery_is_away(scripted: ScriptedProvider) -> None:
    """An outage of discovery and JWKS alone stops no refresh once they are known."""
    now = [time.time()]
    provider = client_of(scripted, lambda: now[0])
    scripted.clock = lambda: now[0]
    provider.prepare()
    now[0] += 7200
    scripted.replies["discovery"] = scripted.replies["jwks"] = Reply(500)
    refreshed(refresh(provider))


# -- revocation -------------------------------------------------------------------------------------


def test_revoke(scripted: ScriptedProvider, provider: Provider) -> None:
    """The refresh token is revoked with the client's authentication (RFC 7009 §2.1)."""
    tokens = sign_in(scripted, provider).tokens
    provider.revoke(tokens)
    seen = scripted.last("revoke")
    assert seen.form == {"token": tokens.refresh_token, "token_type_hint": "refresh_token"}
    assert seen.basic == (CLIENT_ID, CLIENT_SECRET)


@pytest.mark.parametrize(
    "reply",
    [Reply(400, {"error": "unsupported_token_type"}), Reply(503), HTML, Reply(drop=True), Reply(delay=8)],
)
def test_revoke_is_best_effort(scripted: ScriptedProvider, provider: Provider, reply: Reply) -> None:
    """Whatever the revocation endpoint does, the sign-out goes on, within the deadline."""
    provider.prepare()
    scripted.replies["revoke"] = reply
    started = Stopwatch()
    provider.revoke(token_set())
    assert scripted.count("revoke") == 1
    assert started.own < 3


def test_revoke_where_there_is_nothing_to_do(scripted: ScriptedProvider) -> None:
    """Without an endpoint, without a refresh token or before discovery nobody is called."""
    provider = client_of(scripted)
    provider.revoke(token_set())
    provider.prepare()
    provider.revoke(token_set(refresh_token=None))
    scripted.discovery["revocation_endpoint"] = ABSENT
    without = client_of(scripted)
    without.prepare()
    without.revoke(token_set())
    assert scripted.count("revoke") == 0


# -- sign-out at the provider -----------------------------------------------------------------------


def test_sign_out_of_the_standard(scripted: ScriptedProvider, provider: Provider) -> None:
    """RP-Initiated Logout 1.0: client, hint, state and the registered address; never the ID token."""
    provider.prepare()
    url = provider.sign_out_url("alice@example.com")
    query = query_of(url)
    assert url.startswith(scripted.base + "/logout?")
    assert len(query.pop("state")) >= 16
    assert query == {
        "client_id": CLIENT_ID,
        "post_logout_redirect_uri": "http://localhost:5003/",
        "logout_hint": "alice@example.com",
    }
    assert provider.sign_out_url("x") != provider.sign_out_url("x"), "each has a state of its own"
    assert "logout_hint" not in query_of(provider.sign_out_url(None))


def test_sign_out_of_cognito(scripted: ScriptedProvider) -> None:
    """Cognito takes `client_id` and `logout_uri`, and nothing else."""
    provider = client_of(scripted, oidc_profile="cognito")
    provider.prepare()
    query = query_of(provider.sign_out_url("alice@example.com"))
    assert query == {"client_id": CLIENT_ID, "logout_uri": "http://localhost:5003/"}


@pytest.mark.parametrize(
    ("profile", "issuer", "member"),
    [
        ("auto", "https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_x", "logout_uri"),
        ("auto", "https://cognito-idp.cn-north-1.amazonaws.com.cn/x", "logout_uri"),
        ("auto", "https://issuer-cognito-idp.eu-west-1.amazonaws.com/eu-west-1_x", "logout_uri"),
        ("auto", "https://cognito-idp.eusc-de-east-1.amazonaws.eu/eusc-de-east-1_x", "logout_uri"),
        ("auto", "https://x-cognito-idp.eu-west-1.amazonaws.com/eu-west-1_x", "post_logout_redirect_uri"),
        ("generic", "https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_x", "post_logout_redirect_uri"),
        ("auto", "https://cognito-idp.eu-west-1.amazonaws.com.evil.example/x", "post_logout_redirect_uri"),
        ("auto", "https://idp.example/cognito-idp.eu-west-1.amazonaws.com", "post_logout_redirect_uri"),
        ("cognito", "https://idp.example", "logout_uri"),
    ],
)
def test_profile(scripted: ScriptedProvider, profile: str, issuer: str, member: str) -> None:
    """`auto` goes by the issuer's host, and a setting that names a profile wins."""
    provider = client_of(scripted, oidc_profile=profile)
    provider.prepare()
    provider._settings = provider._settings.model_copy(update={"oidc_issuer": issuer})
    assert member in query_of(provider.sign_out_url(None))


def test_sign_out_endpoint_with_a_query(scripted: ScriptedProvider, provider: Provider) -> None:
    """A query of the sign-out endpoint is kept."""
    scripted.discovery["end_session_endpoint"] = scripted.base + "/logout?tenant=7"
    provider.prepare()
    assert query_of(provider.sign_out_url(None))["tenant"] == "7"


def test_no_sign_out_at_the_provider(scripted: ScriptedProvider, provider: Provider) -> None:
    """Without a sign-out endpoint, or before discovery, the way leads to the start page."""
    assert provider.sign_out_url("x") == "/"
    scripted.discovery["end_session_endpoint"] = ABSENT
    begin(provider)
    assert provider.sign_out_url("x") == "/"
