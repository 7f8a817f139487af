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
from bff.sessions.directory import Directory, Ended, Listed, Unreadable
from bff.sessions.lifetime import Lifetime
from bff.sessions.record import Codec, is_digest, rfc3339, user_hash
from bff.sessions.store import SessionStore
from bff.settings import Settings
from bff.tokens import TokenSet

log = structlog.get_logger("bff.audit")

_COLUMNS = ("id", "user", "created", "last_seen", "ends", "browser", "address")
DOES_NOT_OPEN = "(does not open)"
"""In the place of the user: the session is sealed under a key that this command has not, or was altered."""
REVOKE_SECONDS = 20.0
"""What all revocations at the provider together may take."""


class Operations:
    """One run of a command; use it in `with operations(settings)`. Methods may raise StoreUnavailable."""

    def __init__(self, settings: Settings, store: SessionStore) -> None:
        self._settings = settings
        self._store = store
        self._directory = Directory(store, store.index)

    def list(self, subject: str | None = None) -> list[dict[str, Any]]:
        """All live sessions, or one user's, the oldest first; those that do not open, too."""
        directory = self._directory
        found = directory.everybody() if subject is None else directory.all_of(self._user(subject))
        return [self._row(each) for each in sorted(found, key=_created)]

    def revoke(self, name: str) -> int:
        """End the session of that id; how many ended."""
        return self._revoke_at_provider(self._directory.end(name) if is_digest(name) else ())

    def revoke_user(self, subject: str) -> int:
        """End all sessions of a user, and sign-ins under way."""
        return self._revoke_at_provider(self._directory.end_user(self._user(subject)))

    def revoke_all(self) -> int:
        """End everybody's."""
        return self._revoke_at_provider(self._directory.end_everybody())

    def _user(self, subject: str) -> str:
        return user_hash(self._settings.oidc_issuer, subject)

    def _row(self, each: Listed | Unreadable) -> dict[str, Any]:
        if isinstance(each, Unreadable):
            created = rfc3339(each.meta.created) if each.meta is not None else ""
            return dict.fromkeys(_COLUMNS, "") | {"id": each.id, "user": DOES_NOT_OPEN, "created": created}
        record = each.record
        values = (
            each.id,
            record.who.get("hint", ""),
            rfc3339(record.meta.created),
            rfc3339(record.last_seen),
            rfc3339(self._store.lifetime.ends_at(record, record.last_seen)),
            record.who.get("browser", ""),
            record.who.get("address", ""),
        )
        return dict(zip(_COLUMNS, values, strict=True))

    def _revoke_at_provider(self, ended: Iterable[Ended]) -> int:
        """Best effort, and bounded in time: the sessions have ended whatever comes of it. What has ended is
        revoked even if the next one could not be ended."""
        count, held = 0, []
        try:
            for each in ended:
                count += 1
                if each.record is not None:
                    held.append(each.record.tokens)
        finally:
            if count:
                log.warning("sessions_revoked", by="operator", count=count)
            if held:
                self._revoke(held)
        return count

    def _revoke(self, held: Iterable[TokenSet]) -> None:
        provider = Provider(self._settings)
        provider.prepare()
        revoker = Revoker(provider)
        for tokens in held:
            revoker.later(tokens)
        revoker.finish(REVOKE_SECONDS)


def _created(each: Listed | Unreadable) -> float:
    meta = each.meta if isinstance(each, Unreadable) else each.record.meta
    return meta.created if meta is not None else 0.0


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
