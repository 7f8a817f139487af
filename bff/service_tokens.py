"""The client's own tokens: one for each scope and resource, fetched once for all who wait, renewed early."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Executor

import structlog

from bff.errors import ProviderUnavailable
from bff.tokens import Clock, TokenSet

RENEW_AT = 0.8
"""Of a token's lifetime: from then on a new one is fetched beside the requests."""
SPENT_SECONDS = 3.0
"""With less left than that (or a fifth of a short lifetime) a token is not sent: it could end on the way."""
SHORTEST_SECONDS = 2.0
"""A token counts as good for so long, whatever its lifetime: the provider is not asked at every request."""
UNKNOWN_LIFETIME_SECONDS = 60.0
PAUSE_SECONDS = 2.0
YOUNG_SECONDS = 5.0
"""A token that is younger is not fetched anew because somebody refuses it."""

log = structlog.get_logger("bff.service_tokens")

Wanted = tuple[str | None, str | None]
"""Scope and resource."""


class ServiceTokens:
    """Lives in one event loop; `fetch` runs in `pool` and raises ProviderUnavailable."""

    def __init__(
        self,
        fetch: Callable[[str | None, str | None], TokenSet],
        pool: Executor,
        clock: Clock,
        *,
        monotonic: Clock = time.monotonic,
    ) -> None:
        self._fetch = fetch
        self._pool = pool
        self._clock = clock
        self._monotonic = monotonic
        self._held: dict[Wanted, TokenSet] = {}
        self._flights: dict[Wanted, asyncio.Future[TokenSet]] = {}
        self._failed: dict[Wanted, tuple[float, ProviderUnavailable]] = {}

    async def token(self, scope: str | None, resource: str | None) -> str:
        """A token that is good now. Waits only where there is none. Raises ProviderUnavailable."""
        wanted = (scope, resource)
        held = self._held.get(wanted)
        now = self._clock()
        if held is not None and now < _spent_at(held):
            if now >= held.obtained_at + _lifetime(held) * RENEW_AT:
                self._fly(wanted)
            return held.access_token
        try:
            return (await asyncio.shield(self._fly(wanted))).access_token
        except ProviderUnavailable:
            if held is None or now >= held.obtained_at + _lifetime(held):
                raise
            return held.access_token  # its last seconds are better than none

    async def renew(self, scope: str | None, resource: str | None, refused: str) -> str | None:
        """Another token than the one that an upstream refuses; None where it is too new to be the cause.
        Raises ProviderUnavailable."""
        wanted = (scope, resource)
        held = self._held.get(wanted)
        if held is not None and held.access_token == refused:
            if self._clock() < held.obtained_at + YOUNG_SECONDS:
                return None
            self._held.pop(wanted)
        return await self.token(scope, resource)

    def _fly(self, wanted: Wanted) -> asyncio.Future[TokenSet]:
        """The fetch that is under way, or a new one; none for a moment after a failure."""
        flight = self._flights.get(wanted)
        if flight is not None:
            return flight
        loop = asyncio.get_running_loop()
        failure = self._failed.get(wanted)
        if failure is not None and self._monotonic() < failure[0]:
            refused: asyncio.Future[TokenSet] = loop.create_future()
            refused.set_exception(failure[1])
            refused.exception()  # nobody need wait for it: a renewal ahead of time may fail
            return refused
        flight = loop.run_in_executor(self._pool, self._fetch, *wanted)
        self._flights[wanted] = flight
        flight.add_done_callback(lambda done: self._landed(wanted, done))
        return flight

    def _landed(self, wanted: Wanted, flight: asyncio.Future[TokenSet]) -> None:
        self._flights.pop(wanted, None)
        if flight.cancelled():
            return
        error = flight.exception()
        if error is None:
            self._held[wanted] = flight.result()
            self._failed.pop(wanted, None)
        else:
            reason = error.reason if isinstance(error, ProviderUnavailable) else type(error).__name__
            log.error("service_token_failed", reason=reason)
            failure = error if isinstance(error, ProviderUnavailable) else ProviderUnavailable(reason=reason)
            self._failed[wanted] = (self._monotonic() + PAUSE_SECONDS, failure)


def _lifetime(tokens: TokenSet) -> float:
    if tokens.expires_at is None:
        return UNKNOWN_LIFETIME_SECONDS
    return max(SHORTEST_SECONDS, tokens.expires_at - tokens.obtained_at)


def _spent_at(tokens: TokenSet) -> float:
    lifetime = _lifetime(tokens)
    spare = min(SPENT_SECONDS, lifetime * (1 - RENEW_AT))
    return tokens.obtained_at + max(SHORTEST_SECONDS, lifetime - spare)
