"""Tokens packed: every text comes back exactly as it was."""

from __future__ import annotations

import secrets

import msgspec
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


WHO = msgspec.msgpack.encode({"claims": [{"type": "email", "value": "golden@example.com"}], "hint": "golden"})


@pytest.mark.parametrize(
    "packed",
    [
        "6b5a969c9398995b3cb16949496541ead2d4dcc4cc9ca5658939a5a99bd2f3735252f31c522b12730b7252f592f373976464e6952c83880300",
        "6b82a6f489980eda949e9f93929ae7905a91985b9093aa979c9f0b76d132883800",
    ],
)
def test_compressed_yesterday(packed: str) -> None:
    """Sessions of earlier versions open: what is expected in them may never change."""
    assert decompress(bytes.fromhex(packed)) == WHO


def test_what_is_expected_takes_no_room() -> None:
    """That is what it is for: the names of the claims are in no session."""
    assert len(compress(WHO)) < 40 < len(WHO) * 0.7


@pytest.mark.parametrize(
    "packed", [b"\xff\xff\xff", b"", compress(b"x" * 90)[:-1], compress(b"x") + b"y"], ids=ascii
)
def test_what_is_not_compressed(packed: bytes) -> None:
    """Refused as an altered record is, and never read in part."""
    with pytest.raises(ValueError, match="compressed"):
        decompress(packed)
