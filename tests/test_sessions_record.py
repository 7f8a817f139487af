"""How a session lies in Redis: names that give nothing away, and seals bound to their place."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bff.errors import StoreUnavailable
from bff.sealing import Keyring
from bff.sessions.record import (
    CORE,
    Codec,
    Meta,
    SessionRecord,
    digest,
    logout_sid,
    new_sid,
    sid_name,
    user_hash,
    well_formed,
)
from bff.tokens import TokenSet
from tests.fakes import KEY, OTHER_KEY

CODEC = Codec(Keyring([KEY]), "bff:")
TOKENS = TokenSet(access_token="access", obtained_at=1000.0, expires_at=1300.0, refresh_token="refresh")
META = msgspec.msgpack.encode(Meta(created=1000.0, auth_time=999.0, user="u" * 64))


def hash_of(key: str, codec: Codec = CODEC, data: dict[str, Any] | None = None) -> dict[bytes, bytes]:
    """The fields of a session as they lie in Redis."""
    fields = {b"m": META, b"s": b"1000.0", b"g": b"1", b"t": codec.seal_tokens(key, META, TOKENS)}
    for name, value in (data or {"claims": [1, "x"]}).items():
        field = b"d:" + name.encode()
        fields[field] = codec.seal_data(key, field, META, value)
    return fields


ONE, TWO = CODEC.key(digest("one")), CODEC.key(digest("two"))


def test_session_ids_are_256_random_bits() -> None:
    """43 characters that fit into a cookie, and no two alike."""
    sids = {new_sid() for _ in range(100)}
    assert len(sids) == 100
    assert all(well_formed(sid) for sid in sids)


@pytest.mark.parametrize(
    "sid",
    [
        "",
        "a" * 42,
        "a" * 44,
        "a" * 42 + "=",
        "a" * 42 + ".",
        "a" * 42 + "\n",
        "a" * 43 + "\n",
        "\n" + "a" * 43,
    ]
    + ["é" * 43, "a" * 42 + "/", " " + "a" * 42, "a" * 100_000, "{" + "a" * 42],
    ids=lambda sid: ascii(sid[:50]),
)
def test_what_cannot_be_an_id_is_not_even_looked_up(sid: str) -> None:
    """Length and alphabet are checked before anything is hashed."""
    assert not well_formed(sid)


def test_names_are_one_way_and_differ_by_purpose() -> None:
    """Neither the name in Redis nor the sign-out link's sid opens a session or leads to the other."""
    sid = new_sid()
    names = {sid, digest(sid), logout_sid(sid)}
    assert len(names) == 3
    assert digest(sid) == hashlib.sha256(sid.encode()).hexdigest()
    assert len(logout_sid(sid)) == 64


@given(st.text(max_size=8), st.text(max_size=8), st.text(max_size=8), st.text(max_size=8))
def test_no_two_users_share_a_hash(issuer: str, subject: str, other_issuer: str, other_subject: str) -> None:
    """Blanks in an issuer or a subject cannot make one pair look like another."""
    same = (issuer, subject) == (other_issuer, other_subject)
    assert (user_hash(issuer, subject) == user_hash(other_issuer, other_subject)) is same


def test_pairs_that_read_the_same_are_kept_apart() -> None:
    """The boundary between issuer and subject counts."""
    assert user_hash("a b", "c") != user_hash("a", "b c")


def test_a_session_of_the_provider_has_a_short_name() -> None:
    """128 bits of its keyed hash, as base64url; the whole hash of earlier versions counts as the same."""
    whole = Keyring([KEY]).fingerprints("provider sid", b"one")[0]
    name = sid_name(whole)
    assert base64.urlsafe_b64decode(name + "==") == bytes.fromhex(whole)[:16]
    assert len(name) == 22
    assert sid_name(name) == name
    old, new, other = (Meta(1.0, 1.0, "u", sids) for sids in ((whole,), (name,), ("x" * 22,)))
    assert old.shares_provider_session(new)
    assert not new.shares_provider_session(other)


def test_all_keys_of_a_session_share_a_slot() -> None:
    """The digest is the hash tag, whatever the prefix is."""
    assert f"bff:{{{digest('one')}}}" == ONE


def test_a_record_comes_back() -> None:
    """Every field, as it was written."""
    record = CODEC.read(ONE, hash_of(ONE))
    assert record == SessionRecord(
        key=ONE,
        head=META,
        meta=Meta(created=1000.0, auth_time=999.0, user="u" * 64),
        last_seen=1000.0,
        generation=1,
        tokens=TOKENS,
        data={"claims": [1, "x"]},
    )


def test_repr_shows_no_token_and_no_claim() -> None:
    """A record in a log line or a traceback gives nothing away."""
    record = CODEC.read(ONE, hash_of(ONE, data={"hint": "alice@example.com"}))
    assert repr(record) == "<SessionRecord generation=1>"


