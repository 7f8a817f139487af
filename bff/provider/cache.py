"""A document that is fetched when needed, by one thread at a time, and outlives an outage."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from bff.errors import ProviderUnavailable
from bff.tokens import Clock

T = TypeVar("T")


class Cached(Generic[T]):
    """The newest value that could be had.

    Past its lifetime a value is fetched again, but goes on being served while the provider is away. After
    a failure nobody asks again for a moment: a provider in trouble is not stormed.
    """

    def __init__(
        self,
        fetch: Callable[[], T],
        clock: Clock,
        *,
        lifetime: float = 3600,
        cooldown: float = 2,
        renewal_cooldown: float = 5,
    ) -> None:
        """`fetch` raises ProviderUnavailable; the times are in seconds: `cooldown` after a failure,
        `renewal_cooldown` after a renewal that brought nothing new."""
        self._fetch = fetch
        self._clock = clock
        self._lifetime = lifetime
        self._cooldown = cooldown
        self._renewal_cooldown = renewal_cooldown
        self._lock = threading.Lock()
        self._value: T | None = None
        self._fetched_at = 0.0
        self._failed_at = float("-inf")
        self._in_vain: dict[str, float] = {}
        self._begun = 0
        self._failure: ProviderUnavailable | None = None

    def get(self) -> T:
        """The value. Waits only where there is none yet. Raises ProviderUnavailable."""
        if not self.fresh() and self._lock.acquire(blocking=self._value is None):
            try:
                if not self.fresh() and not self._within(self._failed_at, self._cooldown):
                    self._ask()
            finally:
                self._lock.release()
        if self._value is None:
            raise self._failure or ProviderUnavailable("Please try again shortly.", reason="not known yet")
        return self._value

    def renew(self, tried: T, asker: str) -> T:
        """The value after `tried`, which was young and yet did not help (an unknown key id); `tried` itself
        where there is no other.

        Who finds nothing new does not ask again for a moment. Each kind of `asker` has a cooldown of its
        own, which no ordinary fetch begins: strangers with made-up tokens cost one fetch in a cooldown, and
        do not delay what a sign-in needs.
        """
        begun = self._begun
        with self._lock:
            # A fetch that began after we asked is as good as our own; one that was under way is not: the
            # keys may have been rotated since. But if it brought another value, that one is to be tried.
            needless = self._value is not tried or self._begun != begun
            if not needless and not self._within(self._in_vain.get(asker), self._renewal_cooldown):
                self._ask()
                if self._value is tried:
                    self._in_vain[asker] = self._clock()
        return self.get()

    def fresh(self) -> bool:
        """Whether there is a value within its lifetime."""
        return self._value is not None and self._clock() - self._fetched_at < self._lifetime

    def known(self) -> T | None:
        """What is known now, without asking anybody."""
        return self._value

    def _ask(self) -> None:
        """Fetch, with the lock in hand. A value that equals the known one leaves that in its place."""
        self._begun += 1
        try:
            value = self._fetch()
        except ProviderUnavailable as error:
            self._failure, self._failed_at = error, self._clock()
            return
        except BaseException:
            self._failed_at = self._clock()
            raise
        if value != self._value:
            self._value = value
        self._fetched_at, self._failure = self._clock(), None

    def _within(self, since: float | None, seconds: float) -> bool:
        """Whether that is less than so many seconds ago; a clock that was set back ends every wait."""
        return since is not None and 0 <= self._clock() - since < seconds
