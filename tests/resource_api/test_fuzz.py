"""Whatever comes in, nobody unknown gets in and nothing breaks; and a second opinion agrees."""

from __future__ import annotations

import json
import string
from typing import Any

import pytest
from flask.testing import FlaskClient
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import RSAKey

from bff.resource_api import JWTValidator, TokenRefused
from tests.forge import ABSENT, Forge, b64, changed, compact, signer
from tests.resource_api.conftest import Clock, bearer
from tests.resource_api.issuer import LocalIssuer

BASE64URL = string.ascii_letters + string.digits + "-_"

# What a header can hold on the wire, as WSGI hands it over: latin-1 without line ends and NUL.
HEADER_TEXT = st.text(st.characters(codec="latin-1", exclude_characters="\r\n\0"), max_size=200)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)

NAMES = ["alg", "kid", "typ", "crit", "b64", "iss", "exp", "token_use", "client_id", "scope", "aud"]

PARTS = st.one_of(
    st.text(BASE64URL, max_size=60),
    st.binary(max_size=60).map(b64),
    JSON.map(lambda value: b64(json.dumps(value).encode())),
    st.dictionaries(st.sampled_from(NAMES), JSON, max_size=6).map(
        lambda value: b64(json.dumps(value).encode())
    ),
)

TOKENS = st.one_of(
    st.text(BASE64URL + ".", max_size=200),
    st.lists(PARTS, min_size=1, max_size=5).map(".".join),
)


@settings(max_examples=300, deadline=None)
@given(
    header=st.one_of(
        HEADER_TEXT,
        HEADER_TEXT.map("Bearer {}".format),
        TOKENS.map("Bearer {}".format),
        st.lists(TOKENS.map("Bearer {}".format), max_size=3).map(",".join),
    )
)
@example(header="Bearer " + "." * 16_000)
@example(header="Bearer " + "a" * 70_000)
@example(header="Bearer " + "," * 70_000)
@example(header=",Bearer " * 9_000)
def test_no_header_opens_or_breaks(api: FlaskClient, header: str) -> None:
    """Any Authorization header at all is 400 or 401, with a challenge."""
    answer = api.get("/weather", headers={"Authorization": header})
    assert answer.status_code in (400, 401)
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")


@settings(max_examples=200, deadline=None)
@given(position=st.integers(0, 10_000), character=st.sampled_from(BASE64URL + "."))
def test_no_character_can_be_changed(api: FlaskClient, forge: Forge, position: int, character: str) -> None:
    """A good token with one other character is a bad token, wherever it is."""
    token = forge.access_token()
    position %= len(token)
    altered = token[:position] + character + token[position + 1 :]
    answer = api.get("/weather", headers=bearer(altered))
    assert answer.status_code == (200 if altered == token else 401)


@settings(max_examples=200, deadline=None)
@given(header=st.dictionaries(st.sampled_from(NAMES), JSON), claims=JSON)
def test_no_foreign_signature_passes(
    api: FlaskClient, forge: Forge, header: dict[str, Any], claims: Any
) -> None:
    """Whatever a stranger's token claims, it is refused."""
    head = {**forge.header(), **header}
    body = {**forge.access_claims(), **claims} if isinstance(claims, dict) else claims
    token = compact(json.dumps(head).encode(), json.dumps(body).encode(), signer("stranger").sign)
    assert api.get("/weather", headers=bearer(token)).status_code == 401


def _near(forge: Forge) -> st.SearchStrategy[Any]:
    """Times around now and beyond reason."""
    offsets = st.sampled_from([-3600, -61, -60, -59, -1, 0, 1, 59, 60, 61, 3600])
    return offsets.map(lambda offset: forge.now + offset) | offsets.map(
        lambda offset: forge.now + offset + 0.5
    )


ODD: st.SearchStrategy[Any] = st.sampled_from(
    [ABSENT, None, True, False, 0, -1, "", "x", [], ["x"], {}, 1e300, "access"]
)

HEADERS = st.fixed_dictionaries(
    {},
    optional={
        "typ": st.sampled_from(["JWT", "at+jwt", "logout+jwt"]) | ODD,
        "alg": st.sampled_from(["RS256", "RS512", "HS256", "none"]) | ODD,
        "kid": st.just("id-1") | ODD,
        "crit": st.sampled_from([["exp"], ["b64"]]) | ODD,
        "b64": ODD,
        "x5t": ODD,
        "jku": st.just("https://evil.example") | ODD,
        "cty": st.just("JWT") | ODD,
    },
)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_what_we_accept_another_library_accepts(
    issuer: LocalIssuer, forge: Forge, data: st.DataObject
) -> None:
    """joserfc under the same rules is at least as generous: we let in nothing that it refuses."""
    times = _near(forge) | ODD
    claims_changes = data.draw(
        st.fixed_dictionaries(
            {},
            optional={
                "exp": times,
                "iat": times,
                "nbf": times,
                "iss": st.just(forge.issuer + "/") | ODD,
                "sub": ODD,
                "client_id": st.just(forge.client_id + "x") | ODD,
                "token_use": st.just("id") | ODD,
                "scope": ODD,
                "username": ODD,
                "jti": st.just("j"),
            },
        )
    )
    header = changed(forge.header(), data.draw(HEADERS | st.just({})))
    token = forge.signed(forge.access_claims(**claims_changes), header)
    ours = _accepts(_validator(forge), token)
    theirs = _joserfc_accepts(issuer.jwks["keys"], forge, token)
    assert theirs or not ours


def test_both_accept_and_both_refuse(issuer: LocalIssuer, forge: Forge) -> None:
    """The comparison above compares something: each verdict occurs on either side."""
    for token, verdict in [(forge.access_token(), True), (forge.id_token(), False)]:
        assert _accepts(_validator(forge), token) is verdict
        assert _joserfc_accepts(issuer.jwks["keys"], forge, token) is verdict


_validators: dict[str, JWTValidator] = {}


def _validator(forge: Forge) -> JWTValidator:
    """One for all examples: its keys are fetched once."""
    return _validators.setdefault(
        forge.issuer,
        JWTValidator(forge.issuer, client_ids={forge.client_id}, clock=Clock(forge.now)),
    )


def _accepts(validator: JWTValidator, token: str) -> bool:
    try:
        validator.validate(token)
    except TokenRefused:
        return False
    return True


def _joserfc_accepts(jwks: list[dict[str, Any]], forge: Forge, token: str) -> bool:
    key = RSAKey.import_key(next(jwk for jwk in jwks if jwk["kid"] == forge.signer.key_id))
    rules = jwt.JWTClaimsRegistry(
        now=forge.now,
        leeway=60,
        iss={"essential": True, "value": forge.issuer},
        exp={"essential": True},
        sub={"essential": True},
        token_use={"essential": True, "value": "access"},
        client_id={"essential": True, "value": forge.client_id},
    )
    try:
        rules.validate(jwt.decode(token, key, algorithms=["RS256"]).claims)
    except (JoseError, ValueError, TypeError):
        return False
    return True


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("%FF", 200),
        ("=", 200),
        ("a=%00&access_token[]=1", 200),
        ("access_token", 400),
        ("access_token=", 400),
        ("a=1&access%5Ftoken=x", 400),
    ],
)
def test_odd_queries(api: FlaskClient, forge: Forge, query: str, status: int) -> None:
    """A query never breaks anything, and any `access_token` in it beside a header is refused."""
    answer = api.get(f"/weather?{query}", headers=bearer(forge.access_token()))
    assert answer.status_code == status
