"""Waiting for discovery without holding a thread for each request that waits."""

from __future__ import annotations

import asyncio
from concurrent.futures import Executor

from bff.provider.client import Provider


class ProviderGate:
    """Awaited before requests that need the provider: one fetch for all of them, in a pool of its own."""

    def __init__(self, provider: Provider, pool: Executor) -> None:
        self._provider = provider
        self._pool = pool
        self._flight: asyncio.Future[None] | None = None

    async def __call__(self) -> None:
        """Return when the provider is known or could not be reached; old knowledge is good enough."""
        if self._provider.fresh():
            return
        if self._flight is None:
            loop = asyncio.get_running_loop()
            self._flight = loop.run_in_executor(self._pool, self._provider.prepare)
            self._flight.add_done_callback(self._landed)
        if not self._provider.known():
            await asyncio.shield(self._flight)

    def _landed(self, _flight: asyncio.Future[None]) -> None:
        self._flight = None