@pytest.mark.parametrize("missing", [b"m", b"s", b"g", b"t"])
def test_half_a_record_is_none(missing: bytes) -> None:
    """What lacks a field is no session: nobody is signed in by it."""
    fields = hash_of(ONE)
    del fields[missing]
    assert CODEC.read(ONE, fields) is None
    assert CODEC.read(ONE, {}) is None


OTHER_META = msgspec.msgpack.encode(Meta(created=1e12, auth_time=999.0, user="v" * 64))


@pytest.mark.parametrize(
    "change",
    [
        {b"t": hash_of(TWO)[b"t"]},
        {b"t": hash_of(ONE)[b"d:claims"]},
        {b"d:claims": hash_of(TWO)[b"d:claims"]},
        {b"d:claims": hash_of(ONE)[b"t"]},
        {b"d:hint": hash_of(ONE)[b"d:claims"]},
        {b"m": OTHER_META},
        {b"m": META + b" "},
        {b"m": b"{}"},
        {b"m": b"\xff"},
        {b"t": b""},
        {b"t": b"plain"},
        {b"t": hash_of(ONE)[b"t"][:-1]},
        {b"d:\xff": b"x"},
        {b"d:claims": b""},
        {b"s": b"soon"},
        {b"g": b"first"},
        {b"g": b"1.5"},
    ],
)
def test_swapped_and_altered_fields_do_not_open(change: dict[bytes, bytes]) -> None:
    """Whoever can write to Redis cannot move tokens, claims or metadata from one place to another."""
    with pytest.raises(StoreUnavailable) as caught:
        CODEC.read(ONE, hash_of(ONE) | change)
    assert "altered" in caught.value.reason
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    "change", [{b"m": OTHER_META}, {b"m": META + b" "}, {b"t": hash_of(TWO)[b"t"]}, {b"t": b""}]
)
def test_what_was_opened_before_vouches_for_nothing_else(change: dict[bytes, bytes]) -> None:
    """Tokens stay open for the very bytes that they were opened from, under the same key."""
    codec, fields = Codec(Keyring([KEY]), "bff:"), hash_of(ONE)

    def read(key: str, fields: dict[bytes, bytes]) -> SessionRecord:
        return codec.read_core(key, *(fields[name] for name in CORE))

    first = read(ONE, fields)
    assert read(ONE, fields) == first
    for key, others in ((ONE, fields | change), (TWO, fields)):
        with pytest.raises(StoreUnavailable):
            read(key, others)
    assert read(ONE, fields) == first


def test_what_stays_open_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that were opened last stay, and a session takes one place, however often its tokens change."""
    monkeypatch.setattr("bff.sessions.record.OPENED", 2)
    codec, three = Codec(Keyring([KEY]), "bff:"), f"bff:{{{digest('three')}}}"
    for key in (ONE, TWO, ONE, three, three):
        codec.read(key, hash_of(key))
    assert list(codec._opened) == [ONE, three]


def test_a_record_under_another_key_of_redis_does_not_open() -> None:
    """A whole hash copied to another session's key opens nothing."""
    with pytest.raises(StoreUnavailable):
        CODEC.read(TWO, hash_of(ONE))


def test_pickled_data_is_not_loaded() -> None:
    """Data of another writer is refused as altered: no decoder of ours runs code."""
    fields = hash_of(ONE) | {b"d:claims": b"cos\nsystem\n(S'true'\ntR."}
    with pytest.raises(StoreUnavailable):
        CODEC.read(ONE, fields)


def test_a_missing_key_is_told_from_an_altered_record() -> None:
    """The operator reads that the key must be put back; the caller reads nothing of it."""
    other = Codec(Keyring([OTHER_KEY]), "bff:")
    with pytest.raises(StoreUnavailable) as caught:
        other.read(ONE, hash_of(ONE))
    assert "BFF_SECRET_KEYS" in caught.value.reason
    assert "KEYS" not in caught.value.detail
    both = Codec(Keyring([OTHER_KEY, KEY]), "bff:")
    assert both.read(ONE, hash_of(ONE)) is not None


@given(
    st.dictionaries(
        st.sampled_from([b"m", b"s", b"g", b"t", b"d:claims", b"d:x", b"d:", b"z"]),
        st.one_of(st.binary(max_size=40), st.sampled_from(list(hash_of(ONE).values()))),
    )
)
def test_no_hash_crashes_the_reader(fields: dict[bytes, bytes]) -> None:
    """Whatever lies in Redis is a session, none, or StoreUnavailable: never another error."""
    try:
        record = CODEC.read(ONE, fields)
    except StoreUnavailable:
        return
    assert record is None or record.tokens == TOKENS
