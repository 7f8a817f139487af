"""How a session lies in Redis: one hash, written and read the same way by both planes. Pure.

    {prefix}{SHA-256 of the session id}     the id itself is known to the cookie alone
      m     metadata, written once: when, how and by whom the session began
      s     last seen
      g     generation of the tokens
      t     the tokens, sealed
      d:*   one sealed field for each key of the Flask session

Separate fields, so that a slide or a slow request can never write an old token set back.
"""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from bff.errors import SessionKeyMissing, StoreUnavailable
from bff.sealing import Keyring, NotAuthentic, UnknownKey
from bff.sessions.packing import PackedTokens, compress, decompress, pack_tokens, unpack_tokens
from bff.tokens import TokenSet

SID_BYTES = 32
_SID = re.compile(r"[A-Za-z0-9_-]{43}\Z")
_DIGEST = re.compile(r"[0-9a-f]{64}\Z")
CORE = (b"m", b"s", b"g", b"t")
"""The fields that a proxied request needs."""
DATA = b"d:"
OPENED = 512
"""So many sessions' tokens stay open in a process's memory, those that were opened last; it holds the keys to
all of them anyway."""
WHO = "who"
"""The one key of the Flask session that we use: each field costs Redis a hundred bytes beyond its own."""


class Meta(msgspec.Struct, frozen=True, array_like=True):
    """What never changes about a session. Times are seconds since the epoch.

    `auth_time` is 0 where the provider did not say when the person was authenticated. `user` is a hash of
    issuer and subject, `provider_sids` keyed hashes of the provider's session id.
    """

    created: float
    auth_time: float
    user: str
    provider_sids: tuple[str, ...] = ()

    def shares_provider_session(self, other: Meta) -> bool:
        """Whether both are known to have begun in one session of the provider: one browser, mostly."""
        return not set(map(sid_name, self.provider_sids)).isdisjoint(map(sid_name, other.provider_sids))


class SessionRecord(msgspec.Struct, frozen=True):
    """A session as read; `data` is empty where only the tokens were asked for.

    `head` is the metadata as it lies in Redis: every seal names it byte for byte.
    """

    key: str
    head: bytes
    meta: Meta
    last_seen: float
    generation: int
    tokens: TokenSet
    data: dict[str, Any] = {}

    @property
    def name(self) -> str:
        """The session's public name, a digest of an id that only the cookie knows."""
        return self.key.rpartition("{")[2].removesuffix("}")

    @property
    def who(self) -> dict[str, Any]:
        """What is known of the user: claims, and where they signed in; {} where only tokens were read."""
        found: dict[str, Any] = self.data.get(WHO, {})
        return found

    def __repr__(self) -> str:
        return f"<SessionRecord generation={self.generation}>"


def new_sid() -> str:
    """A session id: 256 random bits, base64url."""
    return secrets.token_urlsafe(SID_BYTES)


def well_formed(sid: str) -> bool:
    """Whether a cookie's value can be a session id at all: nothing else is hashed or looked up."""
    return _SID.match(sid) is not None


def is_digest(name: str) -> bool:
    """Whether something can be the public name of a session."""
    return _DIGEST.match(name) is not None


def digest(sid: str) -> str:
    """The public name of a session: a stolen dump of Redis, or a list of sessions, opens none."""
    return hashlib.sha256(sid.encode()).hexdigest()


def logout_sid(sid: str) -> str:
    """What the sign-out link carries: bound to the session, of no use as its cookie."""
    return hashlib.sha256(b"bff sign-out " + sid.encode()).hexdigest()


def user_hash(issuer: str, subject: str) -> str:
    """The name of a user in Redis, SHA-256 as base64url. The length keeps (issuer, subject) pairs apart."""
    name = hashlib.sha256(f"{len(issuer)} {issuer} {subject}".encode()).digest()
    return base64.urlsafe_b64encode(name).rstrip(b"=").decode()


def sid_name(fingerprint: str) -> str:
    """The name of a provider's session in Redis, by its keyed hash in hexadecimal digits: 128 bits of it, as
    base64url. Such a name stays as it is."""
    if len(fingerprint) != 64:
        return fingerprint
    return base64.urlsafe_b64encode(bytes.fromhex(fingerprint)[:16]).rstrip(b"=").decode()


def rfc3339(seconds: float) -> str:
    """A time for JSON, in UTC."""
    moment = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
    return moment.replace("+00:00", "Z")


class _Opened(msgspec.Struct, frozen=True, gc=False):
    """Tokens that have been opened, and what they were opened from."""

    head: bytes
    sealed: bytes
    meta: Meta
    tokens: TokenSet

    def __repr__(self) -> str:
        return "<Opened>"


