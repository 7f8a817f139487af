"""Redis's clock: the one that all machines share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bff.sessions.errors import StoreErrors
from bff.sessions.script import Script
from bff.tokens import Clock

if TYPE_CHECKING:
    import redis

_TIME = Script("return redis.call('TIME')")
"""Of the server that has the key's slot. The servers of a Cluster must agree on the time among themselves."""
LEARN_SECONDS = 60
KNOWN_SECONDS = 600
"""So long what was learnt is good enough: clocks drift slowly, and a readiness probe learns it anew."""


class RedisClock:
    """What Redis's clock differs from ours by: learnt where Redis is asked anyway (readiness, the end of a
    sign-in), so that whoever begins a sign-in, which anybody can, costs Redis nothing. For threads."""

    def __init__(self, client: redis.Redis, prefix: str, clock: Clock, errors: StoreErrors) -> None:
        """`prefix` begins every key in Redis."""
        self._client = client
        self._key = f"{prefix}{{clock}}"
        self._clock = clock
        self._errors = errors
        self._known: tuple[float, float] | None = None
        """What it is ahead by, and when that was learnt, in seconds."""

    def at(self, moment: float) -> float | None:
        """A moment by our clock as Redis's clock tells it, or a little less; None where that is not known."""
        known = self._known
        if known is None or abs(self._clock() - known[1]) > KNOWN_SECONDS:
            return None
        return moment + known[0]

    def learn(self) -> None:
        """Ask Redis, unless that was done a moment ago. Raises StoreUnavailable."""
        known = self._known
        if known is not None and abs(self._clock() - known[1]) <= LEARN_SECONDS:
            return
        with self._errors():
            seconds, microseconds = map(int, _TIME.run(self._client, [self._key]))
        now = self._clock()  # after the answer: what is learnt is never too much
        self._known = (seconds + microseconds / 1e6 - now, now)
