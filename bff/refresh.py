"""The one place where tokens are refreshed: once per expiry, over all threads, processes and machines.

In one process, requests for the same session share one future. Over processes, an owner-checked lease on
exactly one generation of tokens lets one of them redeem; the others watch for the next generation. The
save is fenced by the generation, so that neither a late process nor a signed-out session is overwritten.
A refresh is nobody's request: a browser that hangs up cannot burn a rotated token.
"""

from __future__ import annotations

import asyncio
import secrets
import time
import zlib
from concurrent.futures import Executor
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from typing import Protocol

import msgspec
import structlog

from bff.audit import Audit
from bff.errors import StoreUnavailable
from bff.metrics import Metrics
from bff.outage import Outage
from bff.provider.renewal import GrantEnded, RefreshFailed, RefreshResult, SameUser, Unrenewable
from bff.sessions.reader import SessionReader
from bff.sessions.record import SessionRecord, user_hash
from bff.sessions.store import Lease, Saved, SessionStore
from bff.tokens import Clock, LoginRequired, Outcome, TokenSet, TryLater, Usable, judge, pause_after_refresh

log = structlog.get_logger("bff.refresh")

LEASE_MARGIN_SECONDS = 5.0
"""What a lease lasts beyond the provider's deadline, unless it is renewed: after a crash so much is lost."""
WAIT_MARGIN_SECONDS = 2.0
SAVE_SECONDS = 60.0
_SAVE_AGAIN_SECONDS = 0.1
_POLL_SECONDS = (0.05, 0.1, 0.2, 0.25)


class RefreshingProvider(Protocol):
    """The provider as this module sees it."""

    def refresh(self, tokens: TokenSet, same_user: SameUser) -> RefreshResult: ...

    def revoke(self, tokens: TokenSet) -> None: ...


