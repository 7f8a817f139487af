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
from collections.abc import Callable
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
from bff.provider.renewal import (
    GrantEnded,
    RefreshFailed,
    RefreshResult,
    SameUser,
    Unrenewable,
    Unverified,
)
from bff.sessions.reader import SessionReader
from bff.sessions.record import SessionRecord, user_hash
from bff.sessions.store import Lease, Saved, SessionStore
from bff.sessions.unreleased import UnreleasedLeases
from bff.tokens import Clock, LoginRequired, Outcome, TokenSet, TryLater, Usable, judge, pause_after_refresh
from bff.turn import Turn, aside

log = structlog.get_logger("bff.refresh")

LEASE_MARGIN_SECONDS = 5.0
"""What a lease lasts beyond the provider's deadline, unless it is renewed: after a crash so much is lost."""
WAIT_MARGIN_SECONDS = 2.0
SAVE_SECONDS = 60.0
_SAVE_AGAIN_SECONDS = 0.1
_POLL_SECONDS = (0.05, 0.1, 0.2, 0.25)
REST_SECONDS = 0.25
"""Between two tries to renew a token that is merely due: in a pause not every request asks Redis about it."""


class LeaseLost(Exception):
    """Between the lease and the token request the process stood still, and somebody else may be at it."""

    def __init__(self, lease: Lease) -> None:
        super().__init__(lease.name)
        self.lease = lease


class RefreshingProvider(Protocol):
    """The provider as this module sees it."""

    def refresh(self, tokens: TokenSet, same_user: SameUser, before: Callable[[], None]) -> RefreshResult: ...

    def revoke(self, tokens: TokenSet) -> None: ...

    def discard(self, tokens: TokenSet) -> None: ...


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
        self._resting: set[str] = set()
        self._unreleased = UnreleasedLeases(store.release, pool, self._lease_seconds)
        self._turn = Turn()
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
        if outcome.due and record.key not in self._resting:
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
        self._unreleased.stop()

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
        self._resting.add(key)
        flight.get_loop().call_later(REST_SECONDS, self._resting.discard, key)
        self._unreleased.begin()
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
        until = time.monotonic() + self._deadline + WAIT_MARGIN_SECONDS
        for attempt in range(10_000):
            lease = await self._attempt(record)
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

    async def _attempt(self, record: SessionRecord) -> Outcome | Lease:
        """Try to lease and redeem in the pool. However long that takes, the lease does not run out while
        this process lives: discovery, keys and a slow save count, too."""
        owner = secrets.token_hex(8)
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
        with self._turn:
            return self._lease_and_redeem_in_turn(record, owner)

    def _lease_and_redeem_in_turn(self, record: SessionRecord, owner: str) -> Outcome | Lease:
        asked_at = _seconds()
        lease = self._lease(record, owner)
        if lease is not Lease.YOURS:
            return lease
        if wait := self._outage.wait():
            return self._pause(record, owner, wait)
        try:
            return self._redeem(record, owner, partial(self._check_lease, record, owner, asked_at))
        except LeaseLost as error:
            return error.lease

    def _lease(self, record: SessionRecord, owner: str) -> Lease:
        try:
            return self._store.lease(record, owner, self._lease_seconds)
        except StoreUnavailable:  # it may be ours all the same, and nobody would know
            self._unreleased.add(record, owner, 0)
            raise

    def _check_lease(self, record: SessionRecord, owner: str, asked_at: float) -> None:
        """Right before the token request: where so much time has passed that the lease could run out before
        the provider's deadline (keys that came late, a process that was stopped), ask for it again."""
        while _seconds() - asked_at > self._lease_seconds - self._deadline:
            asked_at = _seconds()
            lease = self._lease(record, owner)
            if lease is not Lease.YOURS:
                raise LeaseLost(lease)

    def _redeem(self, record: SessionRecord, owner: str, before: Callable[[], None]) -> Outcome | Lease:
        """With the lease in hand, which says that `record` holds the newest tokens: redeem and save."""
        result = self._provider.refresh(record.tokens, partial(_is_user_of, record), before)
        if isinstance(result, RefreshFailed):
            return self._pause(record, owner, self._failed(result.reason, outage=result.outage))
        if isinstance(result, Unverified):
            pause = self._failed("the refreshed ID token is signed with an unknown key", outage=False)
            return self._save(record, owner, result.tokens, pause)
        self._outage.over()
        if isinstance(result, GrantEnded):
            return self._grant_ended(record, owner)
        if isinstance(result, Unrenewable):
            log.error("refresh_refused", reason=result.reason)
            kept = msgspec.structs.replace(record.tokens, refresh_token=None)
            outcome = self._save(record, owner, kept, pause_after_refresh(kept))
            if result.tokens is not None:
                self._provider.discard(result.tokens)
            return outcome
        return self._save(record, owner, result.tokens, pause_after_refresh(result.tokens))

    def _failed(self, reason: str, *, outage: bool) -> float:
        """Note a failure; for how long the session is to be left alone."""
        pause = self._outage.failed(outage=outage)
        log.error("refresh_failed", reason=reason, next_try_seconds=pause)
        return pause

    def _pause(self, record: SessionRecord, owner: str, seconds: float) -> Outcome:
        self._release(record, owner, seconds)
        return self._judge(record) or TryLater(_whole(seconds))

    def _grant_ended(self, record: SessionRecord, owner: str) -> Outcome | Lease:
        if not self._store.end_if_current(record):
            self._release(record, owner, 0)
            return Lease.NEWER  # not these tokens' session any more: look again
        self._audit.refresh_refused(record)
        return LoginRequired()

    def _save(self, record: SessionRecord, owner: str, tokens: TokenSet, pause: float) -> Outcome | Lease:
        """Keep what the provider gave, for as long as it takes: the old refresh token is used up."""
        saved = self._save_tokens(record, tokens)
        if saved is Saved.GONE:  # signed out meanwhile: sign-out wins, and nothing stays valid
            self._revoke(record, tokens)
            return LoginRequired()
        self._release(record, owner, pause)
        if saved is Saved.NEWER:  # go on with what has been saved; to revoke ours could end that, too
            return Lease.NEWER
        if tokens.usable(self._clock()):
            return Usable(tokens)
        return TryLater(_whole(pause)) if tokens.refresh_token else LoginRequired()

    def _save_tokens(self, record: SessionRecord, tokens: TokenSet) -> Saved:
        until, unanswered = time.monotonic() + SAVE_SECONDS, False
        while True:
            try:
                saved = self._store.save_tokens(record, tokens)
            except StoreUnavailable:
                if time.monotonic() > until:
                    raise
                unanswered = True
                with aside():
                    time.sleep(_SAVE_AGAIN_SECONDS)
            else:
                if saved is Saved.NEWER and not unanswered:  # or they may well be these
                    log.error("refresh_not_saved", reason="other tokens have been saved meanwhile")
                return saved

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
        except StoreUnavailable as error:  # it would run out by itself, but others wait for it
            log.warning("lease_not_released", reason=error.reason)
            self._unreleased.add(record, owner, pause)


def _is_user_of(record: SessionRecord, issuer: str, subject: str) -> bool:
    return user_hash(issuer, subject) == record.meta.user


def _jitter(record: SessionRecord) -> float:
    """A fixed number from 0 to 1 for each token set: sessions made together refresh at different times."""
    return zlib.crc32(f"{record.key} {record.generation}".encode()) / 0xFFFFFFFF


def _seconds() -> float:
    """From any beginning; where the system can tell, the time in which the machine slept counts, too."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def _whole(seconds: float) -> int:
    return max(1, round(seconds))
