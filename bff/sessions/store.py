"""The token store: every shared write is one script that decides on the server.

Nothing is ever written where the hash is gone, so that no slow request and no late refresh brings a
signed-out session back; tokens are saved by generation (compare and set), so that an old set never
replaces a newer one. Each script may reach Redis twice (the client repeats what went unanswered) and
says the same both times.
"""

from __future__ import annotations

import asyncio
import enum
import secrets
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

import msgspec

from bff.errors import StoreUnavailable
from bff.sessions.errors import StoreErrors, store_errors, unavailable
from bff.sessions.index import UserIndex
from bff.sessions.lifetime import Lifetime
from bff.sessions.record import CORE, DATA, Codec, Meta, SessionRecord
from bff.sessions.wire import Wire
from bff.tokens import Clock, TokenSet

if TYPE_CHECKING:
    import redis
    import redis.asyncio
from redis.exceptions import RedisError

SLIDE = """
local seen = redis.call('HGET', KEYS[1], 's')
if not seen then return 0 end
if tonumber(ARGV[1]) > tonumber(seen) then
  redis.call('HSET', KEYS[1], 's', ARGV[1])
  redis.call('PEXPIREAT', KEYS[1], ARGV[2])
end
return 1
"""

_SAVE_TOKENS = """
local g = redis.call('HGET', KEYS[1], 'g')
if not g then return 'gone' end
if g ~= ARGV[1] then return 'newer' end
redis.call('HSET', KEYS[1], 't', ARGV[2], 'g', g + 1)
redis.call('HDEL', KEYS[1], 'r')
local idle_end = tonumber(redis.call('HGET', KEYS[1], 's')) + tonumber(ARGV[3])
redis.call('PEXPIREAT', KEYS[1], math.floor(math.min(idle_end, tonumber(ARGV[4])) * 1000))
return 'saved'
"""

_SAVE_DATA = """
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
for i = 1, #ARGV, 2 do
  if ARGV[i + 1] == '' then redis.call('HDEL', KEYS[1], ARGV[i])
  else redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
end
return 1
"""

_END = """
local fields = redis.call('HGETALL', KEYS[1])
redis.call('DEL', KEYS[1], KEYS[2])
return fields
"""

_END_IF = """
if redis.call('HGET', KEYS[1], 'g') ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1], KEYS[2])
"""

# The field `r` says who began to redeem the tokens of which generation. Where a lease has run out although
# nobody gave it back, that redeem may have been answered: by a process that is cut off from Redis and is
# about to save. It gets a moment to do so before somebody else redeems the same token.
_LEASE = """
local g = redis.call('HGET', KEYS[1], 'g')
if not g then return 'gone' end
if g ~= ARGV[1] then return 'newer' end
local owner = redis.call('GET', KEYS[2])
if owner == ARGV[2] then return 'yours' end
if owner == 'pause' then return 'pause' end
if owner then return 'held' end
local mine, waited = g .. ' ' .. ARGV[2], g .. ' waited'
local begun = redis.call('HGET', KEYS[1], 'r')
if begun and begun ~= mine and begun ~= waited and string.sub(begun, 1, #g + 1) == g .. ' ' then
  redis.call('HSET', KEYS[1], 'r', waited)
  redis.call('SET', KEYS[2], 'waiting', 'PX', ARGV[4])
  return 'held'
end
redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[3])
redis.call('HSET', KEYS[1], 'r', mine)
return 'yours'
"""

RENEW = """
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[2], ARGV[2])
"""

_CLAIM = """
if redis.call('SET', KEYS[1], ARGV[1], 'NX', 'EX', ARGV[2]) then return 1 end
return redis.call('GET', KEYS[1]) == ARGV[1] and 1 or 0
"""

_OVERTAKE = """
local earlier = {}
for i = 1, #KEYS do
  local place = redis.call('LPOS', KEYS[i], ARGV[1])
  if not place then place = redis.call('RPUSH', KEYS[i], ARGV[1]) - 1 end
  redis.call('EXPIRE', KEYS[i], ARGV[2])
  if place > 0 then
    for _, name in ipairs(redis.call('LRANGE', KEYS[i], 0, place - 1)) do table.insert(earlier, name) end
  end
end
return earlier
"""

