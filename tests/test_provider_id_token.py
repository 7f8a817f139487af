"""ID tokens: one row for each rule of OpenID Connect Core §3.1.3.7 and each way around it."""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from joserfc.jwk import RSAKey

from bff.errors import IDTokenInvalid
from bff.provider import id_token
from bff.provider.client import Provider
from tests.forge import b64, compact, hmac_sha256
from tests.support.client import client_of, sign_in
from tests.support.provider import (
    ABSENT,
    CLIENT_ID,
    CLIENT_SECRET,
    SUBJECT,
    ScriptedProvider,
    changed,
    ec_key,
    half_hash,
    okp_key,
    rsa_key,
    scripted_provider,
    sign,
)


def timeless(value: object) -> str:
    """A test's name for a value: the same in every process, whatever time it is."""
    return re.sub(r"\d{9,}", "…", str(value))


@pytest.fixture
def scripted() -> Iterator[ScriptedProvider]:
    with scripted_provider() as provider:
        yield provider


@pytest.fixture
def provider(scripted: ScriptedProvider) -> Provider:
    return client_of(scripted)


def reason(scripted: ScriptedProvider, provider: Provider) -> str:
    """Why the sign-in was refused; the token is not quoted."""
    with pytest.raises(IDTokenInvalid) as caught:
        sign_in(scripted, provider)
    assert not any(secret in caught.value.reason for secret in scripted.secrets)
    return caught.value.reason


def accepted(scripted: ScriptedProvider, provider: Provider) -> dict[str, Any]:
    """The claims of a sign-in that works."""
    return sign_in(scripted, provider).identity.claims


NOW = int(time.time())
EDDSA = pytest.mark.filterwarnings("ignore:EdDSA is deprecated")  # by RFC 9864, which names the curve instead

BAD_CLAIMS: list[tuple[str, object, str]] = [
    # invalid-iss: exactly the configured issuer
    ("iss", "https://evil.example", "iss"),
    ("iss", ABSENT, "iss"),
    ("iss", ["https://idp.example"], "iss"),
    # missing-sub
    ("sub", ABSENT, "sub"),
    ("sub", "", "sub"),
    ("sub", 7, "sub"),
    ("sub", None, "sub"),
    ("sub", "s" * 256, "sub"),
    # invalid-aud: us, and nobody whom we have no reason to trust
    ("aud", ABSENT, "aud"),
    ("aud", "other", "aud"),
    ("aud", [], "aud"),
    ("aud", ["other"], "aud"),
    ("aud", [CLIENT_ID, "other"], "aud"),
    ("aud", {CLIENT_ID: True}, "aud"),
    ("aud", CLIENT_ID + "2", "aud"),
    ("aud", CLIENT_ID.upper(), "aud"),
    ("aud", [[CLIENT_ID]], "aud"),
    ("azp", "other", "azp"),
    ("azp", "", "azp"),
    ("azp", [CLIENT_ID], "azp"),
    # exp
    ("exp", ABSENT, "exp"),
    ("exp", NOW - 3600, "exp"),
    ("exp", -1, "exp"),
    ("exp", str(NOW + 300), "exp"),
    ("exp", True, "exp"),
    ("exp", None, "exp"),
    ("exp", [NOW + 300], "exp"),
    # missing-iat, and one that lies ahead
    ("iat", ABSENT, "iat"),
    ("iat", NOW + 3600, "iat"),
    ("iat", str(NOW), "iat"),
    ("iat", {}, "iat"),
    ("nbf", NOW + 3600, "nbf"),
    ("nbf", "soon", "nbf"),
    ("auth_time", NOW + 3600, "auth_time"),
    ("auth_time", "yesterday", "auth_time"),
    ("auth_time", None, "auth_time"),
    # nonce-invalid
    ("nonce", ABSENT, "nonce"),
    ("nonce", "another", "nonce"),
    ("nonce", "", "nonce"),
    ("nonce", None, "nonce"),
    ("nonce", 7, "nonce"),
    # at_hash binds the access token
    ("at_hash", half_hash("another access token"), "at_hash"),
    ("at_hash", "", "at_hash"),
    ("at_hash", None, "at_hash"),
    ("at_hash", ["x"], "at_hash"),
    # Cognito's mark
    ("token_use", "access", "token_use"),
    ("token_use", None, "token_use"),
]


