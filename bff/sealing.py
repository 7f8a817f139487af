"""Sealed records: AES-256-GCM under keys derived by purpose, with the key's id in each record.

Layout of a record: version (1 byte) · key id (4) · nonce (12) · ciphertext and tag. The version and the
key id are authenticated together with the caller's associated data, so that a record can neither be
altered nor moved to another place (another Redis key, another field, another cookie) and still open.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
from collections.abc import Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

KEY_BYTES = 32
_VERSION = b"\x01"
_ID_BYTES = 4
_NONCE_BYTES = 12
_HEAD_BYTES = len(_VERSION) + _ID_BYTES
_SHORTEST = _HEAD_BYTES + _NONCE_BYTES + 16  # the tag of an empty plaintext


class UnknownKey(Exception):
    """The record was sealed under a key that is not configured (any more): putting it back heals it."""


class NotAuthentic(Exception):
    """The record was altered, moved, or never ours."""


class _Key:
    """One configured key with what is derived from it."""

    def __init__(self, master: bytes) -> None:
        self._master = master
        self._ciphers: dict[str, AESGCM] = {}
        self.id = self.derive("key id")[:_ID_BYTES]

    def derive(self, purpose: str) -> bytes:
        """A key for one purpose (RFC 5869): no two uses share one."""
        info = b"bff 1 " + purpose.encode()
        return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=info).derive(self._master)

    def cipher(self, purpose: str) -> AESGCM:
        if purpose not in self._ciphers:
            self._ciphers[purpose] = AESGCM(self.derive("seal " + purpose))
        return self._ciphers[purpose]


class Keyring:
    """Keys by age: the first seals, all open. Safe to share between threads."""

    def __init__(self, masters: Sequence[bytes]) -> None:
        """`masters` are 32 random bytes each, the newest first."""
        if not masters or any(len(master) != KEY_BYTES for master in masters):
            raise ValueError(f"a keyring needs keys of {KEY_BYTES} bytes")
        self._keys = [_Key(master) for master in masters]
        self._by_id = {key.id: key for key in reversed(self._keys)}

    def __repr__(self) -> str:
        return f"<Keyring of {len(self._keys)}>"

    def seal(self, purpose: str, plaintext: bytes, associated: bytes) -> bytes:
        """Seal `plaintext` so that only `open` with the same purpose and associated data reads it."""
        key = self._keys[0]
        head = _VERSION + key.id
        nonce = os.urandom(_NONCE_BYTES)
        return head + nonce + key.cipher(purpose).encrypt(nonce, plaintext, head + associated)

    def open(self, purpose: str, record: bytes, associated: bytes) -> bytes:
        """The plaintext of a record. Raises UnknownKey or NotAuthentic."""
        head, nonce = record[:_HEAD_BYTES], record[_HEAD_BYTES : _HEAD_BYTES + _NONCE_BYTES]
        if len(record) < _SHORTEST or not head.startswith(_VERSION):
            raise NotAuthentic
        key = self._by_id.get(head[len(_VERSION) :])
        if key is None:
            raise UnknownKey
        try:
            ciphertext = record[_HEAD_BYTES + _NONCE_BYTES :]
            return key.cipher(purpose).decrypt(nonce, ciphertext, head + associated)
        except InvalidTag:
            raise NotAuthentic from None

    def fingerprints(self, purpose: str, data: bytes) -> list[str]:
        """Keyed hashes of `data`, one for each key, the current one first (look-ups try them all)."""
        return [
            hmac.new(key.derive("hash " + purpose), data, hashlib.sha256).hexdigest() for key in self._keys
        ]


def new_key() -> str:
    """A fresh key as `BFF_SECRET_KEYS` takes it: 32 random bytes, base64url without padding."""
    return base64.urlsafe_b64encode(os.urandom(KEY_BYTES)).rstrip(b"=").decode()


def parse_key(text: str) -> bytes:
    """The bytes of a key as `new_key` prints it. Raises ValueError, without the text in it."""
    try:
        key = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("a key is not base64url; make one with `bff keys new`") from None
    if len(key) != KEY_BYTES:
        raise ValueError(f"a key has {len(key)} bytes instead of {KEY_BYTES}; make one with `bff keys new`")
    return key