class Refresher:
    """Gives requests a usable token set. Lives in one event loop; redeems in a pool of its own."""

    def __init__(
        self,
        store: SessionStore,
        reader: SessionReader,
        provider: RefreshingProvider,
        pool: Executor,
        clock: Clock,
        outage: Outage,
        audit: Audit,
        metrics: Metrics,
        *,
        leeway: float,
        provider_deadline: float,
    ) -> None:
        """`leeway` and `provider_deadline` are in seconds."""
        self._store = store
        self._reader = reader
        self._provider = provider
        self._pool = pool
        self._clock = clock
        self._leeway = leeway
        self._deadline = provider_deadline
        self._lease_seconds = provider_deadline + LEASE_MARGIN_SECONDS
        self._flights: dict[str, asyncio.Task[Outcome]] = {}
        self._outage = outage
        self._audit = audit
        self._metrics = metrics

    def ready(self, record: SessionRecord) -> TokenSet | None:
        """The tokens of the session where they can be used at once; a refresh that is due begins beside."""
        tokens, now = record.tokens, self._clock()
        if tokens.expires_at is None or now < tokens.expires_at - self._leeway:
            return tokens  # as nearly always: the jitter moves the moment later only
        outcome = self._judge(record)
        if outcome is None:
            return None
        if outcome.due:
            self._fly(record)
        return outcome.tokens

    async def usable(self, record: SessionRecord) -> Outcome:
        """What the request with this session may do. Waits only where the token is dead."""
        ready = self.ready(record)
        if ready is not None:
            return Usable(ready)
        if record.tokens.refresh_token is None:
            return LoginRequired()
        try:
            patience = self._deadline + WAIT_MARGIN_SECONDS
            return await asyncio.wait_for(asyncio.shield(self._fly(record)), patience)
        except TimeoutError:
            return TryLater()

    async def renew(self, record: SessionRecord) -> Outcome | None:
        """Another token set than `record` has, because an upstream refuses that one; None where there is none
        to be had now. The same lease, pause and fence hold as for every refresh."""
        if record.tokens.refresh_token is None:
            return None
        try:
            patience = self._deadline + WAIT_MARGIN_SECONDS
            outcome = await asyncio.wait_for(asyncio.shield(self._fly(record)), patience)
        except TimeoutError:
            return None
        if isinstance(outcome, Usable) and outcome.tokens.access_token == record.tokens.access_token:
            return None
        return None if isinstance(outcome, TryLater) else outcome

    async def drain(self) -> None:
        """Wait for the refreshes under way: a redeemed token must be saved before the process ends."""
        while self._flights:
            await asyncio.wait(list(self._flights.values()))

    def _judge(self, record: SessionRecord) -> Usable | None:
        return judge(record.tokens, self._clock(), self._leeway, _jitter(record))

    def _fly(self, record: SessionRecord) -> asyncio.Task[Outcome]:
        """The refresh of this session that is under way in this process, or a new one."""
        flight = self._flights.get(record.key)
        if flight is None:
            flight = asyncio.get_running_loop().create_task(self._refresh(record))
            self._flights[record.key] = flight
            flight.add_done_callback(lambda done: self._landed(record.key, done))
        return flight

    def _landed(self, key: str, flight: asyncio.Task[Outcome]) -> None:
        self._flights.pop(key, None)
        if not flight.cancelled() and (error := flight.exception()) is not None:
            reason = error.reason if isinstance(error, StoreUnavailable) else type(error).__name__
            log.error("refresh_failed", reason=reason)

    async def _refresh(self, record: SessionRecord) -> Outcome:
        waits: list[float] = []
        try:
            return await self._refresh_or_wait(record, waits)
        finally:
            if waits:
                self._metrics.lease_waited(sum(waits))

    async def _refresh_or_wait(self, record: SessionRecord, waits: list[float]) -> Outcome:
        """Notes in `waits` how long it waited for another process at the same."""
        owner = secrets.token_hex(8)
        until = time.monotonic() + self._deadline + WAIT_MARGIN_SECONDS
        for attempt in range(10_000):
            lease = await self._attempt(record, owner)
            if not isinstance(lease, Lease):
                return lease
            if lease is Lease.GONE:
                return LoginRequired()
            if lease is Lease.PAUSE or time.monotonic() >= until:
                break
            if lease is Lease.HELD:
                pause = _POLL_SECONDS[min(attempt, len(_POLL_SECONDS) - 1)]
                await asyncio.sleep(pause)
                waits.append(pause)
            newer = await self._reader.load_key(record.key)
            if newer is None:
                return LoginRequired()
            if newer.generation != record.generation and (outcome := self._judge(newer)) is not None:
                return outcome
            record = newer
        return self._judge(record) or TryLater()

    async def _attempt(self, record: SessionRecord, owner: str) -> Outcome | Lease:
        """Try to lease and redeem in the pool. However long that takes, the lease does not run out while
        this process lives: discovery, keys and a slow save count, too."""
        loop = asyncio.get_running_loop()
        job = loop.run_in_executor(self._pool, copy_context().run, self._lease_and_redeem, record, owner)
        while True:
            done, _ = await asyncio.wait({job}, timeout=self._lease_seconds / 3)
            if done:
                return job.result()
            with suppress(StoreUnavailable):
                await self._reader.renew(record.key, owner, self._lease_seconds)

    def _lease_and_redeem(self, record: SessionRecord, owner: str) -> Outcome | Lease:
        """In one job: a lease that waited for a thread could run out before its redeem begins."""
        lease = self._store.lease(record, owner, self._lease_seconds)
        if lease is not Lease.YOURS:
            return lease
        if wait := self._outage.wait():
            return self._pause(record, owner, wait)
        return self._redeem(record, owner)

    def _redeem(self, record: SessionRecord, owner: str) -> Outcome | Lease:
        """With the lease in hand, which says that `record` holds the newest tokens: redeem and save."""
        result = self._provider.refresh(record.tokens, partial(_is_user_of, record))
        if isinstance(result, RefreshFailed):
            pause = self._outage.failed(outage=result.outage)
            log.error("refresh_failed", reason=result.reason, next_try_seconds=pause)
            return self._pause(record, owner, pause)
        self._outage.over()
        if isinstance(result, GrantEnded):
            return self._grant_ended(record)
        if isinstance(result, Unrenewable):
            log.error("refresh_refused", reason=result.reason)
            return self._save(record, owner, msgspec.structs.replace(record.tokens, refresh_token=None))
        return self._save(record, owner, result.tokens)

    def _pause(self, record: SessionRecord, owner: str, seconds: float) -> Outcome:
        self._release(record, owner, seconds)
        return self._judge(record) or TryLater(_whole(seconds))

    def _grant_ended(self, record: SessionRecord) -> Outcome | Lease:
        if not self._store.end_if_current(record):
            return Lease.NEWER  # not these tokens' session any more: look again
        self._audit.refresh_refused(record)
        return LoginRequired()

    def _save(self, record: SessionRecord, owner: str, tokens: TokenSet) -> Outcome:
        """Keep what the provider gave, for as long as it takes: the old refresh token is used up."""
        until = time.monotonic() + SAVE_SECONDS
        while True:
            try:
                saved = self._store.save_tokens(record, tokens)
                break
            except StoreUnavailable:
                if time.monotonic() > until:
                    raise
                time.sleep(_SAVE_AGAIN_SECONDS)
        if saved is Saved.GONE:  # signed out meanwhile: sign-out wins, and nothing stays valid
            self._revoke(record, tokens)
            return LoginRequired()
        self._release(record, owner, pause_after_refresh(tokens))
        if tokens.usable(self._clock()):
            return Usable(tokens)
        return TryLater() if tokens.refresh_token else LoginRequired()

    def _revoke(self, record: SessionRecord, tokens: TokenSet) -> None:
        """What came for a session that has ended meanwhile; not where a new sign-in took its place, whose
        grant it may be."""
        try:
            replaced = self._store.was_replaced(record)
        except StoreUnavailable:
            replaced = False
        if not replaced:
            self._provider.revoke(tokens)

    def _release(self, record: SessionRecord, owner: str, pause: float) -> None:
        try:
            self._store.release(record, owner, pause)
        except StoreUnavailable as error:  # it runs out by itself
            log.warning("lease_not_released", reason=error.reason)


def _is_user_of(record: SessionRecord, issuer: str, subject: str) -> bool:
    return user_hash(issuer, subject) == record.meta.user


def _jitter(record: SessionRecord) -> float:
    """A fixed number from 0 to 1 for each token set: sessions made together refresh at different times."""
    return zlib.crc32(f"{record.key} {record.generation}".encode()) / 0xFFFFFFFF


def _whole(seconds: float) -> int:
    return max(1, round(seconds))
