"""The tables at the end, in Markdown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from benchmarks.chaos.judgement import Round
from benchmarks.chaos.visitors import Kind, Phase

SHOWN = (Kind.STORE, Kind.PROVIDER, Kind.API, Kind.REFUSED, Kind.RESET, Kind.OTHER)
HEADER = (
    "fault",
    "requests",
    *(kind.value for kind in SHOWN),
    "sessions lost",
    "longest answer",
    "failing for",
    "recovered after",
)


def table(round_: Round) -> str:
    """What users noticed of each fault."""
    lost = Counter(each.lost.phase for each in round_.ended)
    return _markdown(HEADER, [_row(phase, lost[phase.name]) for phase in round_.phases])


def _row(phase: Phase, lost: int) -> list[str]:
    first, last = phase.first_failure, phase.last_failure
    times = ["–", "–"]
    if first is not None and last is not None:
        times = [f"{last - first:.1f} s", f"{phase.recovery:.1f} s"]
    counts = [str(phase.kinds[kind] or "–") for kind in SHOWN]
    return [phase.name, str(phase.kinds.total()), *counts, str(lost or "–"), f"{phase.slowest:.1f} s", *times]


def summary(round_: Round) -> str:
    """Redeems against expiries, what was sent again and why, and each session that was lost."""
    again = len(round_.repeats)
    lines = [
        f"{round_.sessions} sessions; {len(round_.ended)} were lost.",
        f"{round_.expiries} token sets expired. {round_.redeems} redeems: one each, and {again} again.",
    ]
    if round_.repeats:
        lines += ["", "Sent again:", "", *_counted(each.cause for each in round_.repeats)]
    if round_.ended:
        causes = Counter((each.lost.phase, each.cause) for each in round_.ended)
        lines += ["", "Lost:", ""]
        for (phase, cause), number in causes.items():
            names = ", ".join(
                str(e.lost.session) for e in round_.ended if (e.lost.phase, e.cause) == (phase, cause)
            )
            lines.append(f"- {number} × {phase}: {cause or 'NO CAUSE'} (sessions {names})")
    if round_.notes:
        lines += ["", "Noticed:", "", *(f"- {each}" for each in round_.notes)]
    if round_.broken:
        lines += ["", "BROKEN PROMISES:", "", *(f"- {each}" for each in round_.broken)]
    else:
        lines += ["", "All promises were kept."]
    return "\n".join(lines)


def _counted(causes: Iterable[str | None]) -> list[str]:
    found = Counter(cause or "NO CAUSE" for cause in causes)
    return [f"- {number} × {cause}" for cause, number in found.most_common()]


def _markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
