"""Which sessions a user has, and since when none of the older sign-ins counts.

The index is a hint, never the truth: it is written before the session, expires by itself, and what it names
is looked up when it is read. The cut-off makes "end all sessions" final: a sign-in that had begun before it
ends itself when it finds the cut-off, which it looks for after its session has been written. Either it finds
it, or whoever set it finds the session.

When it began is told by Redis's clock, which all machines share; see `RedisClock`.

A user is `user_hash`; a session of the provider is a keyed hash of its `sid`, and has an index and a cut-off
in the same way. Index and cut-off of one name lie in one slot of a Cluster, each in a key of its own. In an
index, sessions are named by the bytes of their digest.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, cast

from bff.sessions.errors import StoreErrors
from bff.sessions.record import is_digest
from bff.sessions.redis_clock import RedisClock
from bff.sessions.script import Script
from bff.tokens import Clock

if TYPE_CHECKING:
    import redis

EVERYBODY = "everybody"
DIGEST_BYTES = 32


def without_sid(user: str) -> str:
    """The name for the sessions of a user of which no `sid` of the provider is known."""
    return f"{user} without sid"


_ADD = Script("""
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', ARGV[3])
redis.call('ZADD', KEYS[1], ARGV[2], ARGV[1])
local last = redis.call('ZRANGE', KEYS[1], -1, -1, 'WITHSCORES')
redis.call('PEXPIREAT', KEYS[1], math.ceil(tonumber(last[2]) * 1000))
return 1
""")

_CUT_OFF = Script("""
local now = redis.call('TIME')
redis.call('SET', KEYS[1], now[1] * 1000 + math.floor(now[2] / 1000), 'EX', ARGV[1])
return 1
""")

# With the time of the same server: those of a Cluster have clocks of their own.


class UserIndex:
    """For threads. Every method may raise StoreUnavailable."""

    def __init__(self, client: redis.Redis, prefix: str, clock: Clock, errors: StoreErrors) -> None:
        """`prefix` begins every key in Redis."""
        self._errors = errors
        self._client = client
        self._prefix = prefix
        self._clock = clock
        self.redis_clock = RedisClock(client, prefix, clock, errors)

    def add(self, user: str, session: str, ends_at: float) -> None:
        """Note that the user has this session (a digest), for as long as it can live."""
        with self._errors():
            # Whole seconds: Redis keeps them in a third of the room.
            args: list[str | int | bytes] = [_member(session), math.ceil(ends_at), repr(self._clock())]
            _ADD.run(self._client, [self._key(user)], args)

    def remove(self, user: str, *sessions: str) -> None:
        """Forget sessions that have ended."""
        if sessions:
            with self._errors():
                self._client.zrem(self._key(user), *map(_member, sessions), *sessions)

    def of(self, user: str) -> dict[str, float]:
        """Digests of sessions that the user may have, each of which must be looked up; with the end that no
        one of them outlives."""
        with self._errors():
            found = self._client.zrangebyscore(self._key(user), repr(self._clock()), "+inf", withscores=True)
        return {_session(name): score for name, score in cast("list[tuple[bytes, float]]", found)}

    def cut_off(self, user: str, seconds: int) -> None:
        """From now on no sign-in of the user (or of EVERYBODY) counts that has begun before; kept for so
        many seconds, which must be longer than a sign-in can take."""
        with self._errors():
            _CUT_OFF.run(self._client, [_cut_off_key(self._key(user))], [seconds])

    def is_cut_off(self, names: Iterable[str], *, began_at: float | None, started_at: float) -> bool:
        """Whether a sign-in is too old to count for one of these.

        `began_at` is when it began by Redis's clock. Where the machine on which it began did not know that,
        it is None, and `started_at` counts: by that machine's own clock, which is taken for as right as ours.
        """
        self.redis_clock.learn()
        with self._errors():
            found = [self._client.get(_cut_off_key(self._key(name))) for name in (*names, EVERYBODY)]
        set_at = [int(cast("bytes", value)) for value in found if value is not None]
        if began_at is None:
            known = self.redis_clock.at(started_at)
            began_at = started_at if known is None else known
        return any(began_at * 1000 <= moment for moment in set_at)

    def _key(self, user: str) -> str:
        return f"{self._prefix}{{user:{user}}}"


def _member(session: str) -> bytes:
    """How an index names a session: half as long as its digest."""
    return bytes.fromhex(session) if is_digest(session) else session.encode()


def _session(member: bytes) -> str:
    """The digest of a member; earlier versions wrote it as text."""
    return member.hex() if len(member) == DIGEST_BYTES else member.decode("ascii", "replace")


def _cut_off_key(key: str) -> str:
    return key + ":cutoff"
