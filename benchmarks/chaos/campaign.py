"""One fault after the other, under load, once with each grace period."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.chaos.faults import FAULTS, NODE, PROVIDER, REDIS, WORKER, Fault
from benchmarks.chaos.judgement import MOST_SHOWN, Round, Seen, judge
from benchmarks.chaos.stage import TOKEN_SECONDS, Stage
from benchmarks.chaos.visitors import Kind, Visitors


@dataclass(frozen=True)
class Effort:
    """How much is tried. Times are in seconds."""

    sessions: int
    pause: float
    """Of each session, between two requests."""
    deadline: int
    """What the nodes give the provider."""
    patient: bool
    """Whether a fault waits until nobody suffers from the one before."""
    rounds: tuple[tuple[int, tuple[Fault, ...]], ...]
    """The provider's grace period, and the faults that are tried with it."""


FULL = Effort(24, 0.4, 5, patient=True, rounds=((60, FAULTS), (0, FAULTS)))
QUICK = Effort(10, 0.25, 2, patient=False, rounds=((60, (WORKER, REDIS)), (0, (WORKER, NODE, PROVIDER))))
MOST_SECONDS = 40.0
Say = Callable[[str], None]


async def run(effort: Effort, say: Say, logs: Path | None = None) -> list[Round]:
    """Try everything; what the programs had to say is kept in the folder `logs`. Raises CannotMeasure where
    something cannot be started."""
    with tempfile.TemporaryDirectory(prefix="bff-chaos-") as folder:
        stage = Stage(Path(folder), deadline=effort.deadline)
        found: list[Round] = []
        try:
            say("starting two nodes, Redis, the provider and the API …")
            for grace, faults in effort.rounds:
                await (stage.new_provider(grace) if found else stage.start(grace))
                found.append(await _round(stage, effort, grace, faults, say))
            found[-1].broken += stage.troubles()[:MOST_SHOWN]
        finally:
            await stage.front.close()
            stage.close()
            _keep(stage.directory, logs)
        return found


def _keep(directory: Path, logs: Path | None) -> None:
    if logs is not None:
        logs.mkdir(parents=True, exist_ok=True)
        for file in directory.glob("*.log"):
            shutil.copy(file, logs)


async def _round(stage: Stage, effort: Effort, grace: int, faults: Sequence[Fault], say: Say) -> Round:
    say(f"a grace period of {grace} s; signing {effort.sessions} sessions in …")
    visitors = Visitors(stage, pause=effort.pause)
    await visitors.sign_in(effort.sessions)
    try:
        await visitors.all_served(time.monotonic() + TOKEN_SECONDS, MOST_SECONDS)
        visitors.phases.clear()  # nothing is promised of the time in which the provider was exchanged
        visitors.enter("no fault")
        await visitors.all_served(time.monotonic() + 2 * TOKEN_SECONDS, MOST_SECONDS)
        for fault in faults:
            await _try(stage, visitors, fault, effort, say)
        healed = await visitors.all_served(time.monotonic() + TOKEN_SECONDS, MOST_SECONDS)
    finally:
        await visitors.leave()
    found = judge(
        Seen(grace, effort.sessions, visitors.phases, visitors.lost, stage.front.ledger, stage.deaths),
        _allowed(faults, effort),
        TOKEN_SECONDS,
    )
    if not healed:
        found.broken.append("at the end, some sessions were still not answered")
    return found


def _allowed(faults: Sequence[Fault], effort: Effort) -> dict[str, frozenset[Kind]]:
    """By phase; where faults do not wait for each other, users may still suffer from earlier ones."""
    if effort.patient:
        return {fault.name: fault.allowed for fault in faults}
    pairs = enumerate(faults, 1)
    return {fault.name: frozenset().union(*(f.allowed for f in faults[:number])) for number, fault in pairs}


async def _try(stage: Stage, visitors: Visitors, fault: Fault, effort: Effort, say: Say) -> None:
    phase = visitors.enter(fault.name)
    await fault.happen(stage)
    phase.over = time.monotonic()
    # A token that was good before is dead by then: whoever is answered well has a new one.
    since = phase.over + (TOKEN_SECONDS if effort.patient else 0)
    await visitors.all_served(since, MOST_SECONDS if effort.patient else 2)
    failed = phase.kinds.total() - phase.kinds[Kind.GOOD]
    say(f"  {fault.name}: {phase.kinds.total()} requests, {failed} of them failed")
