"""The sessions of a user, or of everybody: to list them, and to end them for good."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from bff.errors import StoreUnavailable
from bff.sessions.ending import Reason
from bff.sessions.index import EVERYBODY, UserIndex, without_sid
from bff.sessions.record import Meta, SessionRecord
from bff.sessions.store import Found, SessionStore

SETTLED_SECONDS = 60
"""After so long a session that the index names has been written, or never will be."""
CUT_OFF_SECONDS = 3600
"""Longer than any sign-in takes that could have begun before."""


class Listed(msgspec.Struct, frozen=True):
    """A live session and its public name, which is the digest of an id that only its cookie knows."""

    id: str
    record: SessionRecord


class Unreadable(msgspec.Struct, frozen=True):
    """A session that does not open: it is sealed under a key that is missing, or was altered."""

    id: str
    meta: Meta | None


class Ended(msgspec.Struct, frozen=True):
    """A session that was ended, with what it held; None where its seals do not open."""

    id: str
    record: SessionRecord | None


class Directory:
    """For threads. Every method may raise StoreUnavailable.

    Whatever ends several sessions gives each of them as it ends, so that its tokens can be revoked even if
    the next one cannot be ended. Nothing ends that is not asked for: go through all of them.
    """

    def __init__(self, store: SessionStore, index: UserIndex) -> None:
        self._store = store
        self._index = index

    def of(self, user: str) -> list[Listed]:
        """The user's live sessions that open, the oldest first."""
        found = [each for each in self.all_of(user) if isinstance(each, Listed)]
        return sorted(found, key=lambda each: (each.record.meta.created, each.id))

    def all_of(self, user: str) -> list[Listed | Unreadable]:
        """All of the user's live sessions; what the index names in vain is dropped from it."""
        found, gone = [], []
        newest = self._store.clock() + self._store.lifetime.absolute - SETTLED_SECONDS
        for name, ends_at in self._index.of(user).items():
            there = self._store.look(name)
            if there is None or there.meta is None or there.meta.user != user:
                if ends_at < newest:  # or it is about to be written, and must be found then
                    gone.append(name)
            elif (each := self._listed(name, there)) is not None:
                found.append(each)
        self._index.remove(user, *gone)
        return found

    def everybody(self) -> Iterator[Listed | Unreadable]:
        """All live sessions, in no order. Reads every key: for operators, seldom."""
        for name in self._store.names():
            there = self._store.look(name)
            if there is not None and (each := self._listed(name, there)) is not None:
                yield each

    def _listed(self, name: str, there: Found) -> Listed | Unreadable | None:
        """None where the session is over, or not settled yet."""
        if there.record is None:
            return Unreadable(name, there.meta)
        live = self._store.lifetime.live(there.record, self._store.clock())
        return Listed(name, there.record) if live else None

    def end(self, name: str, *, user: str | None = None) -> Iterator[Ended]:
        """End one session, only if it is that user's where one is named."""
        return self._end_all([name] if user is None or self._is_of(name, user) else [])

    def end_others(self, user: str, current: str) -> Iterator[Ended]:
        """End all of a user's sessions but one, and every sign-in of theirs under way."""
        self._index.cut_off(user, CUT_OFF_SECONDS)
        return self._end_all(name for name in self._index.of(user) if name != current)

    def end_user(self, user: str, reason: Reason = Reason.REVOKED) -> Iterator[Ended]:
        """End all of a user's sessions, and every sign-in of theirs under way."""
        self._index.cut_off(user, CUT_OFF_SECONDS)
        return self._end_all(self._index.of(user), reason)

    def end_provider_session(self, names: list[str], user: str | None) -> Iterator[Ended]:
        """End the sessions that began under a `sid` of the provider, by its keyed hashes (of each key of
        ours), and sign-ins under way there.

        Where a `user` is named, only theirs; and those of theirs of which no `sid` is known, which may be
        the one that is meant.
        """
        found: list[str] = []
        for name in names:
            self._index.cut_off(name, CUT_OFF_SECONDS)
            found += self._index.of(name)
        if user is not None:
            self._index.cut_off(without_sid(user), CUT_OFF_SECONDS)
            for session in self._index.of(user):
                meta = self._store.peek(session)
                if meta is not None and not meta.provider_sids:
                    found.append(session)
        meant = (session for session in dict.fromkeys(found) if self._is_of(session, user))
        return self._end_all(meant, Reason.PROVIDER)

    def _is_of(self, session: str, user: str | None) -> bool:
        meta = self._store.peek(session)
        return meta is not None and user in (None, meta.user)

    def end_everybody(self) -> Iterator[Ended]:
        """End all sessions, and every sign-in under way."""
        self._index.cut_off(EVERYBODY, CUT_OFF_SECONDS)
        return self._end_all(self._store.names())

    def enforce(self, user: str, most: int) -> Iterator[Ended]:
        """End the user's oldest sessions beyond so many."""
        return self._end_all(each.id for each in self.of(user)[:-most])

    def _end_all(self, names: Iterable[str], reason: Reason = Reason.REVOKED) -> Iterator[Ended]:
        for name in names:
            # Looked up first: the deletion may reach Redis twice, and says nothing the second time.
            there = self._store.look(name)
            if there is None:
                continue
            try:
                record = self._store.end(name, reason)
            except StoreUnavailable:  # it may have ended; that it should is certain
                yield Ended(name, there.record)
                raise
            yield Ended(name, record or there.record)
