"""The token store: every shared write is one script that decides on the server.

Nothing is ever written where the hash is gone, so that no slow request and no late refresh brings a
signed-out session back; tokens are saved by generation (compare and set), so that an old set never
replaces a newer one. Each script may reach Redis twice: the client repeats what went unanswered.
"""

from __future__ import annotations

import enum
import secrets
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

import msgspec

from bff.errors import StoreUnavailable
from bff.sessions import lua
from bff.sessions.ending import NOTE_SECONDS, Reason, note
from bff.sessions.errors import StoreErrors, unavailable
from bff.sessions.index import UserIndex
from bff.sessions.lasting import LastingWrites
from bff.sessions.lifetime import Lifetime
from bff.sessions.record import DATA, Codec, Meta, SessionRecord, milliseconds, with_lease
from bff.sessions.script import Script, Words
from bff.tokens import Clock, TokenSet

if TYPE_CHECKING:
    import redis

REPLACED_SECONDS = 300
"""Longer than a refresh can be under way."""
PENDING_SECONDS = 30
"""Longer than the questions to Redis between the beginning of a session and its settlement can take."""
ANSWERED_SECONDS = 5.0
"""What a process that was cut off from Redis gets to save what it has redeemed, before another redeems."""


class Saved(enum.Enum):
    """What became of a token set that was to be saved."""

    SAVED = b"saved"
    GONE = b"gone"
    """The session has ended meanwhile: sign-out wins, and the set must be revoked."""
    NEWER = b"newer"
    """Somebody saved another set first."""


class Lease(enum.Enum):
    """The answer to the wish to refresh a session's tokens."""

    YOURS = b"yours"
    HELD = b"held"
    """Another process is at it."""
    PAUSE = b"pause"
    """A refresh ended a moment ago, well or badly; the next one has to wait."""
    GONE = b"gone"
    NEWER = b"newer"


class Found(msgspec.Struct, frozen=True):
    """What lies under a digest, live or not. `record` is None where its seals do not open, `meta` where that
    has been altered, too."""

    meta: Meta | None
    record: SessionRecord | None


