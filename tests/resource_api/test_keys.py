"""Which keys of a published set are used: a hostile or sloppy set costs nothing but its own keys."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bff.resource_api.jwt.compact import Inspected, inspect
from bff.resource_api.jwt.compact import decode_base64url as b64decoded
from bff.resource_api.jwt.keys import MAX_MODULUS_BITS, build_key_set, verify_signature
from bff.resource_api.jwt.model import Reason, TokenRefused
from tests.forge import ABSENT, Forge, b64, compact, number, signer
from tests.resource_api.test_fuzz import JSON
from tests.support.stopwatch import Stopwatch

GOOD = "access-1"
RS256 = frozenset({"RS256"})


def used(*jwks: Any, algorithms: frozenset[str] = RS256) -> set[tuple[str, str]]:
    """The kids and algs of the keys that are taken from this set."""
    return set(build_key_set(jwks, algorithms))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"use": ABSENT},
        {"alg": ABSENT},
        {"key_ops": ["verify"]},
        {"use": ABSENT, "key_ops": ["encrypt", "verify"]},
        {"kid": "k" * 256},
        {"kid": "../../etc/passwd"},
        {"x5c": ["MIIB"], "x5t": "x", "x5u": "https://evil.example/"},
    ],
)
def test_a_usable_key_is_used(changes: dict[str, Any]) -> None:
    """What RFC 7517 leaves open is left open; members that nobody asked for are passed over."""
    key_id = str(changes.get("kid", GOOD))
    assert used(signer(GOOD).jwk(**changes)) == {(key_id, "RS256")}


UNUSABLE: list[dict[str, Any]] = [
    {"kty": "EC"},
    {"kty": "oct", "k": "AAAA"},
    {"kty": "OKP"},
    {"kty": None},
    {"kty": ["RSA"]},
    {"use": "enc"},
    {"use": None},
    {"use": ["sig"]},
    {"use": "SIG"},
    {"key_ops": ["sign"]},
    {"key_ops": []},
    {"key_ops": "verify"},
    {"key_ops": None},
    {"key_ops": [{"verify": 1}]},
    {"alg": "HS256"},
    {"alg": "none"},
    {"alg": "RS384"},
    {"alg": "RSA-OAEP"},
    {"alg": ""},
    {"alg": ["RS256"]},
    {"alg": {"RS256": 1}},
    {"kid": ABSENT},
    {"kid": ""},
    {"kid": None},
    {"kid": 1},
    {"kid": ["a"]},
    {"kid": "k" * 257},
    {"n": ABSENT},
    {"n": ""},
    {"n": 3},
    {"n": "!"},
    {"n": "AAAAA"},
    {"n": "ä"},
    {"n": "\0"},
    {"n": number(2**2048 - 2)},
    {"n": number(2**1023 + 1)},
    {"n": number(2**MAX_MODULUS_BITS + 1)},
    {"n": number(2**200_000 + 1)},
    {"e": ABSENT},
    {"e": ""},
    {"e": "AQ"},
    {"e": "AA"},
    {"e": number(2)},
    {"e": number(65536)},
    {"e": number(2**32 + 1)},
    {"e": number(2**2047 + 1)},
    {"e": 65537},
    {"e": [1]},
]


@pytest.mark.parametrize("changes", UNUSABLE, ids=lambda changes: json.dumps(changes, default=str)[:40])
def test_an_unusable_key_is_left_out(changes: dict[str, Any]) -> None:
    """And the good one beside it is used all the same, whichever comes first."""
    bad, good = signer("bad").jwk(**changes), signer(GOOD).jwk()
    assert used(bad, good) == used(good, bad) == {(GOOD, "RS256")}


@pytest.mark.parametrize("entry", [None, True, 1, "RSA", [], ["RSA"], {}, {"keys": []}, {"kty": {}}])
def test_what_is_no_key_is_left_out(entry: Any) -> None:
    """A set can hold anything at all."""
    assert used(entry, signer(GOOD).jwk()) == {(GOOD, "RS256")}


def test_a_private_key_is_used_as_a_public_one() -> None:
    """An issuer that publishes its private key by mistake gets no further with us than the public part."""
    private = signer(GOOD).key.private_numbers()
    jwk = signer(GOOD).jwk(d=number(private.d), p=number(private.p), q=number(private.q))
    assert used(jwk) == {(GOOD, "RS256")}
    (key,) = build_key_set([jwk], RS256).values()
    assert "PRIVATE" not in key.key.to_pem().decode()


def test_one_kid_for_two_keys_is_nobody_s() -> None:
    """Neither can be the one that was meant; a repeated key is no second one."""
    one, two = signer(GOOD).jwk(), signer("other").jwk(kid=GOOD)
    assert used(one, two) == used(one, two, one) == set()
    assert used(one, one) == {(GOOD, "RS256")}


def test_two_spellings_of_one_key_are_one_key() -> None:
    """A zero in front changes nothing: the numbers are compared, not their text."""
    plain = signer(GOOD).jwk()
    padded = {name: b64(b"\0" + b64decoded(plain[name])) for name in ("n", "e")}
    assert used(plain, {**plain, **padded}) == {(GOOD, "RS256")}
    token = inspect(Forge("https://i.example").access_token(), RS256)
    for jwks in ([plain], [{**plain, **padded}], [plain, {**plain, "n": padded["n"]}]):
        verify_signature(token, build_key_set(jwks, RS256)[(GOOD, "RS256")])


def test_a_header_that_only_the_library_finds_too_deep() -> None:
    """It parses the header once more: what breaks it there is a bad token, too."""
    key = build_key_set([signer(GOOD).jwk()], RS256)[(GOOD, "RS256")]
    header = b'{"alg":"RS256","x":' + b"[" * 200_000 + b"]" * 200_000 + b"}"
    token = Inspected(compact(header, b"{}", lambda _: b"x"), {}, {}, "RS256", GOOD)
    with pytest.raises(TokenRefused) as refused:
        verify_signature(token, key)
    assert refused.value.reason is Reason.SIGNATURE


def test_a_key_is_for_its_algorithm_alone() -> None:
    """A token under one algorithm is not verified with the key for another."""
    both = frozenset({"RS256", "RS512"})
    keys = build_key_set([signer(GOOD).jwk(alg=ABSENT)], both)
    assert set(keys) == {(GOOD, "RS256"), (GOOD, "RS512")}
    token = inspect(Forge("https://i.example").access_token(), both)
    verify_signature(token, keys[(GOOD, "RS256")])
    with pytest.raises(TokenRefused) as refused:
        verify_signature(token, keys[(GOOD, "RS512")])
    assert refused.value.reason is Reason.ALGORITHM


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        JSON
        | st.fixed_dictionaries(
            {"kty": st.just("RSA"), "kid": st.text(min_size=1, max_size=4)},
            optional={
                "n": st.binary(max_size=1100).map(b64) | st.integers(2**2047, 2**2049).map(number) | JSON,
                "e": st.integers(0, 2**33).map(number) | JSON,
                "alg": st.sampled_from(["RS256", "HS256"]) | JSON,
                "use": st.just("sig") | JSON,
                "key_ops": JSON,
            },
        ),
        max_size=5,
    )
)
def test_no_set_breaks_the_reading(jwks: list[Any]) -> None:
    """Whatever is published, the good key beside it is used or found ambiguous, and nothing is raised."""
    assert (GOOD, "RS256") in used(*jwks, signer(GOOD).jwk())


def test_the_largest_set_is_read_in_no_time() -> None:
    """A hundred keys of the greatest size, and a verification with one of them."""
    jwks = [signer(GOOD).jwk(kid=str(n), n=number(2**MAX_MODULUS_BITS - 1 - 2 * n)) for n in range(100)]
    began = Stopwatch()
    keys = build_key_set(jwks, RS256)
    assert len(keys) == 100
    forge = Forge("https://i.example")
    for n in range(20):
        token = inspect(forge.access_token(forge.header(kid=str(n))), RS256)
        with pytest.raises(TokenRefused):
            verify_signature(token, keys[(str(n), "RS256")])
    assert began.own < 2