@pytest.mark.parametrize(("name", "value", "named"), BAD_CLAIMS, ids=lambda value: timeless(value)[:24])
def test_claim_that_breaks_a_rule(
    scripted: ScriptedProvider, provider: Provider, name: str, value: object, named: str
) -> None:
    """One wrong claim refuses the token, and the log says which."""
    scripted.claims[name] = value
    assert f"ID token: {named} " in reason(scripted, provider)


RAW_CLAIMS = [
    b'"exp":NaN',
    b'"exp":Infinity',
    b'"exp":-Infinity',
    b'"exp":1e999',
    b'"exp":' + b"9" * 400,
    b'"exp":' + b"9" * 5000,
    b'"iat":' + b"-" + b"9" * 400,
    b'"iat":NaN',
    b'"version":' + b"9" * 30,
    b'"nonce":"\\ud800"',
    b'"sub":"\\udfff"',
    b'"at_hash":"\\ud800"',
    b'"email":"\\ud800"',
    b'"name":"\xff"',
    b'"x":' + b"[" * 20_000 + b"]" * 20_000,
]


@pytest.mark.parametrize("member", RAW_CLAIMS, ids=lambda member: repr(member[:24]))
def test_claim_that_is_no_sane_json(scripted: ScriptedProvider, provider: Provider, member: bytes) -> None:
    """Numbers without a size, half characters and bottomless nesting refuse the token and break nothing."""

    def forge(claims: dict[str, Any]) -> str:
        claims.pop(member.split(b'"')[1].decode(), None)
        payload = json.dumps(claims).encode()[:-1] + b", " + member + b"}"
        return sign({"alg": "RS256", "kid": "rsa-1"}, payload, rsa_key("rsa-1"))

    scripted.forge = forge
    assert reason(scripted, provider)


def test_duplicated_claim(scripted: ScriptedProvider, provider: Provider) -> None:
    """Of a claim that comes twice the last one counts, for the check and for the session alike."""

    def forge(claims: dict[str, Any]) -> str:
        payload = b'{"sub": "root", ' + json.dumps(claims).encode()[1:]
        return sign({"alg": "RS256", "kid": "rsa-1"}, payload, rsa_key("rsa-1"))

    scripted.forge = forge
    signed_in = sign_in(scripted, provider)
    assert (signed_in.identity.subject, signed_in.identity.claims["sub"]) == (SUBJECT, SUBJECT)


@pytest.mark.parametrize("payload", [b"", b"[]", b'"x"', b"null", b"7", b"{", b"{} {}", b"\xff"])
def test_claims_that_are_no_object(scripted: ScriptedProvider, provider: Provider, payload: bytes) -> None:
    """A well signed payload that is no JSON object is refused."""
    scripted.forge = lambda _claims: sign({"alg": "RS256", "kid": "rsa-1"}, payload, rsa_key("rsa-1"))
    assert reason(scripted, provider)


GOOD_CLAIMS = [
    {"aud": [CLIENT_ID]},
    {"azp": CLIENT_ID},
    {"at_hash": ABSENT},
    {"token_use": "id"},
    {"auth_time": ABSENT},
    {"exp": NOW + 300.5},
    {"exp": NOW - 30, "iat": NOW - 400},
    {"iat": NOW + 30},
    {"nbf": NOW - 1},
    {"sub": "s" * 255},
    {"sub": "Zoë"},
]


@pytest.mark.parametrize("claims", GOOD_CLAIMS, ids=lambda claims: timeless(list(claims.items()))[:40])
def test_claim_within_the_rules(
    scripted: ScriptedProvider, provider: Provider, claims: dict[str, object]
) -> None:
    """What the standard allows is accepted: one audience in an array, a clock a little off, no at_hash."""
    elapsed = int(time.time()) - NOW  # since the table was written down
    times = ("exp", "iat", "nbf")
    scripted.claims |= {k: v + elapsed if k in times else v for k, v in claims.items()}  # type: ignore[operator]
    assert accepted(scripted, provider)


