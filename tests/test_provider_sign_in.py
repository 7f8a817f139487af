"""The authorization request, its response, the redeem and UserInfo."""

from __future__ import annotations

import base64
import hashlib
import logging
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest

from bff.errors import (
    AccessDenied,
    ClientRefused,
    CodeRefused,
    IDTokenInvalid,
    ProviderRefused,
    ProviderUnavailable,
    PublicError,
    ResponseInvalid,
)
from bff.provider.client import Provider
from tests.support.client import begin, client_of, query_of, sign_in
from tests.support.provider import (
    ABSENT,
    CLIENT_ID,
    CLIENT_SECRET,
    HTML,
    SUBJECT,
    Reply,
    ScriptedProvider,
    scripted_provider,
)


def _short(value: object) -> str:
    return str(value)[:12]


@pytest.fixture
def scripted() -> Iterator[ScriptedProvider]:
    with scripted_provider() as provider:
        yield provider


@pytest.fixture
def provider(scripted: ScriptedProvider) -> Provider:
    return client_of(scripted)


# -- the request ------------------------------------------------------------------------------------


def test_authorization_request(scripted: ScriptedProvider, provider: Provider) -> None:
    """It has exactly the members of a code request with PKCE, and the one literal redirect URI."""
    url, attempt = begin(provider)
    address, _, _ = url.partition("?")
    digest = hashlib.sha256(attempt.code_verifier.encode()).digest()
    assert address == scripted.base + "/authorize"
    assert query_of(url) == {
        "response_type": "code",
        "client_id": CLIENT_ID,
        "redirect_uri": "http://localhost:5003/bff/callback",
        "scope": "openid email profile",
        "state": attempt.state,
        "nonce": attempt.nonce,
        "code_challenge": base64.urlsafe_b64encode(digest).rstrip(b"=").decode(),
        "code_challenge_method": "S256",
    }


def test_secrets_of_the_attempt(provider: Provider) -> None:
    """State, nonce and verifier are long, fresh and all different, and the verifier is not in the URL."""
    requests = [begin(provider) for _ in range(50)]
    values = [v for _, a in requests for v in (a.state, a.nonce, a.code_verifier)]
    assert len(set(values)) == 150
    assert min(map(len, values)) >= 43
    assert all(re.fullmatch(r"[A-Za-z0-9._~-]{43,128}", a.code_verifier) for _, a in requests)
    assert not any(a.code_verifier in url for url, a in requests)
    assert all(repr(a) == "<Attempt>" for _, a in requests)


def test_parameters_pass_through(provider: Provider) -> None:
    """What the sign-in page asks for goes along, and nothing of it can overwrite what is ours."""
    asked = {"prompt": "login", "login_hint": "a&client_id=evil", "max_age": "0", "ui_locales": "de en"}
    query = query_of(begin(provider, **asked)[0])
    assert query | asked == query
    assert query["client_id"] == CLIENT_ID


def test_endpoint_with_a_query(scripted: ScriptedProvider, provider: Provider) -> None:
    """A query of the authorization endpoint is kept (RFC 6749 §3.1)."""
    scripted.discovery["authorization_endpoint"] = scripted.base + "/authorize?tenant=7"
    query = query_of(begin(provider)[0])
    assert (query["tenant"], query["client_id"]) == ("7", CLIENT_ID)


# -- the response -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("advertised", "response", "error"),
    [
        (False, {"iss": "https://evil.example"}, ResponseInvalid),
        (False, {"iss": ""}, ResponseInvalid),
        (False, {"iss": "SELF/"}, ResponseInvalid),
        (True, {"iss": ABSENT}, ResponseInvalid),
        (True, {"iss": "https://evil.example", "error": "access_denied"}, ResponseInvalid),
        (True, {"error": "access_denied"}, ResponseInvalid),
        (False, {"code": ABSENT}, ResponseInvalid),
        (False, {"code": ""}, ResponseInvalid),
        (False, {"error": "access_denied"}, AccessDenied),
        (False, {"error": "server_error"}, ProviderRefused),
        (False, {"error": ""}, ProviderRefused),
        (True, {"iss": "SELF", "error": "access_denied"}, AccessDenied),
    ],
)
def test_response_that_is_refused(
    scripted: ScriptedProvider,
    provider: Provider,
    advertised: bool,
    response: dict[str, Any],
    error: type[PublicError],
) -> None:
    """Another issuer, a missing one where it is advertised (RFC 9207), errors, and neither code nor error."""
    scripted.discovery["authorization_response_iss_parameter_supported"] = advertised
    changes = {
        k: v.replace("SELF", scripted.issuer) if isinstance(v, str) else v for k, v in response.items()
    }
    answer = scripted.authorize(begin(provider)[0], **changes)
    with pytest.raises(error) as caught:
        provider.check_response(answer)
    assert type(caught.value) is error


