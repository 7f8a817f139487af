"""Sealed records open at their own place, under their own key, unaltered, and nowhere else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bff.sealing import KEY_BYTES, Keyring, NotAuthentic, UnknownKey, new_key, parse_key
from tests.fakes import KEY, OTHER_KEY

RING = Keyring([KEY])
GOLDEN = bytes.fromhex(
    "010c93b8b407f2e5353c50c9ecee9f34b46ffaf3727acdb77252a701c5832af1c5c1953558ad1b8d347125969ee4a5f1"
)


@given(st.binary(max_size=200), st.binary(max_size=50))
def test_what_was_sealed_opens(plaintext: bytes, associated: bytes) -> None:
    """Any bytes come back as they went in, at any place."""
    assert RING.open("p", RING.seal("p", plaintext, associated), associated) == plaintext


def test_a_record_of_the_first_version_still_opens() -> None:
    """A change of the format or of the key derivation would sign everybody out: it must not go unseen."""
    assert RING.open("session", GOLDEN, b"place") == b"a golden record"


def test_two_seals_of_one_text_differ() -> None:
    """Nonces are fresh: equal contents cannot be told from outside."""
    assert RING.seal("p", b"same", b"") != RING.seal("p", b"same", b"")


def test_no_bit_of_a_record_can_be_flipped() -> None:
    """Version, key id, nonce, ciphertext and tag are all authenticated."""
    record = RING.seal("p", b"secret", b"place")
    for position in range(len(record)):
        altered = bytearray(record)
        altered[position] ^= 1
        with pytest.raises((NotAuthentic, UnknownKey)):
            RING.open("p", bytes(altered), b"place")


@pytest.mark.parametrize(
    ("purpose", "associated"),
    [("other", b"place"), ("p", b"elsewhere"), ("p", b""), ("p", b"place\0")],
)
def test_a_moved_record_does_not_open(purpose: str, associated: bytes) -> None:
    """Another purpose or another place is another record."""
    with pytest.raises(NotAuthentic):
        RING.open(purpose, RING.seal("p", b"secret", b"place"), associated)


@pytest.mark.parametrize("length", [0, 1, 4, 5, 16, 17, 32])
def test_a_truncated_record_is_refused(length: int) -> None:
    """However short a record is, the answer is the same and no crash."""
    with pytest.raises(NotAuthentic):
        RING.open("p", RING.seal("p", b"", b"")[:length], b"")


def test_an_unknown_version_is_not_ours() -> None:
    """The version byte is checked before anything is believed."""
    with pytest.raises(NotAuthentic):
        RING.open("p", b"\x02" + RING.seal("p", b"x", b"")[1:], b"")


def test_rotation_the_first_key_seals_and_all_open() -> None:
    """A new key in front takes over; records of the old one still open, until it is removed."""
    old = RING.seal("p", b"old", b"")
    both = Keyring([OTHER_KEY, KEY])
    new = both.seal("p", b"new", b"")
    assert both.open("p", old, b"") == b"old"
    assert Keyring([OTHER_KEY]).open("p", new, b"") == b"new"
    with pytest.raises(UnknownKey):
        RING.open("p", new, b"")
    with pytest.raises(UnknownKey):
        Keyring([OTHER_KEY]).open("p", old, b"")


def test_fingerprints_are_keyed_and_by_purpose() -> None:
    """Without the key nobody can test guesses; look-ups work with old keys too."""
    both = Keyring([OTHER_KEY, KEY])
    assert both.fingerprints("p", b"sid")[1:] == RING.fingerprints("p", b"sid")
    assert RING.fingerprints("p", b"sid") != RING.fingerprints("q", b"sid")
    assert len({*both.fingerprints("p", b"sid"), *both.fingerprints("p", b"other")}) == 4


def test_repr_shows_no_key() -> None:
    """A keyring in a log line or a traceback gives nothing away."""
    assert repr(RING) == "<Keyring of 1>"


def test_new_keys_are_random_and_readable() -> None:
    """Each is 32 fresh bytes in the form that the setting takes."""
    keys = {parse_key(new_key()) for _ in range(20)}
    assert len(keys) == 20
    assert {len(key) for key in keys} == {KEY_BYTES}


@pytest.mark.parametrize(
    "text",
    ["", "short", "A" * 42, "A" * 44, "A" * 86, "A" * 42 + "*", "é" * 43, "A" * 20 + "\n" + "A" * 22, "==="],
)
def test_bad_keys_are_refused_without_quoting_them(text: str) -> None:
    """A mistyped key is nearly a key: its text must not reach a log."""
    with pytest.raises(ValueError) as caught:
        parse_key(text)
    assert "bff keys new" in str(caught.value)
    assert not text or text not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("masters", [[], [b"x" * 31], [KEY, b""], [KEY + b"x"]])
def test_a_keyring_takes_whole_keys_only(masters: list[bytes]) -> None:
    """No key, or one of another length, is an error at the start and not a weak seal later."""
    with pytest.raises(ValueError, match="32 bytes"):
        Keyring(masters)
