"""An issuer's keys, cached: fresh for a while, renewed beside the requests, stale in an outage.

Whatever the requests do, at most one fetch runs at a time and at most one begins per cooldown.
A request waits for a fetch only where it cannot be judged without, never longer than `max_wait`,
and not at all while the issuer is known to be in trouble and old keys are at hand. For a kid that may be
invented only a few wait so long, or anybody could hold all threads of a process behind a slow issuer.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from bff.resource_api.jwt.fetching import FetchFailed
from bff.resource_api.jwt.keys import KeySet, VerificationKey
from bff.resource_api.jwt.model import KeysUnavailable

logger = logging.getLogger("bff.resource_api")

MAX_PATIENT = 2
"""So many requests with an unknown kid wait `max_wait` for a fetch, the others `short_wait`."""


@dataclass(frozen=True, slots=True)
class CachePolicy:
    """How long keys are used, in seconds."""

    lifetime: float = 600.0
    """A key that the issuer has removed is not accepted any longer than this, outages apart."""
    refresh_after: float = 300.0
    """From this age on a request begins a fetch, and goes on with the keys at hand."""
    stale: float = 3600.0
    """How long beyond their lifetime keys serve after a failed fetch."""
    cooldown: float = 5.0
    """Between the beginnings of two fetches, whatever the reason: unknown kids, failures."""
    max_wait: float = 3.0
    """How long requests wait for a fetch, counted from its beginning."""
    short_wait: float = 0.25
    """The same while the issuer has just failed and nothing at all is at hand, or many wait already."""
    trouble: float = 30.0
    """How long after a failed fetch the issuer counts as being in trouble."""
    overdue: float = 8.0
    """A fetch that runs longer counts as failed, and its late answer is thrown away."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Keys as they were at one moment."""

    keys: KeySet
    fetched_at: float
    """When the fetch began, by the cache's clock: the keys are no younger than that."""


@dataclass(slots=True, eq=False)
class _Flight:
    """One fetch under way."""

    began: float
    done: threading.Event = field(default_factory=threading.Event)


class KeyCache:
    """The keys of one issuer, shared by all threads of a process."""

    def __init__(
        self,
        issuer: str,
        fetch: Callable[[], KeySet],
        policy: CachePolicy | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._issuer = issuer
        self._fetch = fetch
        self._policy = policy or CachePolicy()
        self._clock = clock
        self._lock = threading.Lock()
        self._snapshot: Snapshot | None = None
        self._flight: _Flight | None = None
        self._began = -math.inf
        self._failed = -math.inf
        self._patient = threading.BoundedSemaphore(MAX_PATIENT)

    def find(self, key_id: str, algorithm: str) -> VerificationKey | None:
        """The key by this name, `None` where the issuer has none; it may fetch and wait.

        Raises `KeysUnavailable` where no keys are at hand, or where this one is not among them and the
        issuer cannot be asked.
        """
        snapshot = self._usable(self._policy.max_wait)
        key = snapshot.keys.get((key_id, algorithm))
        if key is None:
            # A kid that is not known may be a new one: the issuer has rotated its keys.
            key = self._refetched(snapshot).keys.get((key_id, algorithm))
        return key

    def ready(self) -> bool:
        """Whether some token can be accepted now; begins a fetch if one is due, and waits briefly."""
        try:
            return bool(self._usable(self._policy.short_wait).keys)
        except KeysUnavailable:
            return False

    def _usable(self, max_wait: float) -> Snapshot:
        """Keys that may be used now: those within their lifetime, or stale ones in an outage."""
        snapshot = self._snapshot
        now = self._clock()
        if snapshot is not None and now - snapshot.fetched_at < self._policy.refresh_after:
            return snapshot
        flight = self._begin(now)
        if snapshot is not None and now - snapshot.fetched_at < self._policy.lifetime:
            return snapshot
        if flight is not None:
            flight.done.wait(self._patience(flight, now, max_wait, at_hand=self._is_at_hand(now)))
        snapshot = self._snapshot
        if snapshot is None or not self._is_at_hand(now):
            raise KeysUnavailable(self._retry_after())
        return snapshot

    def _is_at_hand(self, now: float) -> bool:
        """Merely slow is no outage: a removed key must not live on because of that."""
        snapshot = self._snapshot
        limit = self._policy.lifetime + (self._policy.stale if self._is_outage() else 0)
        return snapshot is not None and now - snapshot.fetched_at < limit

    def _is_outage(self) -> bool:
        """Whether the last fetch to end has failed."""
        return self._failed > -math.inf

    def _patience(self, flight: _Flight, now: float, max_wait: float, *, at_hand: bool) -> float:
        """Threads must not pile up behind an issuer that hangs: once it has failed, nobody waits.

        Those who come late wait only for the rest: otherwise each of them would hold its thread for
        the full time, and a steady stream of them all threads for as long as the fetch takes.
        """
        if now - self._failed < self._policy.trouble:
            max_wait = 0.0 if at_hand else min(max_wait, self._policy.short_wait)
        return max(0.0, flight.began + max_wait - now)

    def _refetched(self, snapshot: Snapshot) -> Snapshot:
        """Begin or join a fetch for a kid that `snapshot` lacks, and return the newest keys.

        Raises `KeysUnavailable` where they do not come: whether the issuer knows this kid is still open.
        """
        now = self._clock()
        flight = self._begin(now)
        if flight is not None:
            self._wait_for_kid(flight, now)
        newest = self._snapshot or snapshot
        open_ = self._is_outage() if flight is None else newest.fetched_at < flight.began
        if open_:
            raise KeysUnavailable(self._retry_after())
        return newest

    def _wait_for_kid(self, flight: _Flight, now: float) -> None:
        patient = self._patient.acquire(blocking=False)
        try:
            max_wait = self._policy.max_wait if patient else self._policy.short_wait
            flight.done.wait(self._patience(flight, now, max_wait, at_hand=True))
        finally:
            if patient:
                self._patient.release()

    def _begin(self, now: float) -> _Flight | None:
        """Join the fetch under way, or begin one; `None` while the cooldown forbids it."""
        with self._lock:
            flight = self._flight
            if flight is not None:
                if now - flight.began < self._policy.overdue:
                    return flight
                self._give_up(now)
            if now - self._began < self._policy.cooldown:
                return None
            self._flight = flight = _Flight(now)
            self._began = now
        try:
            threading.Thread(target=self._run, args=(flight,), name="jwks-fetch", daemon=True).start()
        except RuntimeError:
            # No thread to be had: the machine is at its limit.
            self._land(flight, None)
        return flight

    def _give_up(self, now: float) -> None:
        """A fetch that hangs, or whose thread did not survive a fork, must not block the next."""
        self._flight = None
        self._failed = now
        logger.warning("fetching the keys of issuer %r hangs; given up", self._issuer)

    def _run(self, flight: _Flight) -> None:
        keys = None
        try:
            keys = self._fetch()
        except FetchFailed as failure:
            logger.warning("cannot fetch the keys of issuer %r: %s", self._issuer, failure)
        except Exception:
            logger.exception("fetching the keys of issuer %r broke", self._issuer)
        finally:
            self._land(flight, keys)

    def _land(self, flight: _Flight, keys: KeySet | None) -> None:
        with self._lock:
            if self._flight is flight:
                self._flight = None
                if keys is None:
                    self._failed = self._clock()
                else:
                    self._failed = -math.inf
                    self._snapshot = Snapshot(keys, flight.began)
        flight.done.set()

    def _retry_after(self) -> int:
        left = self._began + self._policy.cooldown - self._clock()
        return max(1, math.ceil(min(left, self._policy.cooldown)))