@pytest.mark.parametrize("advertised", [False, True])
def test_response_with_the_right_issuer(
    scripted: ScriptedProvider, provider: Provider, advertised: bool
) -> None:
    """The issuer that we know is accepted, advertised or not."""
    scripted.discovery["authorization_response_iss_parameter_supported"] = advertised
    answer = scripted.authorize(begin(provider)[0], iss=scripted.issuer)
    assert provider.check_response(answer) == answer["code"]


@pytest.mark.parametrize("error", ["<script>alert(1)</script>", "a" * 5000, "\r\nSet-Cookie: a=b", "é\x00"])
def test_error_code_is_not_quoted(scripted: ScriptedProvider, provider: Provider, error: str) -> None:
    """What an error says goes neither to the person nor, raw, to the log."""
    with pytest.raises(ProviderRefused) as caught:
        provider.check_response(scripted.authorize(begin(provider)[0], error=error))
    assert error not in caught.value.detail
    assert error not in caught.value.reason
    assert re.fullmatch(r"authorization endpoint: \w{1,40}", caught.value.reason)


# -- the redeem -------------------------------------------------------------------------------------


def test_sign_in(scripted: ScriptedProvider) -> None:
    """The code brings claims and tokens, aged from before they were asked for."""
    now = time.time()
    scripted.clock = lambda: now
    signed_in = sign_in(scripted, client_of(scripted, lambda: now))
    tokens = signed_in.tokens
    assert (signed_in.identity.subject, signed_in.identity.claims["name"]) == (SUBJECT, "Alice Example")
    assert {tokens.access_token, tokens.refresh_token} < scripted.secrets
    assert (tokens.obtained_at, tokens.expires_at, tokens.id_token) == (now, now + 300, None)
    assert signed_in.identity.authenticated_at(now, asked=False) == scripted.id_claims(None, "")["auth_time"]


def test_basic_authentication(scripted: ScriptedProvider) -> None:
    """client_secret_basic form-encodes id and secret, and puts neither into the body (RFC 6749 §2.3.1)."""
    sign_in(scripted, client_of(scripted))
    seen = scripted.last("token")
    assert seen.basic == (CLIENT_ID, CLIENT_SECRET)
    assert base64.b64decode(seen.headers["authorization"].split()[1]) == (
        b"web-client:s3cret+%26+with+%2B+signs"
    )
    assert "client_secret" not in seen.form


def test_post_authentication(scripted: ScriptedProvider) -> None:
    """client_secret_post puts both into the body, and sends no Authorization header."""
    sign_in(scripted, client_of(scripted, oidc_client_auth="client_secret_post"))
    seen = scripted.last("token")
    assert (seen.form["client_id"], seen.form["client_secret"]) == (CLIENT_ID, CLIENT_SECRET)
    assert "authorization" not in seen.headers


def test_token_request(scripted: ScriptedProvider, provider: Provider) -> None:
    """The redeem sends code, verifier and the same redirect URI in a form body, nothing in the address."""
    url, attempt = begin(provider)
    provider.redeem(scripted.authorize(url)["code"], attempt)
    seen = scripted.last("token")
    assert seen.form["grant_type"] == "authorization_code"
    assert seen.form["code_verifier"] == attempt.code_verifier
    assert seen.form["redirect_uri"] == query_of(url)["redirect_uri"]
    assert (seen.method, seen.query) == ("POST", "")
    assert seen.headers["content-type"].startswith("application/x-www-form-urlencoded")
    assert seen.headers["accept"] == "application/json"


