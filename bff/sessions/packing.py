"""Tokens in three quarters of their room: what is base64url is kept as the bytes that it stands for. Pure.

A session is mostly its tokens, and Redis keeps them all in memory.
"""

from __future__ import annotations

import base64
import binascii
import zlib

import msgspec

from bff.tokens import TokenSet

_URL_SAFE = bytes.maketrans(b"+/", b"-_")

_RAW = -15
_CLAIMS = (
    "address birthdate gender locale zoneinfo website profile picture middle_name updated_at "
    "phone_number_verified phone_number groups roles sid acr amr auth_time cognito:groups cognito:username "
    "nickname family_name given_name preferred_username name email_verified email sub"
)
_EXPECTED = msgspec.msgpack.encode(
    {
        "claims": [{"type": name, "value": True} for name in _CLAIMS.split()],
        "hint": "",
        "browser": "Firefox on Windows Safari on iOS Edge Chrome on Linux macOS Android",
        "address": "192.168.",
    }
)
"""What the description of a user looks like: what is in here need not be in each session. Never to be
changed, or sessions that were written before do not open."""

Packed = str | list[bytes] | None


class PackedTokens(msgspec.Struct, frozen=True, array_like=True):
    """A TokenSet as it lies in Redis."""

    access_token: Packed
    obtained_at: float
    expires_at: float | None
    refresh_token: Packed
    refresh_expires_at: float | None
    id_token: Packed
    scope: str
    nonce: bytes | None = None


def pack_tokens(tokens: TokenSet) -> PackedTokens:
    """A token set with its tokens packed."""
    return PackedTokens(
        pack(tokens.access_token),
        tokens.obtained_at,
        tokens.expires_at,
        pack(tokens.refresh_token),
        tokens.refresh_expires_at,
        pack(tokens.id_token),
        tokens.scope,
        tokens.nonce,
    )


def unpack_tokens(packed: PackedTokens) -> TokenSet:
    """What was packed. Raises ValueError where there is no access token."""
    access_token = unpack(packed.access_token)
    if access_token is None:
        raise ValueError("no access token")
    return TokenSet(
        access_token=access_token,
        obtained_at=packed.obtained_at,
        expires_at=packed.expires_at,
        refresh_token=unpack(packed.refresh_token),
        refresh_expires_at=packed.refresh_expires_at,
        id_token=unpack(packed.id_token),
        scope=packed.scope,
        nonce=packed.nonce,
    )


def pack(token: str | None) -> Packed:
    """The parts between dots as bytes (JWS, JWE); the text itself where that would not bring it back."""
    if token is None:
        return None
    try:
        parts = [_decode(part) for part in token.split(".")]
    except (binascii.Error, ValueError):
        return token
    return parts if _join(parts) == token else token


def unpack(packed: Packed) -> str | None:
    """The text of a packed token."""
    return _join(packed) if isinstance(packed, list) else packed


def _join(parts: list[bytes]) -> str:
    # On the way of every proxied request: half the time of base64.urlsafe_b64encode.
    encoded = [binascii.b2a_base64(part, newline=False).rstrip(b"=") for part in parts]
    return b".".join(encoded).translate(_URL_SAFE).decode("ascii")


def _decode(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def compress(plain: bytes) -> bytes:
    """What is read seldom, smaller. (Nothing secret and nothing that an attacker chooses share it.)"""
    work = zlib.compressobj(9, wbits=_RAW, zdict=_EXPECTED)
    return work.compress(plain) + work.flush()


def decompress(packed: bytes) -> bytes:
    """What was compressed; also by earlier versions, which expected nothing. Raises ValueError."""
    work = zlib.decompressobj(_RAW, zdict=_EXPECTED)
    try:
        plain = work.decompress(packed)
    except zlib.error:
        raise ValueError("not compressed data") from None
    if not work.eof or work.unused_data:
        raise ValueError("not compressed data")
    return plain