# -- the signature ----------------------------------------------------------------------------------


def unsigned(algorithm: str) -> Any:
    return lambda claims: compact({"alg": algorithm, "kid": "rsa-1"}, claims, lambda _data: b"")


def symmetric(key: bytes, algorithm: str = "HS256") -> Any:
    return lambda claims: compact({"alg": algorithm, "kid": "rsa-1"}, claims, hmac_sha256(key))


def by(key: Any, **header: Any) -> Any:
    """Well signed by the RSA `key`, with these header members, which no library has judged."""
    digest = hashes.SHA512() if header.get("alg") == "RS512" else hashes.SHA256()
    members = changed({"alg": "RS256", "kid": "rsa-1"}, header)
    return lambda claims: compact(
        members, claims, lambda data: key.private_key.sign(data, padding.PKCS1v15(), digest)
    )


def tampered(claims: dict[str, Any]) -> str:
    header, _, signature = sign({"alg": "RS256", "kid": "rsa-1"}, claims, rsa_key("rsa-1")).split(".")
    return f"{header}.{b64(json.dumps(claims | {'sub': 'root'}).encode())}.{signature}"


def damaged(claims: dict[str, Any]) -> str:
    token = sign({"alg": "RS256", "kid": "rsa-1"}, claims, rsa_key("rsa-1"))
    return token[:-8] + "AAAAAAAA"


def with_public_key(**header: Any) -> Any:
    """Signed by a stranger, who brings his own key along."""
    stranger = rsa_key("stranger")
    return by(stranger, jwk=stranger.as_dict(private=False), **header)


BAD_SIGNATURES = {
    "sig-none": unsigned("none"),
    "None": unsigned("None"),
    "nOnE": unsigned("nOnE"),
    "no signature": unsigned("RS256"),
    "invalid-sig": damaged,
    "claims exchanged": tampered,
    "HS256 with the public key as PEM": symmetric(rsa_key("rsa-1").as_pem(private=False)),
    "HS256 with the public key as DER": symmetric(rsa_key("rsa-1").as_der(private=False)),
    "HS256 with the client secret": symmetric(CLIENT_SECRET.encode()),
    "HS256 with the empty key": symmetric(b""),
    "a stranger's key under a known kid": by(rsa_key("stranger")),
    "a stranger's key in the header": with_public_key(),
    "a stranger's key in the header, no kid": with_public_key(kid=ABSENT),
    "a stranger's key by address": by(rsa_key("stranger"), jku="https://evil.example/jwks"),
    "a stranger's certificate by address": by(rsa_key("stranger"), x5u="https://evil.example/x"),
    "crit unknown": by(rsa_key("rsa-1"), crit=["exp"]),
    "crit empty": by(rsa_key("rsa-1"), crit=[]),
    "b64 false": by(rsa_key("rsa-1"), crit=["b64"], b64=True),
    "alg not advertised": by(rsa_key("rsa-1"), alg="RS512"),
    "alg missing": lambda claims: compact({"kid": "rsa-1"}, claims, lambda _data: b"x"),
    "alg a list": lambda claims: compact({"alg": ["RS256"], "kid": "rsa-1"}, claims, lambda _data: b"x"),
    "kid a number": by(rsa_key("rsa-1"), kid=7),
    "kid a path": by(rsa_key("rsa-1"), kid="../../dev/null"),
    "kid unknown": by(rsa_key("rsa-1"), kid="rsa-9"),
    "header no object": lambda claims: compact(b"[]", claims, lambda _data: b"x"),
    "header no JSON": lambda claims: compact(b"\xff{", claims, lambda _data: b"x"),
    "header nested without end": lambda claims: compact(b"[" * 40_000, claims, lambda _data: b"x"),
    "JWE": lambda _claims: "a.b.c.d.e",
    "two parts": lambda claims: ".".join(by(rsa_key("rsa-1"))(claims).split(".")[:2]),
    "empty": lambda _claims: "",
    "dots": lambda _claims: "..",
    "not ASCII": lambda _claims: "é.é.é",
    "half a character": lambda _claims: "\ud800.a.b",
    "JSON serialisation": lambda _claims: '{"payload":"e30","signatures":[]}',
    "huge": lambda claims: sign(
        {"alg": "RS256", "kid": "rsa-1"}, claims | {"x": "y" * 65_536}, rsa_key("rsa-1")
    ),
}


