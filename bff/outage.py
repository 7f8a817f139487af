"""What a process knows of a provider in trouble: how long to leave it alone. Free of I/O."""

from __future__ import annotations

import threading

from bff.tokens import Clock

LONGEST_PAUSE_SECONDS = 15.0
ENOUGH_FAILURES = 3
"""So many outages in a row are the provider's trouble and not one connection's."""
NEWS_SECONDS = 1.0
"""While one call finds out, the others look for its news so soon again: most bring good news at once."""


class Outage:
    """Counts failures. Each session that has failed waits longer each time; once the provider itself is in
    trouble, one call at a time finds out whether it is back: thousands of sessions must not storm it."""

    def __init__(self, clock: Clock) -> None:
        """`clock` gives seconds from any beginning, and never goes back."""
        self._clock = clock
        self._lock = threading.Lock()
        self._failures = 0
        self._outages = 0
        self._quiet_until = 0.0
        self._asking = False

    def wait(self) -> float:
        """Seconds for which this process asks nothing. 0 is leave for one call; report what came of it."""
        with self._lock:
            if self._outages < ENOUGH_FAILURES:
                return 0.0
            left = self._quiet_until - self._clock()
            if left > 0:
                return min(left, NEWS_SECONDS) if self._asking else left
            self._quiet_until = self._clock() + LONGEST_PAUSE_SECONDS
            self._asking = True
            return 0.0

    def failed(self, *, outage: bool) -> float:
        """A call failed: as an `outage` (no answer of use), or refused by a provider that is alive. The
        pause of its session, in seconds."""
        with self._lock:
            self._asking = False
            self._failures += 1
            self._outages = self._outages + 1 if outage else 0
            pause = float(min(LONGEST_PAUSE_SECONDS, 2 ** min(self._failures, 8)))
            self._quiet_until = self._clock() + pause
            return pause

    def over(self) -> None:
        """A call was answered as it should be."""
        with self._lock:
            self._asking = False
            self._failures = self._outages = 0
