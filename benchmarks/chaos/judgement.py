"""What is promised, and whether it was kept. Free of I/O."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from benchmarks.chaos.ledger import Death, Ledger, Repeat
from benchmarks.chaos.visitors import Kind, Lost, Phase

RECOVERY_SECONDS = 30.0
"""Longer than any lease and any pause of ours: 15 s at most, each."""
EARLY_SECONDS = 0.5
"""A busy machine may hold a request up between its clock and the wire: the next one then looks early."""
MOST_SHOWN = 20


@dataclass(frozen=True)
class Ended:
    """A session that was lost, and why; None: nothing explains it."""

    lost: Lost
    cause: str | None


@dataclass(frozen=True)
class Seen:
    """What there is to judge of one round."""

    grace: int
    sessions: int
    phases: list[Phase]
    lost: list[Lost]
    ledger: Ledger
    deaths: list[Death]


@dataclass
class Round:
    """All that was seen with one grace period of the provider, which is in seconds."""

    grace: int
    sessions: int
    phases: list[Phase]
    expiries: int
    redeems: int
    repeats: list[Repeat]
    ended: list[Ended]
    broken: list[str] = field(default_factory=list)
    """The promises that were not kept, a sentence each."""
    notes: list[str] = field(default_factory=list)
    """What bends the figures and breaks no promise."""


def judge(seen: Seen, allowed: Mapping[str, frozenset[Kind]], lifetime: float) -> Round:
    """Hold what was seen against what is promised: failures that are `allowed` in each phase, and so on;
    `lifetime` of an access token is in seconds."""
    ledger = seen.ledger
    ended = [Ended(each, ledger.why_lost(each.session, seen.deaths)) for each in seen.lost]
    repeats = ledger.repeats(seen.deaths)
    found = Round(
        seen.grace, seen.sessions, seen.phases, ledger.expiries, len(ledger.redeems), repeats, ended
    )
    ends = [phase.began for phase in seen.phases[1:]] + [math.inf]
    for phase, end in zip(seen.phases, ends, strict=True):
        may = allowed.get(phase.name, frozenset())
        if Kind.PROVIDER not in may and phase.kinds[Kind.PROVIDER] and ledger.unheard(phase.began, end):
            found.notes.append(f"{phase.name}: the provider missed its deadline by itself, on a busy machine")
            may |= {Kind.PROVIDER}
        found.broken += _of_phase(phase, may)
    found.broken += _of_sessions(seen.grace, ended)
    found.broken += [
        f"a redeem of session {each.redeem.session} was sent again although its outcome was known"
        for each in repeats
        if each.cause is None
    ][:MOST_SHOWN]
    if found.redeems != found.expiries + len(repeats):
        found.broken.append("redeems are not expiries plus what was sent again")
    if not found.expiries:
        found.broken.append("no token expired: nothing was tried")
    found.broken += [
        f"session {each.session} was refreshed before half of its token's life was over"
        for each in ledger.early(lifetime, EARLY_SECONDS)
    ][:MOST_SHOWN]
    return found


def _of_phase(phase: Phase, allowed: frozenset[Kind]) -> list[str]:
    may = allowed | {Kind.GOOD, Kind.SIGNED_OUT}  # whoever is signed out is judged as a session
    broken = []
    for kind, number in sorted(phase.kinds.items()):
        if kind not in may:
            words = f" ({', '.join(sorted(set(phase.others)))})" if kind is Kind.OTHER else ""
            broken.append(f"{phase.name}: {number} requests got {kind.value}{words}")
    if not phase.kinds[Kind.GOOD]:
        broken.append(f"{phase.name}: no request was answered well")
    if phase.recovery > RECOVERY_SECONDS:
        broken.append(f"{phase.name}: it took {phase.recovery:.0f} s to recover")
    return broken


def _of_sessions(grace: int, ended: list[Ended]) -> list[str]:
    if grace:
        return [
            f"session {each.lost.session} was lost ({each.lost.phase}), in spite of the grace period"
            for each in ended
        ][:MOST_SHOWN]
    return [
        f"session {each.lost.session} was lost ({each.lost.phase}), and no redeem of it was cut off"
        for each in ended
        if each.cause is None
    ][:MOST_SHOWN]