class SessionStore:
    """Sessions in Redis, for threads. Every method may raise StoreUnavailable."""

    def __init__(
        self,
        client: redis.Redis,
        codec: Codec,
        lifetime: Lifetime,
        clock: Clock,
        *,
        replicated: bool = False,
    ) -> None:
        """`replicated`: whether another Redis may take over, which must not forget that a session ended."""
        self._client = client
        self.codec = codec
        self.lifetime = lifetime
        self.clock = clock
        self._errors = StoreErrors()
        self.index = UserIndex(client, codec.prefix, clock, self._errors)
        self.lasting = LastingWrites(client, replicated=replicated)

    def _run(self, script: Script, keys: list[str], args: Words = ()) -> Any:
        with self._errors():
            return script.run(self._client, keys, args)

    def _run_lasting(self, write: str, script: Script, keys: list[str], args: Words = ()) -> Any:
        with self._errors():
            return self.lasting.run(write, script, keys, args)

    def begin(
        self,
        session: str,
        meta: Meta,
        tokens: TokenSet,
        data: Mapping[str, Any],
        *,
        pending: bool = False,
    ) -> SessionRecord:
        """Write a new session under its digest.

        One that is `pending` has never been seen: it counts for nobody, can be ended like any other, and is
        gone in a moment unless it is settled. So a sign-in that fails half-way leaves nothing.
        """
        key, now, head = self.codec.key(session), self.clock(), msgspec.msgpack.encode(meta)
        record = SessionRecord(key, head, meta, now, 1, tokens, dict(data))
        seen = repr(0.0 if pending else now)
        sealed = self.codec.seal_tokens(key, head, tokens)
        fields: list[str | int | bytes] = [b"m", head, b"s", seen, b"g", 1, b"t", sealed]
        for name, value in data.items():
            field = DATA + name.encode()
            fields += [field, self.codec.seal_data(key, field, head, value)]
        for name in (meta.user, *meta.provider_sids):
            self.index.add(name, session, self.lifetime.longest_end(record))
        end = milliseconds(self.lifetime.ends_at(record, now))
        self._run(lua.BEGIN, [key], [PENDING_SECONDS if pending else 0, end, *fields])
        return record

    def settle(self, record: SessionRecord) -> bool:
        """Let a pending session live; False where it has ended meanwhile."""
        return self._slide_to(record, record.last_seen, self.lifetime.ends_at(record, record.last_seen))

    def load(self, session: str) -> SessionRecord | None:
        """The live session of that digest with all its data; None if it has ended."""
        key = self.codec.key(session)
        with self._errors():
            fields: dict[bytes, bytes] = self._client.hgetall(key)  # type: ignore[assignment]
        return self._live(key, fields)

    def peek(self, session: str) -> Meta | None:
        """Whose session that is, even if its seals do not open."""
        with self._errors():
            head = cast("bytes | None", self._client.hget(self.codec.key(session), "m"))
        return None if head is None else self.codec.meta({b"m": head})

    def look(self, session: str) -> Found | None:
        """What lies under that digest; None where nothing does."""
        key = self.codec.key(session)
        with self._errors():
            fields: dict[bytes, bytes] = self._client.hgetall(key)  # type: ignore[assignment]
        if not fields:
            return None
        try:
            return Found(self.codec.meta(fields), self.codec.read(key, fields))
        except StoreUnavailable:
            return Found(self.codec.meta(fields), None)

    def slide(self, record: SessionRecord) -> float:
        """Extend the idle time from now; the new end, in seconds since the epoch."""
        now = self.clock()
        end = self.lifetime.ends_at(record, now)
        self._slide_to(record, now, end)
        return end

    def _slide_to(self, record: SessionRecord, seen: float, end: float) -> bool:
        return bool(self._run(lua.SLIDE, [record.key], lua.slide_arguments(record, seen, end)))

    def save_data(self, record: SessionRecord, changes: Mapping[str, Any]) -> bool:
        """Write changed keys of the Flask session (None deletes one); False where the session is gone."""
        args: list[str | int | bytes] = []
        for name, value in changes.items():
            field = DATA + name.encode()
            args += [
                field,
                b"" if value is None else self.codec.seal_data(record.key, field, record.head, value),
            ]
        return bool(self._run(lua.SAVE_DATA, [record.key], args))

    def save_tokens(self, record: SessionRecord, tokens: TokenSet) -> Saved:
        """Replace the token set of exactly that generation; the session may now end earlier or later."""
        sealed = self.codec.seal_tokens(record.key, record.head, tokens)
        end = self.lifetime.absolute_end(msgspec.structs.replace(record, tokens=tokens))
        args: list[str | int | bytes] = [record.generation, sealed, repr(self.lifetime.idle), repr(end)]
        return Saved(self._run_lasting("refresh", lua.SAVE_TOKENS, [record.key], args))

    def end(self, session: str, reason: Reason = Reason.REVOKED) -> SessionRecord | None:
        """Delete a session, whatever state it is in; what it held, if that opens, for revocation. The
        `reason` is kept for a moment, for streams of the session that are open elsewhere."""
        key = self.codec.key(session)
        keys = [*with_lease(key), note(key)]
        flat: list[bytes] = self._run_lasting("end", lua.END, keys, [reason, NOTE_SECONDS])
        fields = dict(zip(flat[::2], flat[1::2], strict=True))
        if (meta := self.codec.meta(fields)) is not None:
            self._forget(meta, session)
        try:
            return self.codec.read(key, fields)
        except StoreUnavailable:  # sealed under a missing key: signing out works even then
            return None

    def _forget(self, meta: Meta, session: str) -> None:
        with suppress(StoreUnavailable):  # the session has ended; the index finds out when it is read
            for name in (meta.user, *meta.provider_sids):
                self.index.remove(name, session)

    def end_if_current(self, record: SessionRecord) -> bool:
        """Delete a session whose tokens the provider refused, unless they have been replaced since `record`
        was read."""
        keys = [*with_lease(record.key), note(record.key)]
        args: list[str | int | bytes] = [record.generation, Reason.PROVIDER, NOTE_SECONDS]
        ended = bool(self._run_lasting("end", lua.END_IF, keys, args))
        if ended:
            self._forget(record.meta, self.codec.session(record.key))
        return ended

    def names(self) -> Iterator[str]:
        """The digests of all sessions, by SCAN: all that were there from its beginning to its end."""
        with self._errors():
            for key in self._client.scan_iter(self.codec.pattern, count=500):
                if (name := self.codec.name(key)) is not None:
                    yield name

    def lease(self, record: SessionRecord, owner: str, seconds: float) -> Lease:
        """Ask for the sole right to refresh this generation of tokens, for so long; `renew` keeps it."""
        moment = milliseconds(ANSWERED_SECONDS)
        args: list[str | int | bytes] = [record.generation, owner, milliseconds(seconds), moment]
        return Lease(self._run(lua.LEASE, with_lease(record.key), args))

    def release(self, record: SessionRecord, owner: str, pause: float = 0) -> None:
        """Give the right back, if it is still the owner's; nobody gets it for `pause` seconds."""
        self._run(lua.RELEASE, with_lease(record.key), [owner, milliseconds(pause)])

    def claim_once(self, name: str, seconds: int) -> bool:
        """True for the first caller with that name within `seconds`, over all processes."""
        claim = secrets.token_bytes(16)  # told from another's where the client had to send it twice
        return bool(self._run(lua.CLAIM, [self.codec.key(name)], [claim, seconds]))

    def claimed(self, name: str) -> bool:
        """Whether somebody has that name."""
        with self._errors():
            return bool(self._client.exists(self.codec.key(name)))

    def mark_replaced(self, session: str) -> None:
        """Remember for a while that a new sign-in of the same browser takes the place of a session."""
        self.claim_once(f"replaced {session}", REPLACED_SECONDS)

    def was_replaced(self, record: SessionRecord) -> bool:
        """Whether that is why a session is gone: its tokens may then be the new one's grant, too."""
        return self.claimed(f"replaced {self.codec.session(record.key)}")

    def overtake(self, session: str, browsers: Collection[str], seconds: int) -> set[str]:
        """Put a new session last in the line of each of those `browsers`, kept for so many seconds; those
        that stand before it there, whom it ends.

        One script for all lines, which therefore lie in one slot: of two sign-ins at the same instant one
        is the later, for both. Asked again, it says the same.
        """
        keys = [self.codec.key("overlaps") + f":{browser}" for browser in browsers]
        earlier: list[bytes] = self._run(lua.OVERTAKE, keys, [session, seconds])
        return {name.decode() for name in earlier}

    def ping(self) -> None:
        """Raises StoreUnavailable unless Redis takes a write and gives it back."""
        key, value = self.codec.key("ready"), secrets.token_bytes(8)
        with self._errors():
            self._client.set(key, value, ex=60)
            given_back = self._client.get(key)
        if given_back is None:  # another process may have written its own meanwhile
            raise unavailable("it does not give back what was written")
        self.index.redis_clock.learn()

    def _live(self, key: str, fields: Mapping[bytes, bytes]) -> SessionRecord | None:
        record = self.codec.read(key, fields)
        return record if record is not None and self.lifetime.live(record, self.clock()) else None
