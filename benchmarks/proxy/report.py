"""The figures as tables: aligned, so that they read well on a terminal, and Markdown, so that they fit the
documentation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from statistics import median

from benchmarks.proxy.plot import Bar, svg
from benchmarks.proxy.result import CONNECTIONS, OURS, Result, Run
from benchmarks.proxy.slow import CLIENTS, UPSTREAM
from benchmarks.proxy.targets import AT, MIB, judge

QUIET_CPUS = 0.15
"""More than this many CPUs busy with strangers, and the figures say more about them than about us."""


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """An aligned Markdown table: the first column to the left, the others to the right."""
    lines = [list(head), *map(list, rows)]
    widths = [max(len(line[at]) for line in lines) for at in range(len(head))]
    texts = [
        [
            cell.rjust(width) if at else cell.ljust(width)
            for at, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        for line in lines
    ]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join("| " + " | ".join(line) + " |" for line in [texts[0], rule, *texts[1:]])


def sections(result: Result) -> list[tuple[str, str]]:
    """Heading and content of each part."""
    found = [("Targets", _targets(result))]
    if result.runs:
        found += [
            ("CPU time and throughput", _costs(result)),
            ("Latency", _latency(result)),
            ("Ratios", _ratios(result)),
        ]
    if result.slow:
        found.append((f"{CLIENTS} clients on an upstream that takes 1 s", _slow(result)))
    if result.memory:
        found.append(("Memory", _memory(result)))
    if result.renewals:
        found.append(("A refresh in the middle of load", _renewals(result)))
    if result.missing:
        found.append(("Not measured", "\n".join(f"- {sentence}" for sentence in result.missing)))
    found.append(("The machine of these figures", _machine(result)))
    return found


def picture(result: Result) -> str:
    """The plot of CPU time at 16 connections, as SVG."""
    bars = [
        Bar(result.titles[key], result.median(key, AT, lambda run: run.cpu), key in OURS)
        for key in result.systems()
        if any((run.system, run.connections) == (key, AT) for run in result.runs)
    ]
    bars.sort(key=lambda bar: bar.value)
    return svg(f"CPU time of a proxied request, {AT} connections", "microseconds, all processes", bars)


def _targets(result: Result) -> str:
    rows = [(verdict.what, verdict.target, verdict.found, verdict.word) for verdict in judge(result)]
    return table(("target", "at", "found", ""), rows)


def _each(result: Result, key: str, figure: Callable[[Run], float], form: str) -> list[str]:
    """The medians of a figure, one for each number of connections; a dash where there is none."""
    measured = {run.connections for run in result.runs if run.system == key}
    return [
        format(result.median(key, number, figure), form) if number in measured else "–"
        for number in CONNECTIONS
    ]


def _costs(result: Result) -> str:
    head = ["", *(f"µs at {n}" for n in CONNECTIONS), *(f"req/s at {n}" for n in CONNECTIONS)]
    rows = [
        [
            result.titles[key],
            *_each(result, key, lambda run: run.cpu, ".1f"),
            *_each(result, key, lambda run: run.rate, ",.0f"),
            *_each(result, key, lambda run: run.redis_cpu, ".1f"),
        ]
        for key in result.systems()
    ]
    return table([*head, *(f"Redis µs at {n}" for n in CONNECTIONS)], rows)


def _latency(result: Result) -> str:
    head = ["", *(f"p50 ms at {n}" for n in CONNECTIONS), *(f"p99 ms at {n}" for n in CONNECTIONS)]
    rows = [
        [
            result.titles[key],
            *_each(result, key, lambda run: run.p50 * 1000, ".2f"),
            *_each(result, key, lambda run: run.p99 * 1000, ".2f"),
            str(sum(run.broken for run in result.runs if run.system == key)),
        ]
        for key in result.systems()
    ]
    return table([*head, "broken connections"], rows)


def _ratios(result: Result) -> str:
    """Of CPU time, and of throughput."""
    head = ["to", *(f"CPU at {n}" for n in CONNECTIONS), *(f"req/s at {n}" for n in CONNECTIONS)]
    rows = [
        [
            f"{result.titles[ours]}, to {result.titles[other]}",
            *(_ratio(result.ratio(ours, other, n, lambda run: run.cpu)) for n in CONNECTIONS),
            *(_ratio(result.ratio(ours, other, n, lambda run: run.rate)) for n in CONNECTIONS),
        ]
        for ours in OURS
        if ours in result.systems()
        for other in result.systems()
        if other not in OURS
    ]
    return table(head, rows)


def _ratio(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _slow(result: Result) -> str:
    ceiling = result.slow_median(UPSTREAM, lambda run: run.rate)
    rows = []
    for key, title in {UPSTREAM: "the upstream itself", **result.titles}.items():
        rate = result.slow_median(key, lambda run: run.rate)
        if rate is not None:
            times = [
                result.slow_median(key, lambda run: run.p50),
                result.slow_median(key, lambda run: run.p99),
            ]
            errors = sum(run.errors for run in result.slow if run.system == key)
            share = f"{rate / ceiling:.1%}" if ceiling else "–"
            rows.append([title, f"{rate:.1f}", share, *(f"{each or 0:.3f}" for each in times), str(errors)])
    return table(["", "req/s", "of the upstream's", "p50 s", "p99 s", "errors"], rows)


def _memory(result: Result) -> str:
    rows = [
        [
            result.titles[key],
            f"{memory.idle / MIB:.1f}",
            f"{memory.loaded / MIB:.1f}",
            f"{memory.alone / MIB:.1f}",
        ]
        for key, memory in result.memory.items()
    ]
    text = table(["MiB, all processes", "idle", "after load", "sharing with nobody"], rows)
    if result.streams is not None:
        found = result.streams
        text += (
            f"\n\n{found.opened:,} idle event streams through one worker, of which {found.alive:,} stood:"
            f" {found.before / MIB:.1f} MiB before, {found.during / MIB:.1f} MiB with them,"
            f" {(found.during - found.before) / max(1, found.alive) / 1024:.1f} KiB each."
        )
    return text


def _renewals(result: Result) -> str:
    rows = []
    for kind in ("no", "few", "many"):
        found = [run for run in result.renewals if run.kind == kind]
        if found:
            rows.append(
                [
                    f"{kind} tokens become due",
                    f"{median(run.refreshes for run in found):.1f}",
                    f"{median(run.rate for run in found):,.0f}",
                    f"{median(run.p50 for run in found) * 1000:.2f}",
                    f"{median(run.p99 for run in found) * 1000:.2f}",
                    f"{min(run.p99 for run in found) * 1000:.2f}–{max(run.p99 for run in found) * 1000:.2f}",
                    str(sum(run.wrong for run in found)),
                ]
            )
    return table(["", "refreshes/s", "req/s", "p50 ms", "p99 ms", "p99 of the rounds", "errors"], rows)


def _machine(result: Result) -> str:
    named = ", ".join(f"{name} {value}" for name, value in result.machine.items())
    text = f"{result.when}: {named}."
    if result.quick:
        text += " A quick run: one short round, good for a first look only."
    if result.runs:
        strangers = median(run.strangers for run in result.runs)
        text += f" Other programs kept {strangers:.2f} CPUs busy meanwhile (median of the runs)."
        if strangers > QUIET_CPUS:
            text += " That is no quiet machine: take throughput and latency as rough, and ratios as fair."
    return text
