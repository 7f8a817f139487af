"""The whole benchmark: what is measured, in which order, and how long."""

from __future__ import annotations

import resource
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.proxy import machine, measure, proc, renewal, slow, streams
from benchmarks.proxy.programs import CannotMeasure, free_port
from benchmarks.proxy.result import CONNECTIONS, OURS, Memory, Result
from benchmarks.proxy.systems import KINDS, nginx, tutorial
from benchmarks.proxy.systems.system import Kind, System
from benchmarks.proxy.world import World

FILES = 65_536
"""Open files that 2,000 streams, their ends at the upstream and ours, may take."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Effort:
    """How much is measured. Many short runs by turns are fairer than few long ones: what else happens on the
    machine then meets all systems."""

    rounds: int
    seconds: int
    slow_rounds: int
    slow_seconds: int
    slow_peers: bool
    """Whether those take part in it that are neither ours nor nginx."""
    renewal_rounds: int
    renewal_seconds: int
    sessions: int
    token_seconds: int
    settle_seconds: float


FULL = Effort(
    rounds=8,
    seconds=2,
    slow_rounds=2,
    slow_seconds=10,
    slow_peers=True,
    renewal_rounds=5,
    renewal_seconds=5,
    sessions=100,
    token_seconds=24,
    settle_seconds=3,
)
QUICK = Effort(
    rounds=1,
    seconds=1,
    slow_rounds=1,
    slow_seconds=3,
    slow_peers=False,
    renewal_rounds=1,
    renewal_seconds=3,
    sessions=20,
    token_seconds=14,
    settle_seconds=1,
)


class Campaign:
    """One benchmark. What cannot be measured is said, noted in the result, and left out."""

    def __init__(
        self, effort: Effort, *, only: Sequence[str], quick: bool, say: Say, python: str = sys.executable
    ) -> None:
        """`only` names the systems to start, none means all; `say` prints a line of progress; `python` runs
        our own server."""
        self._effort = effort
        self._kinds = [kind for kind in KINDS if not only or kind.key in only]
        self._say = say
        self._python = python
        self._systems: list[System] = []
        self.result = Result(
            when=datetime.now(UTC).isoformat(timespec="seconds"),
            quick=quick,
            machine=machine.describe(python),
            titles={kind.key: kind.title for kind in KINDS},
        )

    def run(self, parts: Sequence[str]) -> Result:
        """Measure the parts named: "proxy", "slow", "refresh", "streams"."""
        _allow_files()
        with (
            tempfile.TemporaryDirectory() as directory,
            closing(World(Path(directory), self._python)) as world,
        ):
            if "proxy" in parts or "slow" in parts:
                self._start(world)
            if "proxy" in parts:
                self._side_by_side(world)
            if "slow" in parts:
                self._slow(world)
            self._weigh()
            for system in self._systems:  # their memory and threads must not burden what follows
                system.program.stop()
            if "refresh" in parts:
                self._part(self._renewals, world)
            if "streams" in parts:
                self._part(self._streams, world)
        return self.result

    def _start(self, world: World) -> None:
        ports = {kind.key: free_port() for kind in self._kinds}
        callbacks = [f"http://localhost:{ports[k.key]}{k.callback}" for k in self._kinds if k.callback]
        provider = world.start_provider(callbacks, renewal.HOUR)
        for kind in self._kinds:
            try:
                system = kind.start(world, provider, ports[kind.key])
                system.check()
            except CannotMeasure as reason:
                self._skip(kind, reason)
            else:
                self._systems.append(system)
                idle = proc.pss(system.program.group)
                self.result.memory[kind.key] = Memory(idle, idle, idle)

    def _side_by_side(self, world: World) -> None:
        """Each system in turn, with as many connections; the order is another one in every round."""
        for number in range(self._effort.rounds):
            for connections in CONNECTIONS:
                self._say(f"round {number + 1} of {self._effort.rounds}, {connections} connections")
                for system in _rotated(self._systems, number):
                    try:
                        found = measure.once(world, system, number, connections, self._effort.seconds)
                    except CannotMeasure as reason:
                        self._note(str(reason))
                    else:
                        self.result.runs.append(found)

    def _slow(self, world: World) -> None:
        for number in range(self._effort.slow_rounds):
            self._say(f"slow upstream, round {number + 1} of {self._effort.slow_rounds}")
            # the tutorial's server goes on with what it has queued when its clients have gone: it comes last
            systems = [
                s for s in self._systems if self._effort.slow_peers or s.key in (*OURS, nginx.KIND.key)
            ]
            ordered = sorted(systems, key=lambda system: system.key == tutorial.KIND.key)
            for system in (None, *ordered):
                try:
                    self.result.slow.append(slow.once(world, system, self._effort.slow_seconds))
                except CannotMeasure as reason:
                    self._note(str(reason))

    def _weigh(self) -> None:
        for system in self._systems:
            idle = self.result.memory[system.key].idle
            self.result.memory[system.key] = Memory(
                idle, proc.pss(system.program.group), proc.alone(system.program.group)
            )

    def _renewals(self, world: World) -> None:
        effort = self._effort
        self._say(f"refresh in the middle of load, {effort.sessions} sessions")
        for found in renewal.rounds(
            world, effort.sessions, effort.token_seconds, effort.renewal_rounds, effort.renewal_seconds
        ):
            self.result.renewals.append(found)

    def _streams(self, world: World) -> None:
        self._say(f"{streams.STREAMS} idle event streams")
        self.result.streams = streams.measure(world, self._effort.settle_seconds)

    def _part(self, measure_it: Callable[[World], None], world: World) -> None:
        try:
            measure_it(world)
        except CannotMeasure as reason:
            self._note(str(reason))

    def _skip(self, kind: Kind, reason: CannotMeasure) -> None:
        text = str(reason)
        self._note(text if kind.key in OURS else f"left out: {text}")

    def _note(self, sentence: str) -> None:
        self._say(sentence)
        self.result.missing.append(sentence)


def _rotated(systems: Sequence[System], by: int) -> list[System]:
    by %= len(systems) or 1
    return [*systems[by:], *systems[:by]]


def _allow_files() -> None:
    """Raise the limit on open files as far as we may; the programs inherit it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES if hard == resource.RLIM_INFINITY else min(hard, FILES)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
