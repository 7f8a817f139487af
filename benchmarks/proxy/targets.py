"""What the server is held to, and whether it was met. A target is printed whatever came out."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.proxy.result import OURS, Result
from benchmarks.proxy.slow import UPSTREAM
from benchmarks.proxy.streams import STREAMS

MIB = 2**20
AT = 16
CPU_RATIOS = {
    "apache": 0.27,
    "apache-plain": 0.43,
    "oauth2-proxy": 0.4,
    "tutorial": 0.05,
    "nginx": 4.5,
}
"""At most this share of the other's CPU time for a request, at 16 connections."""
SLOW_SHARE, SLOW_P99 = 0.97, 1.10
WORKERS_MIB, STREAMS_MIB = 110, 150
RENEWAL_RATIO = 1.1
"""A p99 with refreshes that is this near to the one without them counts as the same."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """One target. `met` is None where it was not measured."""

    what: str
    target: str
    found: str
    met: bool | None

    @property
    def word(self) -> str:
        return {True: "met", False: "MISSED", None: "not measured"}[self.met]


def judge(result: Result) -> list[Verdict]:
    """All targets."""
    return [*_cpu(result), *_slow(result), *_workers(result), _streams(result), *_renewals(result)]


def _at_most(what: str, value: float | None, limit: float, unit: str, digits: int = 2) -> Verdict:
    found = "–" if value is None else f"{value:.{digits}f}{unit}"
    return Verdict(what, f"≤ {limit:g}{unit}", found, None if value is None else value <= limit)


def _cpu(result: Result) -> list[Verdict]:
    return [
        _at_most(
            f"CPU of {result.titles.get(ours, ours)} to that of {result.titles.get(other, other)}",
            result.ratio(ours, other, AT, lambda run: run.cpu),
            limit,
            "",
        )
        for ours in OURS
        for other, limit in CPU_RATIOS.items()
    ]


def _slow(result: Result) -> list[Verdict]:
    found = []
    ceiling = result.slow_median(UPSTREAM, lambda run: run.rate)
    for ours in OURS:
        title = f"slow upstream, {result.titles.get(ours, ours)}"
        rate = result.slow_median(ours, lambda run: run.rate)
        share = None if rate is None or not ceiling else rate / ceiling
        text = "–" if share is None else f"{share:.1%}"
        met = None if share is None else share >= SLOW_SHARE
        found.append(Verdict(f"{title}: throughput to its own", f"≥ {SLOW_SHARE:.0%}", text, met))
        p99 = result.slow_median(ours, lambda run: run.p99)
        found.append(_at_most(f"{title}: p99", p99, SLOW_P99, " s", 3))
        errors = [run.errors for run in result.slow if run.system == ours]
        met = not sum(errors) if errors else None
        found.append(Verdict(f"{title}: errors", "0", str(sum(errors)) if errors else "–", met))
    return found


def _workers(result: Result) -> list[Verdict]:
    memory = result.memory.get("ours-2")
    shared = None if memory is None else max(memory.idle, memory.loaded) / MIB
    alone = None if memory is None else memory.alone / MIB
    return [
        _at_most("memory of 2 workers, proportional set size", shared, WORKERS_MIB, " MiB", 0),
        _at_most("memory of 2 workers, sharing with nobody", alone, WORKERS_MIB, " MiB", 0),
    ]


def _streams(result: Result) -> Verdict:
    what, target = f"{STREAMS:,} idle event streams in one worker", f"< {STREAMS_MIB} MiB"
    if result.streams is None:
        return Verdict(what, target, "–", None)
    size, alive = result.streams.during / MIB, result.streams.alive
    met = size < STREAMS_MIB and alive == STREAMS
    return Verdict(what, target, f"{size:.0f} MiB with {alive:,}", met)


def _renewals(result: Result) -> list[Verdict]:
    quiet = result.renewal_median("no", lambda run: run.p99)
    found = []
    for kind in ("few", "many"):
        due = result.renewal_median(kind, lambda run: run.p99)
        ratio = None if due is None or not quiet else due / quiet
        found.append(_at_most(f"p99 beside {kind} refreshes to p99 beside none", ratio, RENEWAL_RATIO, ""))
    return found
