"""The data plane's view of sessions: one round trip for a live one, and the slide."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Any, Protocol

from redis.exceptions import NoScriptError

from bff.sessions import lua
from bff.sessions.errors import store_errors
from bff.sessions.lifetime import Lifetime
from bff.sessions.record import Codec, SessionRecord, milliseconds, with_lease
from bff.sessions.script import Script, Words
from bff.tokens import Clock

_READ = (b"m", b"s", b"g", b"t")


class Asks(Protocol):
    """Whatever takes commands to Redis, each of which may be sent twice."""

    def ask(self, *command: bytes | str | int) -> Awaitable[Any]:
        """The answer, within three seconds. Awaiting it raises RedisError."""

    async def close(self) -> None:
        """Hang up."""


class SessionReader:
    """For one event loop. Methods may raise StoreUnavailable."""

    def __init__(self, wire: Asks, codec: Codec, lifetime: Lifetime, clock: Clock) -> None:
        self._wire = wire
        self._codec = codec
        self.lifetime = lifetime
        self._clock = clock

    async def load(self, session: str) -> SessionRecord | None:
        """The live session of that digest with its tokens only. Raises StoreUnavailable."""
        return await self.load_key(self._codec.key(session))

    async def load_key(self, key: str) -> SessionRecord | None:
        """The same by the Redis key."""
        with store_errors():
            values: list[Any] = await self._wire.ask(b"HMGET", key, *_READ)
        fields = {name: value for name, value in zip(_READ, values, strict=True) if value is not None}
        record = self._codec.read(key, fields)
        return record if record is not None and self.lifetime.live(record, self._clock()) else None

    async def slide_if_due(self, record: SessionRecord) -> None:
        """Extend the idle time, as rarely as the lifetime says."""
        now = self._clock()
        if self.lifetime.slide_due(record, now):
            end = milliseconds(self.lifetime.ends_at(record, now))
            await self._run(lua.SLIDE, [record.key], [repr(now), end])

    async def renew(self, key: str, owner: str, seconds: float) -> None:
        """Keep a lease for so long from now, if it is still the owner's."""
        await self._run(lua.RENEW, with_lease(key), [owner, milliseconds(seconds)])

    async def close(self) -> None:
        """Hang up."""
        await self._wire.close()

    async def _run(self, script: Script, keys: Sequence[str], args: Words) -> None:
        with store_errors():
            try:
                await self._wire.ask(b"EVALSHA", script.sha, len(keys), *keys, *args)
            except NoScriptError:
                await self._wire.ask(b"EVAL", script.text, len(keys), *keys, *args)
