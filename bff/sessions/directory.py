"""The sessions of a user, or of everybody: to list them, and to end them for good."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from bff.errors import StoreUnavailable
from bff.sessions.ending import Reason
from bff.sessions.index import EVERYBODY, UserIndex
from bff.sessions.record import SessionRecord
from bff.sessions.store import SessionStore

CUT_OFF_SECONDS = 3600
"""Longer than any sign-in takes that could have begun before."""


class Listed(msgspec.Struct, frozen=True):
    """A live session and its public name, which is the digest of an id that only its cookie knows."""

    id: str
    record: SessionRecord


class Directory:
    """For threads. Every method may raise StoreUnavailable."""

    def __init__(self, store: SessionStore, index: UserIndex) -> None:
        self._store = store
        self._index = index

    def of(self, user: str) -> list[Listed]:
        """The user's live sessions, the oldest first; what the index names in vain is dropped from it."""
        found, gone = [], []
        for name in self._index.of(user):
            try:
                record = self._store.load(name)
            except StoreUnavailable:  # one that does not open hides no other
                continue
            if record is None or record.meta.user != user:
                gone.append(name)
            else:
                found.append(Listed(name, record))
        self._index.remove(user, *gone)
        return sorted(found, key=lambda each: (each.record.meta.created, each.id))

    def everybody(self) -> Iterator[Listed]:
        """All live sessions, in no order. Reads every key: for operators, seldom."""
        for name in self._store.names():
            try:
                record = self._store.load(name)
            except StoreUnavailable:
                continue
            if record is not None:
                yield Listed(name, record)

    def end(self, name: str, *, user: str | None = None) -> SessionRecord | None:
        """End one session, only if it is that user's where one is named; what it held, for revocation."""
        if user is not None:
            record = self._store.load(name)
            if record is None or record.meta.user != user:
                return None
        return self._store.end(name)

    def end_others(self, user: str, current: str) -> list[SessionRecord]:
        """End all of a user's sessions but one, and every sign-in of theirs under way."""
        self._index.cut_off(user, CUT_OFF_SECONDS)
        return self._end_all(name for name in self._index.of(user) if name != current)

    def end_user(self, user: str, reason: Reason = Reason.REVOKED) -> list[SessionRecord]:
        """End all of a user's sessions, and every sign-in of theirs under way."""
        self._index.cut_off(user, CUT_OFF_SECONDS)
        return self._end_all(self._index.of(user), reason)

    def end_provider_session(self, names: list[str], user: str | None) -> list[SessionRecord]:
        """End the sessions that began under a `sid` of the provider, by its keyed hashes (one for each key of
        ours), and sign-ins under way there.

        Where a `user` is named, only theirs; and those of theirs of which no `sid` is known, which may be
        the one that is meant.
        """
        found = []
        for name in names:
            self._index.cut_off(name, CUT_OFF_SECONDS)
            found += self._index.of(name)
        for session in self._index.of(user) if user is not None else ():
            meta = self._store.peek(session)
            if meta is not None and not meta.provider_sids:
                found.append(session)
        meant = (session for session in dict.fromkeys(found) if self._is_of(session, user))
        return self._end_all(meant, Reason.PROVIDER)

    def _is_of(self, session: str, user: str | None) -> bool:
        meta = self._store.peek(session)
        return meta is not None and user in (None, meta.user)

    def end_everybody(self) -> Iterator[SessionRecord]:
        """End all sessions, and every sign-in under way."""
        self._index.cut_off(EVERYBODY, CUT_OFF_SECONDS)
        for name in self._store.names():
            if (record := self._store.end(name)) is not None:
                yield record

    def enforce(self, user: str, most: int) -> list[SessionRecord]:
        """End the user's oldest sessions beyond so many."""
        return self._end_all(each.id for each in self.of(user)[:-most])

    def _end_all(self, names: Iterable[str], reason: Reason = Reason.REVOKED) -> list[SessionRecord]:
        return [record for name in names if (record := self._store.end(name, reason)) is not None]