def test_verifier_of_another_attempt(scripted: ScriptedProvider, provider: Provider) -> None:
    """A code is redeemed with its own attempt's verifier, so that an injected one is refused."""
    url, _ = begin(provider)
    _, other = begin(provider)
    with pytest.raises(CodeRefused):
        provider.redeem(scripted.authorize(url)["code"], other)


def test_nonce_of_another_attempt(scripted: ScriptedProvider, provider: Provider) -> None:
    """An ID token that was made for another attempt is refused."""
    url, attempt = begin(provider)
    code = scripted.authorize(url)["code"]
    scripted.grants[code].nonce = begin(provider)[1].nonce
    with pytest.raises(IDTokenInvalid, match="nonce"):
        provider.redeem(code, attempt)


TOKEN_FAILURES: list[tuple[Reply, type[PublicError]]] = [
    (Reply(400, {"error": "invalid_grant"}), CodeRefused),
    (Reply(400, {"error": "invalid_request", "error_description": "<b>"}), CodeRefused),
    (Reply(401, {"error": "invalid_client"}), ClientRefused),
    (Reply(400, {"error": "invalid_client"}), ClientRefused),
    (Reply(400, {"error": "unauthorized_client"}), ClientRefused),
    (Reply(200, {"error": "invalid_grant", "access_token": "x"}), ResponseInvalid),
    (Reply(200, {"error": "invalid_grant"}), ResponseInvalid),
    (Reply(400, {"error": {"code": 7}}), CodeRefused),
    (Reply(400, {"error": None}), ProviderUnavailable),
    (Reply(400, {"error": ["invalid_grant"]}), CodeRefused),
    (Reply(400, {"error": "\ud800"}), CodeRefused),
    (Reply(400, {"message": "no"}), ProviderUnavailable),
    (Reply(201, {"access_token": "a", "token_type": "Bearer"}), ProviderUnavailable),
    (Reply(400, b"no"), ProviderUnavailable),
    (Reply(401, b""), ProviderUnavailable),
    (Reply(403, HTML.body), ProviderUnavailable),
    (Reply(429, {}), ProviderUnavailable),
    (Reply(500, {"error": "invalid_grant"}), ProviderUnavailable),
    (Reply(503, HTML.body), ProviderUnavailable),
    (Reply(302, b"", {"Location": "/elsewhere"}), ProviderUnavailable),
    (HTML, ProviderUnavailable),
    (Reply(200, b""), ResponseInvalid),
    (Reply(200, b"[]"), ResponseInvalid),
    (Reply(200, b'"token"'), ResponseInvalid),
    (Reply(200, b"null"), ResponseInvalid),
    (Reply(200, b"[" * 100_000), ResponseInvalid),
    (Reply(200, b"{" + b" " * 1_100_000 + b"}"), ProviderUnavailable),
    (Reply(drop=True), ProviderUnavailable),
    (Reply(delay=8), ProviderUnavailable),
    (Reply(200, {}), ResponseInvalid),
]


@pytest.mark.parametrize(
    ("reply", "error"), TOKEN_FAILURES, ids=[f"{r.status} {r.raw()[:24]!r}" for r, _ in TOKEN_FAILURES]
)
def test_token_endpoint_that_fails(
    scripted: ScriptedProvider, provider: Provider, reply: Reply, error: type[PublicError]
) -> None:
    """Each failure is told by its kind: a refused code, a refused client, an answer of no use, an outage."""
    url, attempt = begin(provider)
    code = scripted.authorize(url)["code"]
    scripted.replies["token"] = reply
    with pytest.raises(error) as caught:
        provider.redeem(code, attempt)
    assert type(caught.value) is error
    assert scripted.count("token") == 1, "a redeem is never sent twice"
    assert scripted.count("/elsewhere") == 0
    assert "<b>" not in caught.value.detail + caught.value.reason
    (caught.value.detail + caught.value.reason).encode()


