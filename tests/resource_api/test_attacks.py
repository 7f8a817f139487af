"""Forged, broken and borrowed tokens: every one is refused, for the right reason, and calmly."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from flask.testing import FlaskClient

from bff.resource_api.jwt.model import Reason
from tests.forge import ABSENT, Forge, b64, compact, hmac_sha256, part, signer
from tests.resource_api.conftest import bearer
from tests.resource_api.issuer import LocalIssuer
from tests.support.stopwatch import Stopwatch

Make = Callable[[Forge], str]
ATTACKER = "attacker"


def headed(**changes: Any) -> Make:
    """A good token, well signed, with another header."""
    return lambda forge: forge.access_token(forge.header(**changes))


def claiming(**changes: Any) -> Make:
    """A good token, well signed, with other claims."""
    return lambda forge: forge.access_token(**changes)


def raw_claims(old: str, new: str) -> Make:
    """Well signed claims whose JSON text is tampered with before signing."""

    def make(forge: Forge) -> str:
        text = json.dumps(forge.access_claims())
        assert old in text
        return forge.signed(text.replace(old, new, 1).encode())

    return make


def raw_header(text: str) -> Make:
    """A well signed token with this text for a header; KID stands for the key's name."""
    return lambda forge: forge.access_token(text.replace("KID", forge.signer.key_id).encode())


def encoded_header(encoding: str) -> Make:
    """A well signed token whose header is text in another encoding."""
    return lambda forge: forge.access_token(json.dumps(forge.header()).encode(encoding))


def deep(levels: int) -> str:
    """Lists in lists."""
    return "[" * levels + "]" * levels


def scoped_id_token(forge: Forge) -> str:
    """An ID token that has everything of an access token but its kind."""
    return forge.id_token(client_id=forge.client_id, scope=forge.scope)


def forged(**header: Any) -> Make:
    """Signed by the attacker's own key, which the header may bring along."""

    def make(forge: Forge) -> str:
        return compact(forge.header(**header), forge.access_claims(), signer(ATTACKER).sign)

    return make


def hs256(key: Callable[[Forge], bytes], **header: Any) -> Make:
    """Key confusion: a public key taken for a shared secret."""

    def make(forge: Forge) -> str:
        head = forge.header(alg="HS256", **header)
        return compact(head, forge.access_claims(), hmac_sha256(key(forge)))

    return make


def unsigned(alg: str, signature: bytes = b"") -> Make:
    """A token that says it needs no signature."""
    return lambda forge: compact(forge.header(alg=alg), forge.access_claims(), lambda _: signature)


def signature_of(change: Callable[[str], str]) -> Make:
    """A good token whose signature part is rewritten."""

    def make(forge: Forge) -> str:
        head, claims, signature = forge.access_token().split(".")
        return f"{head}.{claims}.{change(signature)}"

    return make


