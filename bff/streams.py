"""Answers that stay open, and the one watcher that ends them with their sessions.

Whichever process ends a session, and however it does, all others see it within two seconds: once a second
each asks Redis for the sessions that it has open streams of. The idle and the absolute end are judged by our
own clock as well. Nothing here extends a session.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any, Protocol

import structlog

from bff.errors import StoreUnavailable, TooManyStreams
from bff.sessions.ending import Reason
from bff.sessions.glance import Gone, glance
from bff.sessions.lifetime import Lifetime
from bff.sessions.reader import SessionReader
from bff.sessions.record import SessionRecord
from bff.tokens import Clock

LOOK_SECONDS = 1.0
HANG_SECONDS = 0.5
BATCH = 256
"""So many questions are in flight at once."""
BEAT_TICKS = 15
"""Each stream that wants it is given a sign of life so often, in turns of LOOK_SECONDS."""
BLIND_SECONDS = 30.0
"""So long a stream stays open while Redis does not say whether its session lives."""
WARNING_SECONDS = 60.0
"""The warning comes so long before an end, or a tenth of the lifetime where that is less."""
RETRY_SECONDS = 10

log = structlog.get_logger("bff.streams")


class Stream(Protocol):
    """An open answer. Its methods return at once and do not raise."""

    def beat(self) -> None:
        """Time for a sign of life."""

    def expiring(self, seconds: float) -> None:
        """The session ends in so many seconds, unless somebody extends it."""

    def end(self, reason: Reason | None) -> None:
        """End now. The reason is None where the session may live on: it cannot be seen, or we shut down."""


class _Watched:
    """A session with open streams: the little of it that the watcher needs."""

    __slots__ = ("absolute_end", "generation", "idle_end", "key", "seen_at", "streams", "warned_of")

    def __init__(self, record: SessionRecord, lifetime: Lifetime) -> None:
        self.key = record.key
        self.streams: dict[int, Stream] = {}
        self.warned_of: tuple[str, float] | None = None
        self.update(record, lifetime)

    def update(self, record: SessionRecord, lifetime: Lifetime) -> None:
        self.generation = record.generation
        self.absolute_end = lifetime.absolute_end(record)
        self.see(record.last_seen, lifetime)

    def see(self, last_seen: float, lifetime: Lifetime) -> None:
        self.idle_end = last_seen + lifetime.idle
        self.seen_at = time.monotonic()

    def tell(self, message: Callable[[Stream], None], *, turn: int | None = None) -> None:
        """Give all streams a message, or those whose turn it is. One that fails keeps it from no other."""
        for number, stream in list(self.streams.items()):
            if turn is None or number % BEAT_TICKS == turn:
                try:
                    message(stream)
                except Exception:  # no stream may outlive its session for that
                    log.exception("stream_not_told")

    def next_end(self) -> tuple[str, float]:
        """Which end comes first, and when."""
        absolute = self.absolute_end <= self.idle_end
        return ("absolute", self.absolute_end) if absolute else ("idle", self.idle_end)


class Streams:
    """All open streams of this process. Lives in one event loop."""

    def __init__(
        self,
        reader: SessionReader,
        ask: Callable[..., Awaitable[Any]],
        lifetime: Lifetime,
        clock: Clock,
        *,
        per_session: int,
        per_worker: int,
    ) -> None:
        """`ask` sends a command to Redis. `per_session` and `per_worker` bound what is open here."""
        self._reader = reader
        self._ask = ask
        self._lifetime = lifetime
        self._clock = clock
        self._per_session = per_session
        self._per_worker = per_worker
        self._places: Counter[str] = Counter()
        self._taken = 0
        self._watched: dict[str, _Watched] = {}
        self._numbers = count()
        self._watcher: asyncio.Task[None] | None = None

    @contextmanager
    def place(self, owner: str) -> Iterator[None]:
        """A place for one stream of `owner`, a session or an address. Raises TooManyStreams.

        Counted before anybody asks Redis: what is refused costs it nothing."""
        if self._places[owner] >= self._per_session or self._taken >= self._per_worker:
            raise TooManyStreams("Too many streams are open already.", retry_after=RETRY_SECONDS)
        self._places[owner] += 1
        self._taken += 1
        try:
            yield
        finally:
            self._taken -= 1
            self._places[owner] -= 1
            if not self._places[owner]:
                del self._places[owner]

    @contextmanager
    def watch(self, record: SessionRecord, stream: Stream) -> Iterator[None]:
        """Tell `stream` what becomes of the session, for the length of a block."""
        watched = self._watched.get(record.key)
        if watched is None:
            watched = self._watched[record.key] = _Watched(record, self._lifetime)
        number = next(self._numbers)
        watched.streams[number] = stream
        if self._watcher is None or self._watcher.done():
            self._watcher = asyncio.get_running_loop().create_task(self._run())
        try:
            yield
        finally:
            watched.streams.pop(number, None)
            if not watched.streams and self._watched.get(record.key) is watched:
                del self._watched[record.key]

    async def _run(self) -> None:
        """While there are streams: ask Redis, then judge by our clock. First ask, for another process may
        just have extended a session; but one that hangs must not keep expired streams open."""
        looking: asyncio.Task[None] | None = None
        for tick in count():
            await asyncio.sleep(LOOK_SECONDS)
            if not self._watched:
                return
            if looking is None or looking.done():
                looking = asyncio.get_running_loop().create_task(self._look_at_all())
            await asyncio.wait({looking}, timeout=HANG_SECONDS)
            self._judge_all(tick)

    def _judge_all(self, tick: int) -> None:
        now, blind_since = self._clock(), time.monotonic() - BLIND_SECONDS
        for watched in list(self._watched.values()):
            kind, end = watched.next_end()
            if now >= end:
                self._end(watched, Reason.EXPIRED)
            elif watched.seen_at < blind_since:
                log.warning("stream_ended", reason="the session could not be read for too long")
                self._end(watched, None)
            else:
                self._warn(watched, kind, end, now)
                watched.tell(lambda stream: stream.beat(), turn=tick % BEAT_TICKS)

    def _warn(self, watched: _Watched, kind: str, end: float, now: float) -> None:
        """Once for each end; one that has been moved is another."""
        lifetime = self._lifetime.absolute if kind == "absolute" else self._lifetime.idle
        if end - now <= min(WARNING_SECONDS, lifetime / 10) and watched.warned_of != (kind, end):
            watched.warned_of = (kind, end)
            watched.tell(lambda stream: stream.expiring(end - now))

    def _end(self, watched: _Watched, reason: Reason | None) -> None:
        if self._watched.get(watched.key) is watched:
            del self._watched[watched.key]
        watched.tell(lambda stream: stream.end(reason))

    async def _look_at_all(self) -> None:
        sessions = list(self._watched.values())
        for start in range(0, len(sessions), BATCH):
            batch = sessions[start : start + BATCH]
            for failure in await asyncio.gather(*map(self._look, batch), return_exceptions=True):
                if isinstance(failure, Exception) and not isinstance(failure, StoreUnavailable):
                    log.error("stream_not_watched", reason=type(failure).__name__, exc_info=failure)

    async def _look(self, watched: _Watched) -> None:
        found = await glance(self._ask, watched.key)
        if isinstance(found, Gone):
            self._end(watched, found.reason)
        elif found.generation == watched.generation:
            watched.see(found.last_seen, self._lifetime)
        else:  # other tokens, which may end at another time
            record = await self._reader.load_key(watched.key)
            if record is not None:
                watched.update(record, self._lifetime)