@pytest.mark.parametrize(
    "members",
    [
        {"access_token": ABSENT},
        {"access_token": ""},
        {"access_token": 7},
        {"access_token": ["x"]},
        {"access_token": "line\r\nbreak"},
        {"access_token": "é"},
        {"token_type": ABSENT},
        {"token_type": "DPoP"},
        {"token_type": None},
        {"token_type": ["Bearer"]},
    ],
    ids=str,
)
def test_access_token_of_no_use(
    scripted: ScriptedProvider, provider: Provider, members: dict[str, Any]
) -> None:
    """A token that is missing, unfit for a header or no bearer token signs nobody in."""
    scripted.token_members |= members
    scripted.claims["at_hash"] = ABSENT
    with pytest.raises(ResponseInvalid):
        sign_in(scripted, provider)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (300, 300),
        ("300", 300),
        (300.5, 300.5),
        (0, 0),
        (-5, 0),
        (ABSENT, None),
        (None, None),
        ("soon", None),
        ("", None),
        (True, None),
        ([300], None),
        ({"s": 300}, None),
        (10**30, None),
        (float("inf"), None),
        (float("nan"), None),
        ("nan", None),
        ("1e400", None),
        ("9" * 5000, None),
    ],
    ids=_short,
)
def test_lifetime_of_the_access_token(
    scripted: ScriptedProvider, value: object, seconds: float | None
) -> None:
    """`expires_in` is read as providers write it; what is no number counts as not said."""
    now = time.time()
    scripted.token_members["expires_in"] = value
    tokens = sign_in(scripted, client_of(scripted, lambda: now)).tokens
    assert tokens.expires_at == (None if seconds is None else now + seconds)


@pytest.mark.parametrize("name", ["expires_at", "refresh_expires_in"])
@pytest.mark.parametrize("value", [[1], {}, "x", None, float("nan"), 10**400, -1, 0, True], ids=_short)
def test_odd_times_beside_it(
    scripted: ScriptedProvider, provider: Provider, name: str, value: object
) -> None:
    """Members about time that are not the standard's, of any type, do no harm."""
    scripted.token_members[name] = value
    tokens = sign_in(scripted, provider).tokens
    assert (tokens.expires_at, tokens.refresh_expires_at) == (tokens.obtained_at + 300, None)


def test_lifetime_of_the_refresh_token(scripted: ScriptedProvider, provider: Provider) -> None:
    """Where the provider says how long the refresh token lives, it is remembered."""
    scripted.token_members["refresh_expires_in"] = 1800
    tokens = sign_in(scripted, provider).tokens
    assert tokens.refresh_expires_at == tokens.obtained_at + 1800


@pytest.mark.parametrize("value", [ABSENT, None, "", 7, ["x"], "\ud800", "a\x00b"])
def test_refresh_token_of_no_use(scripted: ScriptedProvider, provider: Provider, value: object) -> None:
    """Without a refresh token that can be sent and stored, the session simply has none."""
    scripted.token_members["refresh_token"] = value
    assert sign_in(scripted, provider).tokens.refresh_token is None


@pytest.mark.parametrize("value", [ABSENT, None, 7, ["openid"], "\ud800"])
def test_scope_of_no_use(scripted: ScriptedProvider, provider: Provider, value: object) -> None:
    """A scope that is no text counts as none."""
    scripted.token_members["scope"] = value
    assert sign_in(scripted, provider).tokens.scope == ""


# -- UserInfo ---------------------------------------------------------------------------------------


def test_userinfo_is_not_asked_in_vain(scripted: ScriptedProvider, provider: Provider) -> None:
    """Where the ID token has what the scopes promise, UserInfo is not called."""
    sign_in(scripted, provider)
    assert scripted.count("userinfo") == 0


@pytest.mark.parametrize("lacking", [{"email": ABSENT}, {"name": ABSENT}])
def test_userinfo_completes(
    scripted: ScriptedProvider, provider: Provider, lacking: dict[str, object]
) -> None:
    """What a scope promises and the ID token lacks comes from UserInfo; the ID token's own claims win."""
    scripted.claims |= lacking
    scripted.userinfo = {"email": "info@example.com", "name": "Info", "iss": "x", "locale": "de"}
    claims = sign_in(scripted, provider).identity.claims
    seen = scripted.last("userinfo")
    assert seen.headers["authorization"].removeprefix("Bearer ") in scripted.secrets
    assert (claims["locale"], claims["iss"]) == ("de", scripted.issuer)
    assert claims["email"] == ("info@example.com" if "email" in lacking else "alice@example.com")


