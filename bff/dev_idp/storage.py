"""Where the provider keeps its state: one SQLite database, in memory or in a file.

One connection behind one lock: requests come from a pool of threads, and every change that must
be decided once (a code redeemed, a refresh token rotated) is one transaction.
"""

import os
import sqlite3
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

from bff.dev_idp.settings import SettingsError

SCHEMA_VERSION = 1

_SCHEMA = """
CREATE TABLE secrets (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE signing_keys (
    kid TEXT PRIMARY KEY, purpose TEXT NOT NULL, jwk TEXT NOT NULL, created REAL NOT NULL);
CREATE TABLE accounts (
    sub TEXT PRIMARY KEY, email TEXT NOT NULL UNIQUE, name TEXT NOT NULL,
    given_name TEXT NOT NULL, password_hash TEXT NOT NULL, groups TEXT NOT NULL,
    confirmed INTEGER NOT NULL, confirmation_code TEXT NOT NULL);
CREATE TABLE authorization_codes (
    digest TEXT PRIMARY KEY, client_id TEXT NOT NULL, redirect_uri TEXT NOT NULL,
    scope TEXT NOT NULL, sub TEXT NOT NULL, code_challenge TEXT NOT NULL, nonce TEXT NOT NULL,
    auth_time INTEGER NOT NULL, family TEXT NOT NULL, expires REAL NOT NULL,
    used INTEGER NOT NULL);
CREATE TABLE families (
    id TEXT PRIMARY KEY, client_id TEXT NOT NULL, sub TEXT NOT NULL, scope TEXT NOT NULL,
    auth_time INTEGER NOT NULL, event_id TEXT NOT NULL, expires REAL NOT NULL,
    revoked INTEGER NOT NULL);
CREATE TABLE refresh_tokens (digest TEXT PRIMARY KEY, family TEXT NOT NULL, rotated_at REAL);
CREATE TABLE browser_sessions (
    digest TEXT PRIMARY KEY, sub TEXT NOT NULL, auth_time INTEGER NOT NULL,
    expires REAL NOT NULL);
"""


class Storage:
    """The database, open."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._lock = threading.RLock()
        # Closed at the latest when nobody holds the storage any more, or at exit.
        self._close = weakref.finalize(self, connection.close)

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing, and one at a time over all threads and processes."""
        with self._lock:
            # IMMEDIATE takes the write lock before the first read: what a transaction has read
            # can't change under it.
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    def forget_expired(self, now: float) -> None:
        """Drop what no longer opens anything, so that a state file doesn't grow for ever."""
        with self.transaction() as db:
            db.execute("DELETE FROM browser_sessions WHERE expires < ?", (now,))
            db.execute("DELETE FROM families WHERE expires < ?", (now,))
            db.execute("DELETE FROM refresh_tokens WHERE family NOT IN (SELECT id FROM families)")
            # A used code stays as long as its family, so that its reuse is still noticed.
            db.execute(
                "DELETE FROM authorization_codes"
                " WHERE expires < ? AND family NOT IN (SELECT id FROM families)",
                (now,),
            )

    def close(self) -> None:
        """Close the database; the object can't be used afterwards."""
        with self._lock:
            self._close()


def open_storage(path: Path | None) -> Storage:
    """Open the state file, or a database in memory when `path` is None.

    Raises `SettingsError` when the file can't be used.
    """
    try:
        if path is not None:
            _make_private(path)
        connection = sqlite3.connect(
            str(path) if path is not None else ":memory:",
            isolation_level=None,
            check_same_thread=False,
            timeout=10,
        )
        try:
            _prepare(connection)
        except BaseException:
            connection.close()
            raise
    except (OSError, sqlite3.Error, _OtherVersionError) as error:
        problem = (
            f"IDP_STATE_FILE: the state file can't be used ({type(error).__name__})."
            " Name another file, or delete this one: local users and sessions are lost with it."
        )
        raise SettingsError((problem,)) from error
    return Storage(connection)


def digest(secret: str) -> str:
    """The name under which a code, token or cookie value is kept: a copy of the file opens nothing."""
    return sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


class _OtherVersionError(Exception):
    """The file was written by another version of this program, or by another program."""


def _make_private(path: Path) -> None:
    # The file holds signing keys: it is private before SQLite writes its first byte, and SQLite
    # gives its -wal and -shm files the same mode.
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    path.chmod(0o600)


def _prepare(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA journal_mode = WAL")
    # A power cut may lose the last seconds of a development machine's sign-ins; that buys about
    # a disk flush for each token request.
    connection.execute("PRAGMA synchronous = NORMAL")
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if version == SCHEMA_VERSION:
        return
    if version or tables:
        raise _OtherVersionError
    connection.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")