class Codec:
    """Fields of a session hash to records and back."""

    def __init__(self, keyring: Keyring, prefix: str) -> None:
        """`prefix` begins every key in Redis."""
        self.keyring = keyring
        self.prefix = prefix
        self.pattern = re.sub(r"([\\*?\[\]])", r"\\\1", prefix) + "{" + "[0-9a-f]" * 4 + "*}"
        self._tokens = msgspec.msgpack.Decoder(PackedTokens)
        self._meta = msgspec.msgpack.Decoder(Meta)
        self._opened: dict[str, _Opened] = {}
        self._opening = threading.Lock()

    def key(self, session: str) -> str:
        """The Redis key of a session by its digest, hash-tagged: all of its keys share one slot."""
        return f"{self.prefix}{{{session}}}"

    def session(self, key: str) -> str:
        """The digest that a key was made of."""
        return key[len(self.prefix) + 1 : -1]

    def name(self, key: bytes) -> str | None:
        """The digest of a session from its key; None where the key is something else's."""
        name = self.session(key.decode("utf-8", "replace"))
        return name if _DIGEST.match(name) and self.key(name).encode() == key else None

    def meta(self, fields: Mapping[bytes, bytes]) -> Meta | None:
        """Whose session a hash is, even if its seals do not open."""
        try:
            return self._meta.decode(fields[b"m"])
        except (KeyError, msgspec.DecodeError):
            return None

    def seal_tokens(self, key: str, head: bytes, tokens: TokenSet) -> bytes:
        """The field `t`, sealed to its place: the associated data name key, field and metadata."""
        return self._seal(key, b"t", head, msgspec.msgpack.encode(pack_tokens(tokens)))

    def seal_data(self, key: str, field: bytes, head: bytes, value: Any) -> bytes:
        """A field `d:*`, likewise."""
        return self._seal(key, field, head, compress(msgspec.msgpack.encode(value)))

    def read(self, key: str, fields: Mapping[bytes, bytes]) -> SessionRecord | None:
        """The record of a hash; None where there is none. Raises StoreUnavailable if it does not open."""
        try:
            head, seen, generation, sealed = (fields[name] for name in CORE)
            record = self.read_core(key, head, seen, generation, sealed)
            data = {
                name[len(DATA) :].decode(): self._data(self._open(key, name, head, value))
                for name, value in fields.items()
                if name.startswith(DATA)
            }
        except KeyError:
            return None
        except (UnknownKey, NotAuthentic, msgspec.DecodeError, ValueError) as error:
            raise _unreadable(error) from None
        return msgspec.structs.replace(record, data=data) if data else record

    def read_core(
        self, key: str, head: bytes, seen: bytes, generation: bytes, sealed: bytes
    ) -> SessionRecord:
        """The record by its fields `CORE`. Raises StoreUnavailable if it does not open."""
        try:
            meta, tokens = self._tokens_of(key, head, sealed)
            return SessionRecord(key, head, meta, float(seen), int(generation), tokens)
        except (UnknownKey, NotAuthentic, msgspec.DecodeError, ValueError) as error:
            raise _unreadable(error) from None

    def _tokens_of(self, key: str, head: bytes, sealed: bytes) -> tuple[Meta, TokenSet]:
        """The same bytes in the same place open to the same tokens: they need not be opened for every
        request. Redis is asked all the same, and other bytes are opened anew."""
        opened = self._opened.get(key)
        if opened is not None and opened.sealed == sealed and opened.head == head:
            return opened.meta, opened.tokens
        meta, tokens = self._open_tokens(key, head, sealed)
        with self._opening:
            self._opened.pop(key, None)
            while len(self._opened) >= OPENED:
                del self._opened[next(iter(self._opened))]
            self._opened[key] = _Opened(head, sealed, meta, tokens)
        return meta, tokens

    def _open_tokens(self, key: str, head: bytes, sealed: bytes) -> tuple[Meta, TokenSet]:
        tokens = self._tokens.decode(self._open(key, b"t", head, sealed))
        return self._meta.decode(head), unpack_tokens(tokens)

    def _data(self, plain: bytes) -> Any:
        return msgspec.msgpack.decode(decompress(plain))

    def _seal(self, key: str, field: bytes, meta: bytes, plain: bytes) -> bytes:
        return self.keyring.seal("session", plain, _place(key, field, meta))

    def _open(self, key: str, field: bytes, meta: bytes, record: bytes) -> bytes:
        return self.keyring.open("session", record, _place(key, field, meta))


def _unreadable(error: Exception) -> StoreUnavailable:
    told = "The session cannot be opened at the moment."
    if isinstance(error, UnknownKey):
        reason = "a session is sealed under a key that BFF_SECRET_KEYS does not hold: put the key back"
        return SessionKeyMissing(told, reason=reason)
    reason = "a session record was altered, or is not ours: is BFF_REDIS_PREFIX shared?"
    return StoreUnavailable(told, reason=reason)


def _place(key: str, field: bytes, meta: bytes) -> bytes:
    return b"\0".join((key.encode(), field, meta))


def with_lease(key: str) -> list[str]:
    """A session's hash and its refresh lease: one slot of a Cluster, thanks to the hash tag."""
    return [key, key + ":lease"]


def milliseconds(seconds: float) -> int:
    """As Redis takes times and lengths of time."""
    return int(seconds * 1000)