_RELEASE = """
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 0 end
redis.call('HDEL', KEYS[1], 'r')
if tonumber(ARGV[2]) > 0 and redis.call('EXISTS', KEYS[1]) == 1
then redis.call('SET', KEYS[2], 'pause', 'PX', ARGV[2])
else redis.call('DEL', KEYS[2]) end
return 1
"""


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


class SessionStore:
    """Sessions in Redis, for threads. Every method may raise StoreUnavailable."""

    def __init__(self, client: redis.Redis, codec: Codec, lifetime: Lifetime, clock: Clock) -> None:
        self._client = client
        self.codec = codec
        self.lifetime = lifetime
        self.clock = clock
        self._errors = StoreErrors()
        self.index = UserIndex(client, codec.prefix, clock, self._errors)
        self._save_tokens = client.register_script(_SAVE_TOKENS)
        self._save_data = client.register_script(_SAVE_DATA)
        self._slide = client.register_script(SLIDE)
        self._end = client.register_script(_END)
        self._end_if = client.register_script(_END_IF)
        self._lease = client.register_script(_LEASE)
        self._overtake = client.register_script(_OVERTAKE)
        self._claim = client.register_script(_CLAIM)
        self._release = client.register_script(_RELEASE)

    def begin(self, session: str, meta: Meta, tokens: TokenSet, data: Mapping[str, Any]) -> SessionRecord:
        """Write a new session under its digest."""
        key, now, head = self.codec.key(session), self.clock(), msgspec.msgpack.encode(meta)
        record = SessionRecord(key, head, meta, now, 1, tokens, dict(data))
        fields = {b"m": head, b"s": repr(now), b"g": "1", b"t": self.codec.seal_tokens(key, head, tokens)}
        for name, value in data.items():
            field = DATA + name.encode()
            fields[field] = self.codec.seal_data(key, field, head, value)
        for name in (meta.user, *meta.provider_sids):
            self.index.add(name, session, self.lifetime.longest_end(record))
        with self._errors():
            pipeline = self._client.pipeline(transaction=True)
            pipeline.delete(key)
            pipeline.hset(key, mapping=fields)  # type: ignore[arg-type]
            pipeline.pexpireat(key, _milliseconds(self.lifetime.ends_at(record, now)))
            pipeline.execute()
        return record

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

    def slide(self, record: SessionRecord) -> float:
        """Extend the idle time from now; the new end, in seconds since the epoch."""
        now = self.clock()
        end = self.lifetime.ends_at(record, now)
        with self._errors():
            self._slide(keys=[record.key], args=[repr(now), _milliseconds(end)])
        return end

    def save_data(self, record: SessionRecord, changes: Mapping[str, Any]) -> bool:
        """Write changed keys of the Flask session (None deletes one); False where the session is gone."""
        args: list[bytes] = []
        for name, value in changes.items():
            field = DATA + name.encode()
            args += [
                field,
                b"" if value is None else self.codec.seal_data(record.key, field, record.head, value),
            ]
        with self._errors():
            return bool(self._save_data(keys=[record.key], args=args))

    def save_tokens(self, record: SessionRecord, tokens: TokenSet) -> Saved:
        """Replace the token set of exactly that generation; the session may now end earlier or later."""
        sealed = self.codec.seal_tokens(record.key, record.head, tokens)
        end = self.lifetime.absolute_end(msgspec.structs.replace(record, tokens=tokens))
        args: list[str | int | bytes] = [record.generation, sealed, repr(self.lifetime.idle), repr(end)]
        with self._errors():
            return Saved(self._save_tokens(keys=[record.key], args=args))

    def end(self, session: str) -> SessionRecord | None:
        """Delete a session, whatever state it is in; what it held, if that opens, for revocation."""
        key = self.codec.key(session)
        with self._errors():
            flat: list[bytes] = self._end(keys=_pair(key))
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
        """Delete a session unless its tokens have been replaced since `record` was read."""
        with self._errors():
            ended = bool(self._end_if(keys=_pair(record.key), args=[record.generation]))
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
        with self._errors():
            moment = _milliseconds(ANSWERED_SECONDS)
            args: list[str | int] = [record.generation, owner, _milliseconds(seconds), moment]
            return Lease(self._lease(keys=_pair(record.key), args=args))

    def release(self, record: SessionRecord, owner: str, pause: float = 0) -> None:
        """Give the right back, if it is still the owner's; nobody gets it for `pause` seconds."""
        with self._errors():
            self._release(keys=_pair(record.key), args=[owner, _milliseconds(pause)])

    def claim_once(self, name: str, seconds: int) -> bool:
        """True for the first caller with that name within `seconds`, over all processes."""
        with self._errors():
            claim = secrets.token_bytes(16)  # told from another's where the client had to send it twice
            return bool(self._claim(keys=[self.codec.key(name)], args=[claim, seconds]))

    def claimed(self, name: str) -> bool:
        """Whether somebody has that name."""
        with self._errors():
            return bool(self._client.exists(self.codec.key(name)))

    def overtake(self, session: str, browsers: Collection[str], seconds: int) -> set[str]:
        """Put a new session last in the line of each of those `browsers`, kept for so many seconds; those
        that stand before it there, whom it ends.

        One script for all lines, which therefore lie in one slot: of two sign-ins at the same instant one
        is the later, for both. Asked again, it says the same.
        """
        keys = [self.codec.key("overlaps") + f":{browser}" for browser in browsers]
        with self._errors():
            earlier: list[bytes] = self._overtake(keys=keys, args=[session, seconds])
        return {name.decode() for name in earlier}

    def ping(self) -> None:
        """Raises StoreUnavailable unless Redis takes a write and gives it back."""
        key, value = self.codec.key("ready"), secrets.token_bytes(8)
        with self._errors():
            self._client.set(key, value, ex=60)
            given_back = self._client.get(key)
        if given_back is None:  # another process may have written its own meanwhile
            raise unavailable("it does not give back what was written")

    def _live(self, key: str, fields: Mapping[bytes, bytes]) -> SessionRecord | None:
        record = self.codec.read(key, fields)
        return record if record is not None and self.lifetime.live(record, self.clock()) else None


