"""Which sessions a user has, and since when none of the older sign-ins counts.

The index is a hint, never the truth: it is written before the session, expires by itself, and what it names
is looked up when it is read. The cut-off makes "end all sessions" final: a sign-in that had begun before it
ends itself when it finds the cut-off, which it looks for after its session has been written. Either it finds
it, or whoever set it finds the session.

A user is `user_hash`; a session of the provider is a keyed hash of its `sid`, and has an index and a cut-off
in the same way. Index and cut-off of one name lie in one slot of a Cluster, each in a key of its own.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, cast

from bff.sessions.errors import StoreErrors
from bff.sessions.script import Script
from bff.tokens import Clock

if TYPE_CHECKING:
    import redis

EVERYBODY = "everybody"

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
_READ_CUT_OFF = Script("""
local at = redis.call('GET', KEYS[1])
if not at then return {} end
local now = redis.call('TIME')
return {at, now[1], now[2]}
""")


class UserIndex:
    """For threads. Every method may raise StoreUnavailable."""

    def __init__(self, client: redis.Redis, prefix: str, clock: Clock, errors: StoreErrors) -> None:
        """`prefix` begins every key in Redis."""
        self._errors = errors
        self._client = client
        self._prefix = prefix
        self._clock = clock

    def add(self, user: str, session: str, ends_at: float) -> None:
        """Note that the user has this session (a digest), for as long as it can live."""
        with self._errors():
            # Whole seconds: Redis keeps them in a third of the room.
            args: list[str | int | bytes] = [session, math.ceil(ends_at), repr(self._clock())]
            _ADD.run(self._client, [self._key(user)], args)

    def remove(self, user: str, *sessions: str) -> None:
        """Forget sessions that have ended."""
        if sessions:
            with self._errors():
                self._client.zrem(self._key(user), *sessions)

    def of(self, user: str) -> list[str]:
        """Digests of sessions that the user may have; each must be looked up."""
        with self._errors():
            now = repr(self._clock())
            found = cast("list[bytes]", self._client.zrangebyscore(self._key(user), now, "+inf"))
        return [name.decode() for name in found]

    def cut_off(self, user: str, seconds: int) -> None:
        """From now on no sign-in of the user (or of EVERYBODY) counts that has begun before; kept for so
        many seconds, which must be longer than a sign-in can take."""
        with self._errors():
            _CUT_OFF.run(self._client, [_cut_off_key(self._key(user))], [seconds])

    def is_cut_off(self, names: Iterable[str], began_at: float) -> bool:
        """Whether a sign-in that began then, by our clock, is too old to count for one of these.

        The cut-off is Redis's time, the same for all machines; what our clock differs by is taken out.
        """
        return any(self._cut_off_after(self._key(name), began_at) for name in (*names, EVERYBODY))

    def _cut_off_after(self, key: str, began_at: float) -> bool:
        with self._errors():
            found = _READ_CUT_OFF.run(self._client, [_cut_off_key(key)])
        if not found:
            return False
        set_at, seconds, microseconds = map(int, found)
        ahead = seconds + microseconds / 1e6 - self._clock()
        return (began_at + ahead) * 1000 <= set_at

    def _key(self, user: str) -> str:
        return f"{self._prefix}{{user:{user}}}"


def _cut_off_key(key: str) -> str:
    return key + ":cutoff"
