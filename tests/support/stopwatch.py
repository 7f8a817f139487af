"""How long something took, on machines that are busy with other things, too."""

from __future__ import annotations

import time
from pathlib import Path

_PRESSURE = Path("/proc/pressure")
PATIENCE = 5
"""So many times as long may something take at most, however busy the machine is."""
_RESOURCES = ("cpu", "io", "memory")


class Stopwatch:
    """Runs from the moment it is made."""

    def __init__(self) -> None:
        self._began, self._hindered = time.monotonic(), _hindered()

    @property
    def elapsed(self) -> float:
        """All seconds since, as on a clock on the wall: what took long enough."""
        return time.monotonic() - self._began

    @property
    def own(self) -> float:
        """Those of them in which nobody on this machine had to wait for a processor, a disk or memory, and a
        fifth of all at least: what was quick enough. On a quiet machine, and where the kernel does not say,
        all seconds."""
        elapsed = self.elapsed
        return max(elapsed - (_hindered() - self._hindered), elapsed / PATIENCE)


def _hindered() -> float:
    """Seconds since the machine's start in which at least one task was kept waiting
    (https://docs.kernel.org/accounting/psi.html)."""
    return sum(_stalled(_PRESSURE / resource) for resource in _RESOURCES)


def _stalled(file: Path) -> float:
    try:
        some = file.read_text().partition("\n")[0]
        return int(some.rpartition("total=")[2]) / 1e6
    except (OSError, ValueError):  # an older kernel, or one that does not count it
        return 0.0
