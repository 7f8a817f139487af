"""Slows down the guessing of the control token."""

import threading
from collections import deque
from collections.abc import Callable

WRONG_TOKENS = 10
WINDOW_SECONDS = 60


class Guesses:
    """Counts wrong tokens by the address they came from."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._wrong: deque[tuple[float, str]] = deque(maxlen=1000)

    def too_many(self, address: str) -> bool:
        """Whether this address has to wait before any token of it is looked at again."""
        after = self._clock() - WINDOW_SECONDS
        with self._lock:
            return sum(then > after for then, whose in self._wrong if whose == address) >= WRONG_TOKENS

    def note(self, address: str) -> None:
        """A wrong token came from this address."""
        with self._lock:
            self._wrong.append((self._clock(), address))
