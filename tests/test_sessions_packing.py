"""Tokens packed: every text comes back exactly as it was."""

from __future__ import annotations

import secrets

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bff.sessions.packing import compress, decompress, pack, pack_tokens, unpack, unpack_tokens
from bff.tokens import TokenSet

B64 = st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_", max_size=24)


@given(st.one_of(st.text(max_size=40), st.lists(B64, max_size=6).map(".".join), st.none()))
def test_every_token_comes_back(token: str | None) -> None:
    """Whatever a provider calls a token: JWS, JWE, random, or with padding, blanks and umlauts in it."""
    assert unpack(pack(token)) == token


@pytest.mark.parametrize("token", ["a.b.c", "YQ==", "YQ=", "YR", "a b", "", ".", "..", "+/", "YQ.\n", "YQ\n"])
def test_tokens_that_only_look_packed(token: str) -> None:
    """What is not base64url in its one canonical form is kept as text."""
    assert unpack(pack(token)) == token


def test_a_jws_takes_three_quarters() -> None:
    """That is what packing is for."""
    token = ".".join(secrets.token_urlsafe(size) for size in (60, 600, 256))
    packed = pack(token)
    assert isinstance(packed, list)
    assert sum(map(len, packed)) == 916


def test_a_whole_set_comes_back() -> None:
    """With everything that a set can hold, and with as little as it may."""
    full = TokenSet(
        access_token="YQ.YQ.YQ",
        obtained_at=1.5,
        expires_at=2.5,
        refresh_token="opaque!",
        refresh_expires_at=3.5,
        id_token="YQ.YQ.",
        scope="a b",
    )
    for tokens in (full, TokenSet(access_token="x", obtained_at=1.0)):
        assert unpack_tokens(pack_tokens(tokens)) == tokens


@given(st.binary(max_size=200))
def test_compression(plain: bytes) -> None:
    """What was compressed comes back; anything else is refused and never half read."""
    assert decompress(compress(plain)) == plain


def test_what_is_not_compressed() -> None:
    """Refused as an altered record is."""
    with pytest.raises(ValueError, match="compressed"):
        decompress(b"\xff\xff\xff")
