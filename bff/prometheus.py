"""The metrics in Prometheus's words: names, labels, buckets.

In `bff serve` each process keeps its values in files that all share (prometheus-client's multi-process mode,
which `MetricsServer` sees to). An increment there costs about a microsecond, so what happens at every proxied
request is counted in plain Python by `Tally` and handed on once a second.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from bff.metrics import ALERTS

STORE_BUCKETS = (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0, 2.5)
UPSTREAM_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
REFRESH_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

ENDED = ("signed_out", "revoked", "cap", "provider", "replaced", "refresh_refused")
OUTCOMES = ("renewed", "grant_ended", "unrenewable", "unverified", "refused", "outage")
FORCED = ("renewed", "session_ended", "not_renewed")
CLASSES = ("1xx", "2xx", "3xx", "4xx", "5xx")
ABORTED = "aborted"
"""The class of a request whose browser went before an answer began."""


class BulkHistogram(Histogram):
    """A histogram that takes many observations at once."""

    def add(self, counts: Iterable[int], total: float) -> None:
        """Observations by bucket, the one without end last, and their sum."""
        self._sum.inc(total)
        for value, count in zip(self._buckets, counts, strict=True):
            if count:
                value.inc(count)


class Timings:
    """Observations of one event loop, until they are handed on."""

    __slots__ = ("_bounds", "_counts", "_histogram", "_total")

    def __init__(self, histogram: BulkHistogram, bounds: tuple[float, ...]) -> None:
        self._histogram = histogram
        self._bounds = bounds
        self._clear()

    def observe(self, seconds: float) -> None:
        self._counts[bisect_left(self._bounds, seconds)] += 1
        self._total += seconds

    def flush(self) -> None:
        """Hand on what has come together."""
        if any(self._counts):
            self._histogram.add(self._counts, self._total)
            self._clear()

    def _clear(self) -> None:
        self._counts = [0] * (len(self._bounds) + 1)
        self._total = 0.0


class Tally:
    """What happens at every proxied request, counted in one event loop in plain Python."""

    def __init__(
        self, answered: Counter, store: BulkHistogram, upstream: BulkHistogram, routes: Iterable[str]
    ) -> None:
        self._answered = answered
        self._statuses: dict[tuple[str, int], int] = {}
        self.store = Timings(store, STORE_BUCKETS)
        self.upstream = {route: Timings(upstream.labels(route), UPSTREAM_BUCKETS) for route in routes}

    def answer(self, route: str, status: int) -> None:
        """A request of that route was answered; status 0 is one whose browser went before."""
        key = (route, status)
        self._statuses[key] = self._statuses.get(key, 0) + 1

    def flush(self) -> None:
        """Hand on what has come together."""
        statuses, self._statuses = self._statuses, {}
        for (route, status), count in statuses.items():
            self._answered.labels(route, f"{status // 100}xx" if status else ABORTED).inc(count)
        self.store.flush()
        for timings in self.upstream.values():
            timings.flush()


class Prometheus:
    """All metrics of a worker process. Is a `Metrics`; `tally` is for what is too frequent for that."""

    def __init__(self, routes: Iterable[str]) -> None:
        """`routes` are the configured paths, the only ones that appear in a label."""
        registry = self.registry = CollectorRegistry()
        names = tuple(routes)
        self._sign_ins = Counter(
            "bff_sign_ins", "Sign-ins by result and error code.", ("result", "code"), registry=registry
        )
        self._callbacks = Counter(
            "bff_callbacks_refused",
            "Callbacks that belong to no sign-in under way, by error code.",
            ("code",),
            registry=registry,
        )
        self._begun = Counter("bff_sessions_begun", "Sessions that have begun.", registry=registry)
        self._ended = Counter(
            "bff_sessions_ended", "Sessions that were ended, by reason.", ("reason",), registry=registry
        )
        self._refused = Counter(
            "bff_refusals",
            "Requests that got an error of the BFF's own, by code.",
            ("code",),
            registry=registry,
        )
        self._refreshes = Histogram(
            "bff_refresh_seconds",
            "Refreshes at the provider by outcome: how long it took to answer.",
            ("outcome",),
            buckets=REFRESH_BUCKETS,
            registry=registry,
        )
        self._lease_waits = Histogram(
            "bff_refresh_lease_wait_seconds",
            "How long refreshes waited for another process's refresh of the same session.",
            buckets=REFRESH_BUCKETS,
            registry=registry,
        )
        self._forced = Counter(
            "bff_forced_refreshes",
            "Tokens that were renewed because an upstream answered 401, by route and outcome.",
            ("route", "outcome"),
            registry=registry,
        )
        self._alerts = Counter(
            "bff_alerts", "Warnings and errors in the log, by event.", ("event",), registry=registry
        )
        started = Counter(
            "bff_workers_started",
            "Worker processes that were started: those that took the place of another, too.",
            registry=registry,
        )
        started.inc()
        self._workers = Gauge(
            "bff_workers",
            "Worker processes that are running.",
            multiprocess_mode="livesum",
            registry=registry,
        )
        self._open = Gauge(
            "bff_requests_open", "Requests under way.", multiprocess_mode="livesum", registry=registry
        )
        self._streams = Gauge(
            "bff_streams_open",
            "Requests under way whose answer has begun: streams and downloads.",
            multiprocess_mode="livesum",
            registry=registry,
        )
        answered = Counter(
            "bff_requests",
            "Requests to proxied routes, by route and class of status.",
            ("route", "status"),
            registry=registry,
        )
        store = BulkHistogram(
            "bff_store_seconds",
            "How long Redis took to answer a question of the data plane.",
            buckets=STORE_BUCKETS,
            registry=registry,
        )
        upstream = BulkHistogram(
            "bff_upstream_seconds",
            "How long upstreams took to the head of their answer, by route.",
            ("route",),
            buckets=UPSTREAM_BUCKETS,
            registry=registry,
        )
        self.tally = Tally(answered, store, upstream, names)
        self._begin(names, answered)

    def _begin(self, routes: tuple[str, ...], answered: Counter) -> None:
        """Begin what is known at zero: Prometheus sees no increase in a counter that begins at one."""
        self._sign_ins.labels("succeeded", "")
        for reason in ENDED:
            self._ended.labels(reason)
        for outcome in OUTCOMES:
            self._refreshes.labels(outcome)
        for event in ALERTS:
            self._alerts.labels(event)
        for route in routes:
            for status in (*CLASSES[1:], ABORTED):
                answered.labels(route, status)
            for outcome in FORCED:
                self._forced.labels(route, outcome)

    def flush(self, under_way: int = 0, begun: int = 0) -> None:
        """Hand on what was counted meanwhile, and how many requests are under way at this moment and how
        many of their answers have begun. To be called about once a second, in the tally's event loop."""
        self._workers.set(1)
        self._open.set(under_way)
        self._streams.set(begun)
        self.tally.flush()

    def sign_in_succeeded(self) -> None:
        self._sign_ins.labels("succeeded", "").inc()
        self._begun.inc()

    def sign_in_failed(self, code: str) -> None:
        self._sign_ins.labels("failed", code).inc()

    def callback_refused(self, code: str) -> None:
        self._callbacks.labels(code).inc()

    def sessions_ended(self, reason: str, count: int = 1) -> None:
        self._ended.labels(reason).inc(count)

    def refused(self, code: str) -> None:
        self._refused.labels(code).inc()

    def refreshed(self, outcome: str, seconds: float) -> None:
        self._refreshes.labels(outcome).observe(seconds)

    def lease_waited(self, seconds: float) -> None:
        self._lease_waits.observe(seconds)

    def refresh_forced(self, route: str, outcome: str) -> None:
        self._forced.labels(route, outcome).inc()

    def alert(self, event: str) -> None:
        """The program logged a warning or an error."""
        if event in ALERTS:  # others, of the audit log, are counted in words of their own
            self._alerts.labels(event).inc()
