"""Refresh tokens. All that descend from one sign-in form a family that ends together.

Rotation, reuse detection and revocation follow RFC 9700 section 4.14 and Cognito's manners: a
rotated token lives only for the time that the first one had left.
"""

import secrets
import sqlite3
import uuid
from collections.abc import Callable
from dataclasses import dataclass

from bff.dev_idp.settings import Settings
from bff.dev_idp.storage import Storage, digest


@dataclass(frozen=True)
class Family:
    """One sign-in of one user at one client. Its `id` is the `origin_jti` of all its tokens."""

    id: str
    client_id: str
    sub: str
    scope: str
    auth_time: int
    event_id: str
    expires: float


@dataclass(frozen=True)
class Kept:
    """The refresh token stays in use; the answer carries no new one."""


@dataclass(frozen=True)
class Rotated:
    """The refresh token is replaced by this one."""

    refresh_token: str


@dataclass(frozen=True)
class Refused:
    """The refresh token opens nothing (any more)."""


class RefreshFamilies:
    """Begins, finds, rotates and revokes families."""

    def __init__(self, storage: Storage, settings: Settings, clock: Callable[[], float]) -> None:
        self._storage = storage
        self._rotation = settings.refresh_rotation
        self._grace = settings.refresh_grace_seconds
        self._lifetime = settings.refresh_token_seconds
        self._clock = clock

    @staticmethod
    def new_id() -> str:
        """An id for a family that is yet to begin: an authorization code knows it in advance."""
        return str(uuid.uuid4())

    def begin(
        self,
        db: sqlite3.Connection,
        family_id: str,
        *,
        client_id: str,
        sub: str,
        scope: str,
        auth_time: int,
    ) -> tuple[Family, str]:
        """Start a family inside the caller's transaction; gives it and its first refresh token."""
        expires = self._clock() + self._lifetime
        family = Family(family_id, client_id, sub, scope, auth_time, str(uuid.uuid4()), expires)
        db.execute(
            "INSERT INTO families VALUES (?, ?, ?, ?, ?, ?, ?, 0)",
            (family_id, client_id, sub, scope, auth_time, family.event_id, expires),
        )
        return family, _add_token(db, family_id)

    def find(self, refresh_token: str) -> Family | None:
        """The live family of a refresh token, rotated out or not; changes nothing."""
        with self._storage.transaction() as db:
            row = self._live_row(db, refresh_token)
        return Family(*row[:-1]) if row else None

    def use(self, refresh_token: str) -> Kept | Rotated | Refused:
        """Redeem a refresh token: of several calls at once, strict rotation lets exactly one win."""
        with self._storage.transaction() as db:
            row = self._live_row(db, refresh_token)
            if row is None:
                return Refused()
            family_id, rotated_at = row[0], row[-1]
            if rotated_at is not None and self._grace_is_over(rotated_at):
                # Two parties hold this token, and one of them may have stolen it.
                _revoke(db, family_id)
                return Refused()
            if not self._rotation:
                return Kept()
            db.execute(
                "UPDATE refresh_tokens SET rotated_at = coalesce(rotated_at, ?) WHERE digest = ?",
                (self._clock(), digest(refresh_token)),
            )
            return Rotated(_add_token(db, family_id))

    def revoke(self, family_id: str) -> None:
        """End the family: no refresh any more, and UserInfo refuses its access tokens."""
        with self._storage.transaction() as db:
            _revoke(db, family_id)

    def revoke_all(self, sub: str) -> int:
        """End all families of a user; says how many there were."""
        with self._storage.transaction() as db:
            return revoke_user(db, sub)

    def is_live(self, family_id: str) -> bool:
        """Whether the family began and was not revoked."""
        with self._storage.transaction() as db:
            row = db.execute("SELECT revoked FROM families WHERE id = ?", (family_id,)).fetchone()
        return bool(row) and not row[0]

    def _grace_is_over(self, rotated_at: float) -> bool:
        # Without grace the clock isn't asked: set back, it would let a used token through.
        return not self._grace or self._clock() >= rotated_at + self._grace

    def _live_row(
        self, db: sqlite3.Connection, refresh_token: str
    ) -> tuple[str, str, str, str, int, str, float, float | None] | None:
        row: tuple[str, str, str, str, int, str, float, float | None] | None = db.execute(
            "SELECT id, client_id, sub, scope, auth_time, event_id, expires, rotated_at"
            " FROM refresh_tokens JOIN families ON family = id"
            " WHERE digest = ? AND NOT revoked AND expires > ?",
            (digest(refresh_token), self._clock()),
        ).fetchone()
        return row


def _add_token(db: sqlite3.Connection, family_id: str) -> str:
    refresh_token = secrets.token_urlsafe(48)
    db.execute("INSERT INTO refresh_tokens VALUES (?, ?, NULL)", (digest(refresh_token), family_id))
    return refresh_token


def revoke_user(db: sqlite3.Connection, sub: str) -> int:
    """End all families of a user inside the caller's transaction, and those that are about to begin: codes
    that haven't been redeemed open nothing any more."""
    db.execute("UPDATE authorization_codes SET used = 1 WHERE sub = ?", (sub,))
    return db.execute("UPDATE families SET revoked = 1 WHERE sub = ? AND NOT revoked", (sub,)).rowcount


def _revoke(db: sqlite3.Connection, family_id: str) -> None:
    db.execute("UPDATE families SET revoked = 1 WHERE id = ?", (family_id,))