@pytest.mark.parametrize("forge", BAD_SIGNATURES.values(), ids=BAD_SIGNATURES)
def test_token_that_the_provider_has_not_signed(
    scripted: ScriptedProvider, provider: Provider, forge: Any
) -> None:
    """Nothing is accepted but a signature by a published key with an advertised asymmetric algorithm."""
    scripted.forge = forge
    assert reason(scripted, provider)


def test_key_in_the_header(scripted: ScriptedProvider) -> None:
    """A stranger's key that comes along is not used, however short it is (RFC 8725 §3.10)."""
    stranger = ec_key("stranger-ec")
    header = {"alg": "ES256", "kid": "ec-1", "jwk": stranger.as_dict(private=False)}
    scripted.discovery["id_token_signing_alg_values_supported"] = ["ES256"]
    scripted.keys = [ec_key("ec-1")]
    scripted.forge = lambda claims: sign(header, claims, stranger)
    assert "signature" in reason(scripted, client_of(scripted))


LARGE = {"many groups": ({}, {"groups": ["g" * 36] * 1000}), "a certificate": ({"x5c": ["A" * 4000]}, {})}


@pytest.mark.parametrize(("header", "claims"), LARGE.values(), ids=LARGE)
def test_large_token(
    scripted: ScriptedProvider, provider: Provider, header: dict[str, Any], claims: dict[str, Any]
) -> None:
    """Members of many groups, and providers that send their certificate along, are no attack."""
    scripted.forge = lambda usual: by(rsa_key("rsa-1"), **header)(usual | claims)
    assert accepted(scripted, provider)["sub"] == SUBJECT


@pytest.mark.parametrize("algorithm", ["none", "HS256"])
@pytest.mark.parametrize("forge", [unsigned("none"), symmetric(CLIENT_SECRET.encode())])
def test_weak_algorithm_that_is_advertised(scripted: ScriptedProvider, algorithm: str, forge: Any) -> None:
    """`none` and HMAC are refused even where the provider advertises them."""
    scripted.discovery["id_token_signing_alg_values_supported"] = ["RS256", algorithm]
    scripted.forge = forge
    assert "alg is not allowed" in reason(scripted, client_of(scripted))


@pytest.mark.parametrize(
    ("algorithm", "key", "digest"),
    [
        ("RS256", rsa_key("rsa-1"), "sha256"),
        ("RS384", rsa_key("rsa-1"), "sha384"),
        ("PS512", rsa_key("rsa-1"), "sha512"),
        ("ES256", ec_key("ec-1"), "sha256"),
        ("ES384", ec_key("ec-384", "P-384"), "sha384"),
        ("ES512", ec_key("ec-521", "P-521"), "sha512"),
        pytest.param("EdDSA", okp_key("okp-1"), "sha512", marks=EDDSA),
    ],
)
def test_algorithms(scripted: ScriptedProvider, algorithm: str, key: Any, digest: str) -> None:
    """Every asymmetric algorithm that is advertised works, with at_hash by its own hash."""
    scripted.discovery["id_token_signing_alg_values_supported"] = [algorithm]
    scripted.keys = [key]
    scripted.header["alg"] = algorithm
    honest = scripted.id_claims

    def claims(nonce: str | None, access_token: str) -> dict[str, Any]:
        return honest(nonce, access_token) | {"at_hash": half_hash(access_token, digest)}

    scripted.id_claims = claims  # type: ignore[method-assign]
    assert accepted(scripted, client_of(scripted))["sub"] == SUBJECT


# -- the choice of the key --------------------------------------------------------------------------


def test_no_kid_and_one_key(scripted: ScriptedProvider, provider: Provider) -> None:
    """kid-absent-single-jwks: without a `kid` the only key is the one."""
    scripted.header["kid"] = ABSENT
    assert accepted(scripted, provider)


