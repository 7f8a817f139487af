"""The provider's own sessions: they give single sign-on until they end."""

import secrets
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass

from bff.dev_idp.storage import Storage, digest

# As long as the session cookie of Cognito's hosted pages.
LIFETIME_SECONDS = 3600


@dataclass(frozen=True)
class BrowserSession:
    """A browser in which a user typed their password at `auth_time` (seconds since 1970)."""

    sub: str
    auth_time: int


class BrowserSessions:
    """Starts, finds and ends sessions by the cookie's value."""

    def __init__(self, storage: Storage, clock: Callable[[], float]) -> None:
        self._storage = storage
        self._clock = clock

    def start(self, sub: str, *, replaces: str) -> tuple[BrowserSession, str]:
        """A new session and its cookie value; ends the one whose cookie the browser brought.

        The value is always new: one that was planted before the sign-in opens nothing after it.
        """
        cookie = secrets.token_urlsafe(32)
        now = self._clock()
        session = BrowserSession(sub, int(now))
        with self._storage.transaction() as db:
            db.execute("DELETE FROM browser_sessions WHERE digest = ?", (digest(replaces),))
            db.execute(
                "INSERT INTO browser_sessions VALUES (?, ?, ?, ?)",
                (digest(cookie), sub, session.auth_time, now + LIFETIME_SECONDS),
            )
        return session, cookie

    def find(self, cookie: str) -> BrowserSession | None:
        """The live session of a cookie value, or None."""
        with self._storage.transaction() as db:
            row = db.execute(
                "SELECT sub, auth_time FROM browser_sessions WHERE digest = ? AND expires > ?",
                (digest(cookie), self._clock()),
            ).fetchone()
        return BrowserSession(*row) if row else None

    @staticmethod
    def end_all(db: sqlite3.Connection, sub: str) -> None:
        """End all sessions of a user, inside the caller's transaction."""
        db.execute("DELETE FROM browser_sessions WHERE sub = ?", (sub,))

    def end(self, cookie: str) -> None:
        """End the session; an unknown value is no error."""
        with self._storage.transaction() as db:
            db.execute("DELETE FROM browser_sessions WHERE digest = ?", (digest(cookie),))
