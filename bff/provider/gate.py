"""Waiting for the provider without holding a thread for each request that waits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor
from contextlib import asynccontextmanager

from bff.errors import ProviderUnavailable, PublicError
from bff.provider.client import Provider


class ProviderGate:
    """Awaited before requests that need the provider: one fetch for all of them, in a pool of its own."""

    def __init__(self, provider: Provider, pool: Executor) -> None:
        self._provider = provider
        self._pool = pool
        self._flight: asyncio.Future[None] | None = None

    async def __call__(self, patience: float | None = None) -> None:
        """Return when the provider is known, could not be reached, or `patience` (in seconds) is over; old
        knowledge is good enough."""
        if self._provider.fresh():
            return
        if self._flight is None:
            loop = asyncio.get_running_loop()
            self._flight = loop.run_in_executor(self._pool, self._provider.prepare)
            self._flight.add_done_callback(self._landed)
        if not self._provider.known():
            await asyncio.wait({self._flight}, timeout=patience)

    def _landed(self, _flight: asyncio.Future[None]) -> None:
        self._flight = None


class Places:
    """So many sign-ins at once may hold a thread for the provider; the others wait without one.

    Anybody can begin sign-ins. Where the provider hangs, they must not take the threads that answer those
    who are signed in.
    """

    def __init__(
        self, number: int, patience_seconds: float, full: Callable[[], PublicError] | None = None
    ) -> None:
        """What `full` gives is raised in place of ProviderUnavailable where no place comes free in time."""
        self._full = full or _too_many
        self._free = asyncio.Semaphore(number)
        self._patience = patience_seconds

    @asynccontextmanager
    async def one(self) -> AsyncIterator[None]:
        """Hold a place. Raises what `full` gives where none comes free in time."""
        try:
            async with asyncio.timeout(self._patience):
                await self._free.acquire()
        except TimeoutError:
            raise self._full() from None
        try:
            yield
        finally:
            self._free.release()


def _too_many() -> PublicError:
    return ProviderUnavailable(
        "Too many sign-ins are waiting for the identity provider. Please try again.",
        reason="no place came free at the callback",
    )