USERINFO_FAILURES = [
    Reply(200, {"sub": "somebody-else", "email": "evil@example.com"}),
    Reply(200, {"email": "evil@example.com"}),
    Reply(200, {"sub": [SUBJECT], "email": "evil@example.com"}),
    Reply(200, [{"sub": SUBJECT}]),
    Reply(200, b"eyJhbGciOiJSUzI1NiJ9.e30.x", {"Content-Type": "application/jwt"}),
    Reply(200, b'{"sub": "%b", "email": "\\ud800"}' % SUBJECT.encode()),
    Reply(200, b'{"sub": "%b", "age": %b}' % (SUBJECT.encode(), b"9" * 30)),
    Reply(200, b"[" * 100_000),
    HTML,
    Reply(401, {"error": "invalid_token"}),
    Reply(500),
    Reply(302, b"", {"Location": "/elsewhere"}),
    Reply(drop=True),
    Reply(delay=8),
    Reply(200, b"{" + b" " * 1_100_000 + b"}"),
]


@pytest.mark.parametrize("reply", USERINFO_FAILURES, ids=lambda r: f"{r.status} {r.raw()[:24]!r}")
def test_userinfo_that_fails(scripted: ScriptedProvider, provider: Provider, reply: Reply) -> None:
    """UserInfo about another `sub` is discarded (Core §5.3.2), and its trouble stops no sign-in."""
    scripted.claims["email"] = ABSENT
    scripted.replies["userinfo"] = reply
    identity = sign_in(scripted, provider).identity
    assert "email" not in identity.claims
    assert identity.subject == SUBJECT
    assert scripted.count("/elsewhere") == 0


@pytest.mark.parametrize(
    ("name", "value"),
    [("auth_time", "yesterday"), ("sid", "another-session"), ("nonce", "n"), ("aud", "other"), ("exp", "x")],
)
def test_userinfo_says_nothing_about_the_sign_in(
    scripted: ScriptedProvider, provider: Provider, name: str, value: str
) -> None:
    """UserInfo is about the person: a claim of it about the sign-in itself does not count."""
    scripted.claims |= {"email": ABSENT, "auth_time": ABSENT}
    scripted.userinfo = {"email": "a@example.com", name: value}
    identity = sign_in(scripted, provider).identity
    assert identity.claims["email"] == "a@example.com"
    assert identity.claims.get(name) != value
    assert identity.authenticated_at(time.time(), asked=True) == 0


def test_userinfo_that_nobody_promised(scripted: ScriptedProvider) -> None:
    """UserInfo is not called for scopes that were not asked for, or where there is none."""
    scripted.claims |= {"email": ABSENT, "name": ABSENT}
    sign_in(scripted, client_of(scripted, oidc_scope="openid"))
    scripted.discovery["userinfo_endpoint"] = ABSENT
    sign_in(scripted, client_of(scripted))
    assert scripted.count("userinfo") == 0


def test_nothing_is_logged(
    scripted: ScriptedProvider, provider: Provider, caplog: pytest.LogCaptureFixture
) -> None:
    """At DEBUG, no logger of ours or of a library writes a token, code, verifier or secret."""
    scripted.claims["email"] = ABSENT
    with caplog.at_level(logging.DEBUG):
        for name in list(logging.root.manager.loggerDict):
            caplog.set_level(logging.DEBUG, name)
        signed_in = sign_in(scripted, provider)
        provider.refresh(signed_in.tokens, lambda *_: True)
        provider.revoke(signed_in.tokens)
        scripted.replies["token"] = Reply(400, {"error": "invalid_grant"})
        with pytest.raises(CodeRefused):
            sign_in(scripted, provider)
    written = caplog.text + "".join(repr(record.__dict__) for record in caplog.records)
    assert "urllib3" in written, "the libraries were heard"
    assert len(scripted.secrets) > 8
    assert [secret for secret in scripted.secrets if secret in written] == []