def test_no_kid_and_one_key_that_fits(scripted: ScriptedProvider, provider: Provider) -> None:
    """Without a `kid` keys of another type or for encryption are no candidates."""
    scripted.header["kid"] = ABSENT
    encryption = rsa_key("rsa-enc").as_dict(private=False) | {"use": "enc"}
    keys = [okp_key("okp-1").as_dict(private=False), encryption, *scripted.jwks()["keys"]]
    keys.append(rsa_key("rsa-2").as_dict(private=False) | {"alg": "PS256"})
    scripted.jwks = lambda: {"keys": keys}  # type: ignore[method-assign]
    assert accepted(scripted, provider)


def test_no_kid_and_several_keys(scripted: ScriptedProvider, provider: Provider) -> None:
    """kid-absent-multiple-jwks: without a `kid` nothing is guessed."""
    scripted.keys = [rsa_key("rsa-1"), rsa_key("rsa-2")]
    scripted.header["kid"] = ABSENT
    assert "several keys" in reason(scripted, provider)


def test_same_kid_twice(scripted: ScriptedProvider, provider: Provider) -> None:
    """Two keys under one `kid` are told apart by their type, and refused where that is the same."""
    ec = ec_key("ec-1").as_dict(private=False) | {"kid": "rsa-1"}
    keys = [ec, *scripted.jwks()["keys"]]
    scripted.jwks = lambda: {"keys": keys}  # type: ignore[method-assign]
    assert accepted(scripted, provider)
    keys.append(rsa_key("rsa-2").as_dict(private=False) | {"kid": "rsa-1"})
    assert "several keys" in reason(scripted, client_of(scripted))


@pytest.mark.filterwarnings("ignore:Key size should be")
def test_short_rsa_key(scripted: ScriptedProvider, provider: Provider) -> None:
    """A published RSA key of less than 2048 bits verifies nothing (RFC 7518 §3.3)."""
    short = rsa.generate_private_key(65537, 1024)
    scripted.keys = [RSAKey.import_key(short, {"kid": "rsa-1"})]
    scripted.forge = by(scripted.keys[0])
    assert "the RSA key is too short" in reason(scripted, provider)


@pytest.mark.parametrize("member", ["use", "alg", "key_ops", "x5c"])
def test_key_with_an_empty_member(scripted: ScriptedProvider, provider: Provider, member: str) -> None:
    """A member that is null is none."""
    published = scripted.keys[0].as_dict(private=False) | {member: None}
    scripted.jwks = lambda: {"keys": [published]}  # type: ignore[method-assign]
    assert accepted(scripted, provider)


@pytest.mark.parametrize(
    "change",
    [
        {"use": "enc"},
        {"use": 7},
        {"alg": ["RS256"]},
        {"alg": "RS512"},
        {"kty": "oct", "k": base64.urlsafe_b64encode(b"k" * 32).decode()},
        {"n": ABSENT},
        {"n": 7},
        {"n": "!!"},
        {"e": ""},
        {"kty": ["RSA"]},
        {"key_ops": ["encrypt"]},
    ],
    ids=str,
)
def test_key_that_cannot_be_used(
    scripted: ScriptedProvider, provider: Provider, change: dict[str, Any]
) -> None:
    """A published key that is broken, or not for signatures, verifies nothing and breaks nothing."""
    key = scripted.keys[0].as_dict(private=False) | change
    published = {name: value for name, value in key.items() if value is not ABSENT}
    scripted.jwks = lambda: {"keys": [published]}  # type: ignore[method-assign]
    assert reason(scripted, provider)


@pytest.mark.parametrize("curve", ["P-999", "secp256k1", "P-384", 7, None])
def test_curve_that_does_not_fit(scripted: ScriptedProvider, curve: object) -> None:
    """A key on a curve that we do not know, or that is not the algorithm's, verifies nothing."""
    scripted.discovery["id_token_signing_alg_values_supported"] = ["ES256"]
    scripted.keys = [ec_key("ec-1")]
    scripted.header["alg"] = "ES256"
    published = scripted.keys[0].as_dict(private=False) | {"crv": curve}
    scripted.jwks = lambda: {"keys": [published]}  # type: ignore[method-assign]
    assert reason(scripted, client_of(scripted))