class SessionReader:
    """The data plane's view: one round trip for a live session, and the slide."""

    def __init__(
        self,
        client: redis.asyncio.Redis,
        codec: Codec,
        lifetime: Lifetime,
        clock: Clock,
        wire: Wire | None = None,
    ) -> None:
        """`wire`, where there is one, asks for sessions; `client` does the rest."""
        self._client = client
        self._wire = wire
        self._codec = codec
        self.lifetime = lifetime
        self._clock = clock
        self._slide = client.register_script(SLIDE)
        self._renew = client.register_script(RENEW)

    async def load(self, session: str) -> SessionRecord | None:
        """The live session of that digest with its tokens only. Raises StoreUnavailable."""
        return await self.load_key(self._codec.key(session))

    async def load_key(self, key: str) -> SessionRecord | None:
        """The same by the Redis key."""
        try:
            if self._wire is not None:
                values: list[Any] = await self._wire.ask(b"HMGET", key, *CORE)
            else:
                async with asyncio.timeout(READ_SECONDS):
                    values = await self._client.hmget(key, CORE)
        except (RedisError, TimeoutError) as error:
            raise unavailable(type(error).__name__) from error
        if None in values:
            return None
        record = self._codec.read_core(key, *values)
        return record if self.lifetime.live(record, self._clock()) else None

    def slide_due(self, record: SessionRecord) -> bool:
        """Whether it is time to extend the idle time."""
        return self.lifetime.slide_due(record, self._clock())

    async def slide(self, record: SessionRecord) -> None:
        """Extend the idle time."""
        now = self._clock()
        end = _milliseconds(self.lifetime.ends_at(record, now))
        with store_errors():
            async with asyncio.timeout(READ_SECONDS):
                await self._slide(keys=[record.key], args=[repr(now), end])

    async def renew(self, key: str, owner: str, seconds: float) -> None:
        """Keep a lease for so long from now, if it is still the owner's."""
        with store_errors():
            async with asyncio.timeout(READ_SECONDS):
                await self._renew(keys=_pair(key), args=[owner, _milliseconds(seconds)])

    async def close(self) -> None:
        """Hang up."""
        if self._wire is not None:
            await self._wire.close()
        await self._client.aclose()


ANSWERED_SECONDS = 5.0
"""What a process that was cut off from Redis gets to save what it has redeemed, before another redeems."""
READ_SECONDS = 2.5
"""All tries of a read together: a Redis that hangs must not hold requests."""


def _pair(key: str) -> list[str]:
    """A session's hash and its refresh lease: one slot, thanks to the hash tag."""
    return [key, key + ":lease"]


def _milliseconds(seconds: float) -> int:
    return int(seconds * 1000)
