"""The faults in force. They live in this process's memory and end with it."""

import threading
from collections.abc import Callable
from dataclasses import replace

from bff.dev_idp.control.fault import Fault, Kind, Slow

MOST = 100
# Of the server's threads some must stay free, or nobody could delete a slow fault any more.
MOST_SLOW_AT_ONCE = 8


class Faults:
    """Adds, lists, deletes and hands out faults."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._faults: dict[int, Fault] = {}
        self._last = 0
        self._all_deleted = threading.Event()
        self._slow = threading.BoundedSemaphore(MOST_SLOW_AT_ONCE)

    def add(self, fault: Fault) -> int | None:
        """Put a fault in force; gives its number, or None where there are too many already."""
        with self._lock:
            if len(self._faults) >= MOST:
                return None
            self._last += 1
            self._faults[self._last] = fault
            return self._last

    def all(self) -> list[tuple[int, Fault]]:
        """Numbers and faults, the oldest first."""
        with self._lock:
            return list(self._faults.items())

    def delete(self, number: int | None = None) -> int:
        """Delete one fault, or all and with them the waiting of slow answers; says how many there were."""
        with self._lock:
            gone = list(self._faults) if number is None else [n for n in (number,) if n in self._faults]
            for each in gone:
                del self._faults[each]
            if number is None:
                self._all_deleted.set()
                self._all_deleted = threading.Event()
        return len(gone)

    def take(self, endpoint: str, user: Callable[[], str], *, for_user_only: bool = False) -> list[Kind]:
        """What a request to this endpoint meets: every slow fault that fits, and the oldest other one.

        Counts them down. `user` finds the subject whose request it is (empty if unknown); it is asked only
        where a fault names one. `for_user_only` leaves the faults for everybody out.
        """
        named = any(fault.user for _, fault in self.all() if fault.endpoint == endpoint)
        whose = user() if named else ""
        with self._lock:
            found: list[tuple[int, Fault]] = []
            for number, fault in self._faults.items():
                if fault.endpoint != endpoint or (not fault.user and for_user_only):
                    continue
                if fault.user and fault.user != whose:
                    continue
                if isinstance(fault.kind, Slow) or all(isinstance(f.kind, Slow) for _, f in found):
                    found.append((number, fault))
            for number, fault in found:
                self._count_down(number, fault)
        # The slow ones first: the other may be the end of it.
        return sorted((fault.kind for _, fault in found), key=lambda kind: not isinstance(kind, Slow))

    def wait(self, seconds: float) -> bool:
        """Be slow until the time is over or all faults are deleted. False at once where too many wait."""
        if not self._slow.acquire(blocking=False):
            return False
        try:
            self._all_deleted.wait(seconds)
        finally:
            self._slow.release()
        return True

    def _count_down(self, number: int, fault: Fault) -> None:
        if fault.times == 1:
            del self._faults[number]
        elif fault.times > 1:
            self._faults[number] = replace(fault, times=fault.times - 1)