def test_empty_ecdsa_signature(scripted: ScriptedProvider) -> None:
    """ES256 with r = s = 0 is no signature (CVE-2022-21449)."""
    scripted.discovery["id_token_signing_alg_values_supported"] = ["ES256"]
    scripted.keys = [ec_key("ec-1")]
    scripted.forge = lambda claims: compact({"alg": "ES256", "kid": "ec-1"}, claims, lambda _: bytes(64))
    assert reason(scripted, client_of(scripted))


def renamed(key: Any, kid: object) -> Any:
    """The same key under another `kid`, or without one."""
    return type(key).import_key(changed(key.as_dict(private=True), {"kid": kid}))


NEW_KEYS = {
    "a new kid": [rsa_key("rsa-2"), rsa_key("rsa-1")],
    "the old kid": [renamed(rsa_key("rsa-2"), "rsa-1")],
    "no kid": [renamed(rsa_key("rsa-2"), ABSENT)],
}


@pytest.mark.parametrize("keys", NEW_KEYS.values(), ids=NEW_KEYS)
@pytest.mark.parametrize("earlier", [0, 1])
def test_rotation(scripted: ScriptedProvider, keys: list[Any], earlier: int) -> None:
    """signing-key-rotation just before signing: however short ago the keys were fetched, and whatever the
    new one is called, they are fetched once more, and the token is accepted."""
    provider = client_of(scripted)
    for _ in range(earlier):
        accepted(scripted, provider)
    provider.prepare()
    scripted.keys = keys
    if keys[0].kid is None:
        scripted.header["kid"] = ABSENT
    accepted(scripted, provider)
    accepted(scripted, provider)
    assert scripted.count("jwks") == 2


def test_rotation_to_another_algorithm(scripted: ScriptedProvider, provider: Provider) -> None:
    """An algorithm that is not advertised has the metadata fetched once more, and then the keys."""
    accepted(scripted, provider)
    scripted.discovery["id_token_signing_alg_values_supported"] = ["ES256"]
    scripted.keys = [ec_key("ec-1")]
    scripted.header["alg"] = "ES256"
    accepted(scripted, provider)
    assert (scripted.count("discovery"), scripted.count("jwks")) == (2, 2)


def test_flood_of_other_algorithms(scripted: ScriptedProvider, provider: Provider) -> None:
    """Tokens with an algorithm that is not advertised cost one fetch of the metadata in a cooldown."""
    provider.prepare()
    scripted.forge = by(rsa_key("rsa-1"), alg="RS512")
    for _ in range(5):
        assert "alg is not allowed" in reason(scripted, provider)
    assert (scripted.count("discovery"), scripted.count("jwks")) == (2, 1)


def test_flood_of_unknown_key_ids(scripted: ScriptedProvider) -> None:
    """Tokens under unknown `kid`s cost one fetch in a cooldown, and a good one still works."""
    provider = client_of(scripted)
    accepted(scripted, provider)
    for kid in range(10):
        scripted.header["kid"] = f"unknown-{kid}"
        reason(scripted, provider)
    assert scripted.count("jwks") == 2
    del scripted.header["kid"]
    assert accepted(scripted, provider)


def test_outage_of_the_keys(scripted: ScriptedProvider) -> None:
    """Keys that are known go on verifying while the JWKS cannot be had."""
    now = [time.time()]
    provider = client_of(scripted, lambda: now[0])
    scripted.clock = lambda: now[0]
    accepted(scripted, provider)
    scripted.replies["jwks"] = scripted.replies["discovery"] = lambda _seen: 1 / 0  # type: ignore[assignment,return-value]
    now[0] += 7200
    assert accepted(scripted, provider)


@pytest.mark.parametrize("token", [ABSENT, None, 7, ["x"], {"a": 1}])
def test_no_id_token(scripted: ScriptedProvider, provider: Provider, token: object) -> None:
    """An answer without an ID token signs nobody in: OAuth alone says nothing about who came."""
    scripted.token_members["id_token"] = token
    assert "no ID token" in reason(scripted, provider)


def test_nothing_is_shown() -> None:
    """The repr of an identity has no claim in it."""
    assert repr(id_token.Identity("alice", {"sub": "alice"})) == "<Identity>"
