"""Leases that Redis may hold for nobody: their release, or the answer to their asking, was lost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Executor

import structlog

from bff.errors import StoreUnavailable
from bff.sessions.record import SessionRecord

AGAIN_SECONDS = 0.5

log = structlog.get_logger("bff.refresh")

Release = Callable[[SessionRecord, str, float], None]
"""Gives a lease of that owner back, with a pause in seconds. Raises StoreUnavailable."""


class UnreleasedLeases:
    """Gives them back as soon as Redis answers, one after the other: or every process would wait until they
    have run out. An owner must be one flight's alone: what arrives late must not take a newer lease."""

    def __init__(self, release: Release, pool: Executor, lease_seconds: float) -> None:
        """After `lease_seconds` Redis has forgotten a lease by itself."""
        self._release = release
        self._pool = pool
        self._lease_seconds = lease_seconds
        self._open: dict[str, tuple[SessionRecord, float, float]] = {}
        self._task: asyncio.Task[None] | None = None

    def add(self, record: SessionRecord, owner: str, pause: float) -> None:
        """Note one; from any thread."""
        self._open[owner] = (record, pause, time.monotonic() + self._lease_seconds)

    def begin(self) -> None:
        """See to those that have been noted; in the event loop."""
        if self._open and self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._work())

    def stop(self) -> None:
        """Leave the rest to run out."""
        if self._task is not None:
            self._task.cancel()

    async def _work(self) -> None:
        try:
            while self._open:
                await asyncio.sleep(AGAIN_SECONDS)
                await asyncio.get_running_loop().run_in_executor(self._pool, self._round)
        finally:
            self._task = None

    def _round(self) -> None:
        for owner, (record, pause, until) in list(self._open.items()):
            if time.monotonic() < until:
                try:
                    self._release(record, owner, pause)
                except StoreUnavailable:
                    return  # the others would only wait as well
                log.info("lease_released_late")
            del self._open[owner]
