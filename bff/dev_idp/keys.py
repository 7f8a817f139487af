"""The signing keys: one for access tokens and one for ID tokens, as Cognito has them.

The newest key of each purpose signs. Older ones stay published, so that what they signed goes on
verifying, until they are forgotten.
"""

import json
import sqlite3
from enum import StrEnum
from functools import lru_cache
from typing import Any

from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import RSAKey

from bff.dev_idp.storage import Storage

ALGORITHM = "RS256"
# How many of each purpose are published: rotating in a loop must not make the set grow for ever.
MOST_PUBLISHED = 10


class Purpose(StrEnum):
    """What a key signs. An access token never verifies as an ID token, nor the other way round."""

    ACCESS = "access"
    ID = "id"


class SigningKeys:
    """Signs and verifies compact JWS."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._keys: list[tuple[Purpose, str, RSAKey]] = []

    def ensure(self, now: float) -> None:
        """Load the keys; make those that are missing and keep them, as making them takes time."""
        with self._storage.transaction() as db:
            loaded = _load(db)
            for purpose in Purpose:
                if purpose not in {known for known, _ in loaded}:
                    _add(db, purpose, _generate(), now)
            loaded = _load(db)
        self._use(loaded)

    def rotate(self, now: float, *, forget_old: bool) -> None:
        """Sign with new keys from now on. The old ones stay published unless they are to be forgotten."""
        made = {purpose: _generate() for purpose in Purpose}  # before the transaction: it takes time
        with self._storage.transaction() as db:
            for purpose, key in made.items():
                _add(db, purpose, key, now)
                db.execute(
                    "DELETE FROM signing_keys WHERE purpose = ? AND rowid NOT IN (SELECT rowid FROM"
                    " signing_keys WHERE purpose = ? ORDER BY rowid DESC LIMIT ?)",
                    (purpose.value, purpose.value, 1 if forget_old else MOST_PUBLISHED),
                )
            # Inside, so that of two rotations at once the later one decides what is in use.
            self._use(_load(db))

    def signing(self) -> dict[str, str]:
        """The `kid` that signs, by purpose."""
        keys = self._keys
        return {purpose.value: next(kid for known, kid, _ in keys if known is purpose) for purpose in Purpose}

    def _use(self, loaded: list[tuple[Purpose, str]]) -> None:
        keys = [(purpose, _import(jwk)) for purpose, jwk in loaded]
        self._keys = [(purpose, str(key.kid), key) for purpose, key in keys]

    def jwks(self) -> dict[str, list[dict[str, Any]]]:
        """The public halves, as a JWK Set (RFC 7517 section 5)."""
        return {"keys": [dict(key.as_dict(private=False)) for _, _, key in self._keys]}

    def sign(self, purpose: Purpose, claims: dict[str, Any]) -> str:
        """A signed token whose header holds `kid` and `alg` and nothing else, as Cognito's."""
        kid, key = next((kid, key) for known, kid, key in self._keys if known is purpose)
        payload = json.dumps(claims, separators=(",", ":")).encode()
        # Not joserfc.jwt.encode: it adds a `typ`, which Cognito's tokens don't have.
        return jws.serialize_compact({"kid": kid, "alg": ALGORITHM}, payload, key, [ALGORITHM])

    def verify(self, purpose: Purpose, token: str) -> dict[str, Any] | None:
        """The claims of a token that we signed for this purpose, expired or not; else None."""
        try:
            unverified = jws.extract_compact(token.encode("utf-8", "surrogatepass"))
            kid = unverified.headers().get("kid")
            for known, candidate, key in self._keys:
                if known is purpose and candidate == kid:
                    payload = jws.deserialize_compact(token, key, [ALGORITHM]).payload
                    return dict(json.loads(payload))
        except (JoseError, ValueError):
            return None
        return None


def _load(db: sqlite3.Connection) -> list[tuple[Purpose, str]]:
    # By the order of insertion: by the time of day, a clock that was set back would let an old key sign.
    rows = db.execute("SELECT purpose, jwk FROM signing_keys ORDER BY rowid DESC")
    return [(Purpose(purpose), str(jwk)) for purpose, jwk in rows]


def _add(db: sqlite3.Connection, purpose: Purpose, key: tuple[str, str], now: float) -> None:
    kid, jwk = key
    db.execute("INSERT INTO signing_keys VALUES (?, ?, ?, ?)", (kid, purpose.value, jwk, now))


def _generate() -> tuple[str, str]:
    key = RSAKey.generate_key(2048, parameters={"use": "sig", "alg": ALGORITHM}, private=True)
    key.ensure_kid()
    return str(key.kid), json.dumps(key.as_dict(private=True))


@lru_cache(maxsize=2 * MOST_PUBLISHED)
def _import(jwk: str) -> RSAKey:
    # Each import checks the primes, for about 80 ms: done once a key and process.
    return RSAKey.import_key(json.loads(jwk))
