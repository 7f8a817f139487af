"""`bff sessions`: the operator's view of live sessions. Never a token, never a cookie's value."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import structlog

from bff.provider.client import Provider
from bff.provider.revocation import Revoker
from bff.sealing import Keyring
from bff.sessions.connect import connect
from bff.sessions.directory import Directory, Listed
from bff.sessions.lifetime import Lifetime
from bff.sessions.record import Codec, SessionRecord, is_digest, rfc3339, user_hash
from bff.sessions.store import SessionStore
from bff.settings import Settings

log = structlog.get_logger("bff.audit")

REVOKE_SECONDS = 20.0
"""What all revocations at the provider together may take."""


class Operations:
    """One run of a command; use it in `with operations(settings)`. Methods may raise StoreUnavailable."""

    def __init__(self, settings: Settings, store: SessionStore) -> None:
        self._settings = settings
        self._store = store
        self._directory = Directory(store, store.index)

    def list(self, subject: str | None = None) -> list[dict[str, Any]]:
        """All live sessions, or one user's, the oldest first."""
        found = self._directory.everybody() if subject is None else self._directory.of(self._user(subject))
        return [self._row(each) for each in sorted(found, key=lambda each: each.record.meta.created)]

    def revoke(self, name: str) -> int:
        """End the session of that id; how many ended."""
        return self._revoke_at_provider([self._directory.end(name) if is_digest(name) else None])

    def revoke_user(self, subject: str) -> int:
        """End all sessions of a user, and sign-ins under way."""
        return self._revoke_at_provider(self._directory.end_user(self._user(subject)))

    def revoke_all(self) -> int:
        """End everybody's."""
        return self._revoke_at_provider(self._directory.end_everybody())

    def _user(self, subject: str) -> str:
        return user_hash(self._settings.oidc_issuer, subject)

    def _row(self, each: Listed) -> dict[str, Any]:
        record = each.record
        return {
            "id": each.id,
            "user": record.who.get("hint", ""),
            "created": rfc3339(record.meta.created),
            "last_seen": rfc3339(record.last_seen),
            "ends": rfc3339(self._store.lifetime.ends_at(record, record.last_seen)),
            "browser": record.who.get("browser", ""),
            "address": record.who.get("address", ""),
        }

    def _revoke_at_provider(self, ended: Iterable[SessionRecord | None]) -> int:
        """Best effort, and bounded in time: the sessions have ended whatever comes of it."""
        records = [record for record in ended if record is not None]
        if records:
            log.warning("sessions_revoked", by="operator", count=len(records))
            provider = Provider(self._settings)
            provider.prepare()
            revoker = Revoker(provider)
            for record in records:
                revoker.later(record.tokens)
            revoker.finish(REVOKE_SECONDS)
        return len(records)


@contextmanager
def operations(settings: Settings) -> Iterator[Operations]:
    """Operations on the Redis of these settings."""
    address = settings.redis_address
    client = connect(address, connections=2)
    try:
        codec = Codec(Keyring(settings.keys), settings.redis_prefix)
        lifetime = Lifetime(settings.session_idle_seconds, settings.session_max_seconds)
        store = SessionStore(client, codec, lifetime, time.time, replicated=address.replicated)
        yield Operations(settings, store)
    finally:
        client.close()
