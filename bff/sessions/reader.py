"""The data plane's view of sessions: one round trip for a live one, and the slide."""

from __future__ import annotations

from collections.abc import Awaitable, Coroutine, Sequence
from typing import Any, Protocol

from redis.exceptions import NoScriptError, RedisError

from bff.sessions import lua
from bff.sessions.errors import store_errors, unavailable
from bff.sessions.lifetime import Lifetime
from bff.sessions.record import Codec, SessionRecord, milliseconds, with_lease
from bff.sessions.script import Script, Words
from bff.tokens import Clock


class Asks(Protocol):
    """Whatever takes commands to Redis, each of which may be sent twice."""

    def ask(self, *command: bytes | str | int) -> Awaitable[Any]:
        """The answer, within three seconds. Awaiting it raises RedisError."""

    def core(self, key: str) -> Awaitable[Any]:
        """The fields `CORE` of a session, likewise."""

    async def close(self) -> None:
        """Hang up."""


class SessionReader:
    """For one event loop. Methods may raise StoreUnavailable."""

    def __init__(self, wire: Asks, codec: Codec, lifetime: Lifetime, clock: Clock) -> None:
        self._wire = wire
        self._codec = codec
        self.lifetime = lifetime
        self._clock = clock

    def load(self, session: str) -> Coroutine[Any, Any, SessionRecord | None]:
        """The live session of that digest with its tokens only. Awaiting it raises StoreUnavailable."""
        return self.load_key(self._codec.key(session))

    async def load_key(self, key: str) -> SessionRecord | None:
        """The same by the Redis key."""
        try:
            values: list[Any] = await self._wire.core(key)
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
        end = self.lifetime.ends_at(record, now)
        await self._run(lua.SLIDE, [record.key], lua.slide_arguments(record, now, end))

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
