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
        self, fetch: Callable[[], T], clock: Clock, *, lifetime: float = 3600, cooldown: float = 2
    ) -> None:
        """`fetch` raises ProviderUnavailable; `lifetime` and `cooldown` are in seconds."""
        self._fetch = fetch
        self._clock = clock
        self._lifetime = lifetime
        self._cooldown = cooldown
        self._lock = threading.Lock()
        self._value: T | None = None
        self._fetched_at = 0.0
        self._asked_at = float("-inf")
        self._rounds = 0
        self._failure: ProviderUnavailable | None = None

    def get(self) -> T:
        """The value. Waits only where there is none yet. Raises ProviderUnavailable."""
        if not self.fresh():
            self._try(block=self._value is None)
        if self._value is None:
            raise self._failure or ProviderUnavailable("Please try again shortly.", reason="not known yet")
        return self._value

    def renew(self) -> T:
        """Ask again although the value is young (an unknown key id), once in a cooldown."""
        self._try(block=True)
        return self.get()

    def fresh(self) -> bool:
        """Whether there is a value within its lifetime."""
        return self._value is not None and self._clock() - self._fetched_at < self._lifetime

    def known(self) -> T | None:
        """What is known now, without asking anybody."""
        return self._value

    def _try(self, *, block: bool) -> None:
        round_seen = self._rounds
        if not self._lock.acquire(blocking=block):
            return
        try:
            cooling = self._clock() - self._asked_at < self._cooldown
            if cooling or self._rounds != round_seen:  # or another thread has asked while we waited
                return
            try:
                self._value = self._fetch()
                self._fetched_at, self._failure = self._clock(), None
            except ProviderUnavailable as error:
                self._failure = error
            finally:
                self._rounds += 1
                self._asked_at = self._clock()
        finally:
            self._lock.release()
