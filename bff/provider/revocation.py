"""Revocation beside what a person waits for: the session here has ended already, whatever comes of it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress

import structlog

from bff.provider.client import Provider
from bff.tokens import TokenSet

WAIT_SECONDS = 1.5
"""What a sign-out gives the provider, so that it is usually signed out there, too, when it is answered."""
THREADS = 4
MAX_WAITING = 100_000

log = structlog.get_logger("bff.provider")


class Revoker:
    """Revokes in a pool of its own: a provider that hangs takes no thread from refreshes or sign-ins."""

    def __init__(self, provider: Provider) -> None:
        self._provider = provider
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="revocation")
        self._open: set[Future[None]] = set()

    def soon(self, tokens: TokenSet) -> None:
        """Revoke, and wait for it a little."""
        future = self.later(tokens)
        if future is not None:
            with suppress(TimeoutError):
                future.result(WAIT_SECONDS)

    def later(self, tokens: TokenSet) -> Future[None] | None:
        """Revoke without waiting; None where a provider in trouble has left too many undone."""
        return self._submit(self._provider.revoke, tokens)

    def discard(self, tokens: TokenSet) -> None:
        """The same for tokens that nobody holds, though nobody has signed out."""
        self._submit(self._provider.discard, tokens)

    def _submit(self, work: Callable[[TokenSet], None], tokens: TokenSet) -> Future[None] | None:
        if len(self._open) >= MAX_WAITING:
            log.warning("revocation_dropped", reason="too many are waiting")
            return None
        future = self._pool.submit(work, tokens)
        self._open.add(future)
        future.add_done_callback(self._open.discard)
        return future

    def finish(self, seconds: float = WAIT_SECONDS) -> None:
        """At the end of the process: give what is under way so long, and say how much is left undone."""
        _, undone = wait(list(self._open), seconds)
        self._pool.shutdown(wait=False, cancel_futures=True)
        if undone:
            log.warning("revocations_undone", count=len(undone))