def other_spelling(text: str) -> str:
    """The same bytes in base64url with stray bits at the end."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return text[:-1] + alphabet[alphabet.index(text[-1]) + 1]


def borrowed_claims(forge: Forge) -> str:
    """The signature of one token under the claims of another."""
    head, _, signature = forge.access_token().split(".")
    claims = part(forge.access_claims(**{"cognito:groups": ["admins"]}))
    return f"{head}.{claims}.{signature}"


def nested(forge: Forge) -> str:
    """A token whose claims are a token."""
    return compact(forge.header(cty="JWT"), forge.access_token().encode(), forge.signer.sign)


def jwe(forge: Forge) -> str:
    """Five parts: an encrypted token."""
    header = part({"alg": "RSA-OAEP", "enc": "A256GCM", "kid": forge.signer.key_id})
    return ".".join([header, *[b64(b"x" * 32)] * 4])


def published(key_id: str, **header: Any) -> Make:
    """Well signed with a key that the issuer publishes, but not for this."""

    def make(forge: Forge) -> str:
        key = signer(key_id, 1024 if key_id == "weak" else 2048)
        return compact(forge.header(kid=key_id, **header), forge.access_claims(), key.sign)

    return make


def issuer_as(change: Callable[[str], Any]) -> Make:
    """Another issuer's name, or this one's in disguise."""
    return lambda forge: forge.access_token(iss=change(forge.issuer))


def at(**offsets: float) -> Make:
    """Time claims in seconds from now."""
    return lambda forge: forge.access_token(**{name: forge.now + offset for name, offset in offsets.items()})


LATER = 4_000_000_000

ATTACKS: list[tuple[str, Make, Reason]] = [
    # No signature, or another key's.
    ("alg none", unsigned("none"), Reason.NOT_THREE_PARTS),
    ("alg none with a signature", unsigned("none", b"x"), Reason.ALGORITHM),
    ("alg None", unsigned("None", b"x"), Reason.ALGORITHM),
    ("alg nOnE", unsigned("nOnE", b"x"), Reason.ALGORITHM),
    ("alg NONE", unsigned("NONE", b"x"), Reason.ALGORITHM),
    ("alg empty", unsigned("", b"x"), Reason.ALGORITHM),
    ("alg with a blank", unsigned("RS256 ", b"x"), Reason.ALGORITHM),
    ("alg missing", headed(alg=ABSENT), Reason.ALGORITHM),
    ("alg null", headed(alg=None), Reason.ALGORITHM),
    ("alg a list", headed(alg=["RS256"]), Reason.ALGORITHM),
    ("alg an object", headed(alg={"RS256": 1}), Reason.ALGORITHM),
    ("alg in lower case", headed(alg="rs256"), Reason.ALGORITHM),
    ("empty signature", signature_of(lambda _: ""), Reason.NOT_THREE_PARTS),
    ("one-byte signature", signature_of(lambda _: "AA"), Reason.SIGNATURE),
    ("zero signature", signature_of(lambda _: b64(bytes(256))), Reason.SIGNATURE),
    ("cut signature", signature_of(lambda s: b64(b"x" * 255)), Reason.SIGNATURE),
    ("long signature", signature_of(lambda s: s + "AAAA"), Reason.SIGNATURE),
    ("respelt signature", signature_of(other_spelling), Reason.BAD_ENCODING),
    ("impossible base64url", signature_of(lambda s: "AAAAA"), Reason.BAD_ENCODING),
    ("borrowed signature", borrowed_claims, Reason.SIGNATURE),
    ("attacker's key under our kid", forged(), Reason.SIGNATURE),
    ("attacker's key under its own kid", forged(kid=ATTACKER), Reason.UNKNOWN_KEY),
    # Key confusion.
    ("HS256 with PEM", hs256(lambda f: f.signer.public_bytes(Encoding.PEM)), Reason.ALGORITHM),
    ("HS256 with DER", hs256(lambda f: f.signer.public_bytes(Encoding.DER)), Reason.ALGORITHM),
    ("HS256 with JWK", hs256(lambda f: json.dumps(f.signer.jwk()).encode()), Reason.ALGORITHM),
    ("HS256 with the modulus", hs256(lambda f: f.signer.jwk()["n"].encode()), Reason.ALGORITHM),
    ("HS256 with an empty key", hs256(lambda f: b""), Reason.ALGORITHM),
    ("HS256 with a guessed kid", hs256(lambda f: b"", kid="/dev/null"), Reason.ALGORITHM),
    ("HMAC under RS256", lambda f: compact(
        f.header(), f.access_claims(), hmac_sha256(f.signer.public_bytes(Encoding.PEM))
    ), Reason.SIGNATURE),
    # Other algorithms.
    ("ES256 r=s=0", unsigned("ES256", bytes(64)), Reason.ALGORITHM),
    ("ES256 r=s=0 in DER", unsigned("ES256", bytes.fromhex("3006020100020100")), Reason.ALGORITHM),
    ("EdDSA", unsigned("EdDSA", bytes(64)), Reason.ALGORITHM),
    ("RS512, rightly signed", lambda f: compact(
        f.header(alg="RS512"), f.access_claims(), f.signer.sign_sha512
    ), Reason.ALGORITHM),
    ("RS512 under RS256", lambda f: compact(
        f.header(), f.access_claims(), f.signer.sign_sha512
    ), Reason.SIGNATURE),
    ("PS256, rightly signed", lambda f: compact(
        f.header(alg="PS256"), f.access_claims(), f.signer.sign_pss
    ), Reason.ALGORITHM),
    ("RSA1_5", headed(alg="RSA1_5"), Reason.ALGORITHM),
    ("dir", headed(alg="dir", enc="A256GCM"), Reason.ALGORITHM),
    # Keys that the token brings along.
    ("jku", forged(jku="https://evil.example/jwks.json"), Reason.KEY_IN_HEADER),
    ("x5u", forged(x5u="https://evil.example/cert.pem"), Reason.KEY_IN_HEADER),
    ("x5c", forged(x5c=["MIIB"]), Reason.KEY_IN_HEADER),
    ("jwk", lambda f: forged(jwk=signer(ATTACKER).jwk())(f), Reason.KEY_IN_HEADER),
    ("jwk null", forged(jwk=None), Reason.KEY_IN_HEADER),
    # The key's name is untrusted input.
    ("kid missing", headed(kid=ABSENT), Reason.KEY_ID),
    ("kid null", headed(kid=None), Reason.KEY_ID),
    ("kid empty", headed(kid=""), Reason.KEY_ID),
    ("kid a number", headed(kid=1), Reason.KEY_ID),
    ("kid a list", headed(kid=["access-1"]), Reason.KEY_ID),
    ("kid an object", headed(kid={}), Reason.KEY_ID),
    ("kid oversize", headed(kid="k" * 257), Reason.KEY_ID),
    ("kid a path", headed(kid="../../../../dev/null"), Reason.UNKNOWN_KEY),
    ("kid SQL", headed(kid="x' UNION SELECT 'key';--"), Reason.UNKNOWN_KEY),
    ("kid a command", headed(kid="|/bin/true"), Reason.UNKNOWN_KEY),
    ("kid with NUL", headed(kid="access-1\0"), Reason.UNKNOWN_KEY),
    ("kid in other case", headed(kid="ACCESS-1"), Reason.UNKNOWN_KEY),
    ("kid half a surrogate", raw_header(r'{"alg":"RS256","kid":"\ud800"}'), Reason.BAD_HEADER),
    # Keys of the set that are not for verifying access tokens.
    ("key with use=enc", published("enc"), Reason.UNKNOWN_KEY),
    ("key with key_ops encrypt", published("ops"), Reason.UNKNOWN_KEY),
    ("key with another alg", published("other-alg"), Reason.UNKNOWN_KEY),
    ("key too weak", published("weak"), Reason.UNKNOWN_KEY),
    ("kid of two keys", published("twin"), Reason.UNKNOWN_KEY),
    ("key without a kid", published("unnamed"), Reason.UNKNOWN_KEY),
    # Extensions.
    ("unknown crit", headed(crit=["exp"], exp=LATER), Reason.CRITICAL_EXTENSION),
    ("empty crit", headed(crit=[]), Reason.CRITICAL_EXTENSION),
    ("crit not a list", headed(crit="b64"), Reason.CRITICAL_EXTENSION),
    ("b64 false", headed(crit=["b64"], b64=False), Reason.CRITICAL_EXTENSION),
    ("b64 false without crit", headed(b64=False), Reason.CRITICAL_EXTENSION),
    # Shape.
    ("two parts", lambda f: f.access_token().rpartition(".")[0], Reason.NOT_THREE_PARTS),
    ("four parts", lambda f: f.access_token() + ".AAAA", Reason.NOT_THREE_PARTS),
    ("JWE", jwe, Reason.NOT_THREE_PARTS),
    ("only dots", lambda f: "..", Reason.NOT_THREE_PARTS),
    ("padded", lambda f: f.access_token() + "==", Reason.NOT_THREE_PARTS),
    ("standard base64", lambda f: f.access_token().replace("-", "+") + "+/", Reason.NOT_THREE_PARTS),
    ("nested", nested, Reason.BAD_CLAIMS),
    ("64 KiB", claiming(padding="x" * 48_000), Reason.TOO_LARGE),
    ("just too large", lambda f: "a." + "b" * 16_381 + ".c", Reason.TOO_LARGE),
    ("header not JSON", raw_header("alg=RS256"), Reason.BAD_HEADER),
    ("header a list", raw_header('["alg","RS256"]'), Reason.BAD_HEADER),
    ("header a string", raw_header('"RS256"'), Reason.BAD_HEADER),
    ("header null", raw_header("null"), Reason.BAD_HEADER),
    ("header with two algs", raw_header('{"alg":"none","alg":"RS256","kid":"KID"}'), Reason.BAD_HEADER),
    ("header with two kids", raw_header('{"kid":"x","alg":"RS256","kid":"KID"}'), Reason.BAD_HEADER),
    ("header and more", raw_header('{"alg":"RS256","kid":"KID"}{}'), Reason.BAD_HEADER),
    ("header with NaN", raw_header('{"alg":"RS256","kid":"KID","x":NaN}'), Reason.BAD_HEADER),
    ("header not UTF-8", lambda f: f.access_token(b'{"alg":"RS256","kid":"\xff"}'), Reason.BAD_HEADER),
    ("header in UTF-16", encoded_header("utf-16"), Reason.BAD_HEADER),
    ("header with a BOM", encoded_header("utf-8-sig"), Reason.BAD_HEADER),
    ("header very deep", raw_header("[" * 5000), Reason.BAD_HEADER),
    ("header too deep", raw_header('{"alg":"RS256","kid":"KID","x":' + deep(32) + "}"), Reason.BAD_HEADER),
    ("typ not a string", headed(typ=["JWT"]), Reason.BAD_HEADER),
    ("cty a number", headed(cty=1), Reason.BAD_HEADER),
    ("x5t null", headed(x5t=None), Reason.BAD_HEADER),
    ("claims a list", lambda f: f.signed(b"[]"), Reason.BAD_CLAIMS),
    ("claims empty", lambda f: f.signed(b""), Reason.NOT_THREE_PARTS),
    ("claims very deep", lambda f: f.signed(b'{"a":' * 1500), Reason.BAD_CLAIMS),
    ("claims too deep", raw_claims('"version": 2', '"version": ' + deep(32)), Reason.BAD_CLAIMS),
    ("claims too deep in objects", raw_claims('"alice"', '{"a":' * 32 + "1" + "}" * 32), Reason.BAD_CLAIMS),
    ("two issuers", raw_claims('"iss"', '"iss": "https://evil.example", "iss"'), Reason.BAD_CLAIMS),
    ("two exps", raw_claims('"exp"', '"exp": 1, "exp"'), Reason.BAD_CLAIMS),
    ("duplicates below", raw_claims('"version": 2', '"version": {"a": 1, "a": 2}'), Reason.BAD_CLAIMS),
    ("sub half a surrogate", raw_claims('"alice"', r'"\ud800"'), Reason.BAD_CLAIMS),
    # Time.
    ("exp missing", claiming(exp=ABSENT), Reason.TIME_CLAIM),
    ("exp null", claiming(exp=None), Reason.TIME_CLAIM),
    ("exp a string", claiming(exp=str(LATER)), Reason.TIME_CLAIM),
    ("exp true", claiming(exp=True), Reason.TIME_CLAIM),
    ("exp a list", claiming(exp=[LATER]), Reason.TIME_CLAIM),
    ("exp NaN", claiming(exp=float("nan")), Reason.BAD_CLAIMS),
    ("exp Infinity", claiming(exp=float("inf")), Reason.BAD_CLAIMS),
    ("exp 1e999", raw_claims('"exp": 1800003600', '"exp": 1e999'), Reason.TIME_CLAIM),
    ("exp of 400 digits", claiming(exp=10**400), Reason.TIME_CLAIM),
    ("exp of 5000 digits", raw_claims("1800003600", "9" * 5000), Reason.BAD_CLAIMS),
    ("exp in milliseconds", claiming(exp=LATER * 1000), Reason.TIME_CLAIM),
    ("exp negative", claiming(exp=-1), Reason.TIME_CLAIM),
    ("exp zero", claiming(exp=0, iat=ABSENT), Reason.EXPIRED),
    ("expired", at(exp=-61, iat=-3600), Reason.EXPIRED),
    ("expired to the second", at(exp=-60, iat=-3600), Reason.EXPIRED),
    ("iat in the future", at(iat=61), Reason.NOT_YET_VALID),
    ("iat after exp", at(exp=30, iat=40), Reason.TIME_CLAIM),
    ("iat a string", claiming(iat="1"), Reason.TIME_CLAIM),
    ("iat true", claiming(iat=True), Reason.TIME_CLAIM),
    ("nbf in the future", at(nbf=61), Reason.NOT_YET_VALID),
    ("nbf a string", claiming(nbf="0"), Reason.TIME_CLAIM),
    ("nbf null", claiming(nbf=None), Reason.TIME_CLAIM),
    # Issuer.
    ("iss missing", claiming(iss=ABSENT), Reason.ISSUER),
    ("iss null", claiming(iss=None), Reason.ISSUER),
    ("iss empty", claiming(iss=""), Reason.ISSUER),
    ("iss of another", claiming(iss="https://evil.example"), Reason.ISSUER),
    ("iss a prefix", issuer_as(lambda i: i[:-1]), Reason.ISSUER),
    ("iss with more behind", issuer_as(lambda i: i + ".evil.example"), Reason.ISSUER),
    ("iss with a slash", issuer_as(lambda i: i + "/"), Reason.ISSUER),
    ("iss in capitals", issuer_as(str.upper), Reason.ISSUER),
    ("iss a list", issuer_as(lambda i: [i]), Reason.ISSUER),
    ("iss an object", issuer_as(lambda i: {i: 1}), Reason.ISSUER),
    # Other kinds of tokens, other clients.
    ("ID token", Forge.id_token, Reason.NOT_AN_ACCESS_TOKEN),
    ("ID token with our scope", scoped_id_token, Reason.NOT_AN_ACCESS_TOKEN),
    ("logout token", Forge.logout_token, Reason.NOT_AN_ACCESS_TOKEN),
    ("token_use missing", claiming(token_use=ABSENT), Reason.NOT_AN_ACCESS_TOKEN),
    ("token_use a list", claiming(token_use=["access"]), Reason.NOT_AN_ACCESS_TOKEN),
    ("token_use refresh", claiming(token_use="refresh"), Reason.NOT_AN_ACCESS_TOKEN),
    ("typ of a logout token", headed(typ="logout+jwt"), Reason.NOT_AN_ACCESS_TOKEN),
    ("typ of a DPoP proof", headed(typ="dpop+jwt"), Reason.NOT_AN_ACCESS_TOKEN),
    ("other client", claiming(client_id="other"), Reason.CLIENT),
    ("client missing", claiming(client_id=ABSENT), Reason.CLIENT),
    ("client only in aud", claiming(client_id=ABSENT, aud="web-client"), Reason.CLIENT),
    ("client a list", claiming(client_id=["web-client"]), Reason.CLIENT),
    ("client a prefix", claiming(client_id="web"), Reason.CLIENT),
    ("aud a number", claiming(aud=1), Reason.AUDIENCE),
    ("aud a list of numbers", claiming(aud=[1]), Reason.AUDIENCE),
    # Claims of the wrong type.
    ("scope a list", claiming(scope=["api://weather/access"]), Reason.MALFORMED_CLAIM),
    ("scope null", claiming(scope=None), Reason.MALFORMED_CLAIM),
    ("groups a string", claiming(**{"cognito:groups": "admins"}), Reason.MALFORMED_CLAIM),
    ("groups of objects", claiming(**{"cognito:groups": [{}]}), Reason.MALFORMED_CLAIM),
    ("sub missing", claiming(sub=ABSENT), Reason.MALFORMED_CLAIM),
    ("sub empty", claiming(sub=""), Reason.MALFORMED_CLAIM),
    ("sub a list", claiming(sub=[]), Reason.MALFORMED_CLAIM),
    ("username a number", claiming(username=1), Reason.MALFORMED_CLAIM),
]  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def strange_keys(issuer: LocalIssuer, forge: Forge) -> None:
    """Besides its own, the issuer publishes keys that must not verify an access token."""
    issuer.jwks = {
        "keys": [
            {"kty": "OKP", "crv": "Ed25519", "x": "AAAA", "kid": "okp", "use": "sig"},
            "no key at all",
            signer("enc").jwk(use="enc"),
            signer("ops").jwk(key_ops=["encrypt"], use=ABSENT),
            signer("other-alg").jwk(alg="RS384"),
            signer("weak", 1024).jwk(),
            signer("twin").jwk(),
            signer("other-twin").jwk(kid="twin"),
            signer("unnamed").jwk(kid=ABSENT),
            *forge.jwks()["keys"],
        ]
    }


@pytest.mark.parametrize(("make", "reason"), [row[1:] for row in ATTACKS], ids=[row[0] for row in ATTACKS])
def test_a_bad_token_is_refused(
    api: FlaskClient,
    forge: Forge,
    caplog: pytest.LogCaptureFixture,
    make: Make,
    reason: Reason,
) -> None:
    """It gets 401 and nothing more; the operator reads the true reason, and no token."""
    token = make(forge)
    with caplog.at_level(logging.DEBUG, "bff.resource_api"):
        answer = api.get("/weather", headers=bearer(token))
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == 'Bearer error="invalid_token"'
    assert answer.content_type == "application/problem+json"
    assert answer.get_json()["code"] == "invalid_token"
    (record,) = [record for record in caplog.records if "reason=" in record.getMessage()]
    assert record.levelno == logging.INFO
    assert f"reason={reason.value} " in record.getMessage()
    assert str(reason) not in answer.text
    longest = max(token.split("."), key=len)
    assert len(longest) < 20 or longest not in caplog.text + answer.text


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"scope": "api://weather/access.write"}, "a scope that begins like ours"),
        ({"scope": "api://weather"}, "a beginning of our scope"),
        ({"scope": "API://WEATHER/ACCESS"}, "other case"),
        ({"scope": "openid\tapi://weather/access"}, "a tab is no separator"),
        ({"scope": "openid\u00a0api://weather/access"}, "nor is a no-break space"),
        ({"scope": "openid,api://weather/access"}, "nor is a comma"),
        ({"scope": ""}, "no scope"),
        ({"scope": ABSENT}, "no scope claim"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_scope_is_an_exact_member(api: FlaskClient, forge: Forge, changes: dict[str, Any], why: str) -> None:
    """A valid token without the very scope gets 403, which names the scope."""
    answer = api.get("/weather", headers=bearer(forge.access_token(**changes)))
    assert answer.status_code == 403, why
    assert answer.headers["WWW-Authenticate"] == (
        'Bearer error="insufficient_scope", scope="api://weather/access"'
    )


@pytest.mark.parametrize(
    "make",
    [
        claiming(),
        at(exp=-59, iat=-3600),
        at(iat=60),
        at(nbf=60),
        at(exp=0.5, iat=-0.5),
        claiming(iat=ABSENT),
        claiming(username=ABSENT),
        claiming(**{"cognito:groups": ABSENT}),
        claiming(scope="api://weather/access"),
        claiming(scope="a  api://weather/access "),
        claiming(aud="https://elsewhere.example"),
        headed(typ="JWT"),
        headed(typ="at+jwt"),
        headed(x5t="thumbprint"),
        headed(x=json.loads(deep(31))),
        raw_claims('"version": 2', '"version": ' + deep(31)),
        claiming(version=[[]] * 40, nickname="[{" * 100),
    ],
)
def test_a_good_token_passes(api: FlaskClient, forge: Forge, make: Make) -> None:
    """What the standards and Cognito allow is accepted: the table above proves nothing otherwise."""
    answer = api.get("/weather", headers=bearer(make(forge)))
    assert answer.status_code == 200, answer.text


def test_no_depth_is_too_deep_for_us(api: FlaskClient, forge: Forge) -> None:
    """Parsing ends somewhere below Python's recursion limit, and nobody gets further than that."""
    for levels in range(880, 1000):
        header = '{"alg":"RS256","kid":"access-1","x":' + deep(levels) + "}"
        token = compact(header.encode(), forge.access_claims(), lambda _: b"junk")
        assert api.get("/weather", headers=bearer(token)).status_code == 401, levels


def test_no_attack_costs_much(api: FlaskClient, forge: Forge) -> None:
    """A flood of refusals is cheap: none of them waits for anything."""
    tokens = [make(forge) for _, make, _ in ATTACKS]
    began = Stopwatch()
    for token in tokens:
        api.get("/weather", headers=bearer(token))
    assert began.own < 5
