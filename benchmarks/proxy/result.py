"""What a whole benchmark found, as it is kept in a JSON file, and the medians and ratios drawn from it."""

from __future__ import annotations

import statistics
from collections.abc import Callable

import msgspec

CONNECTIONS = (1, 16, 64)
OURS = ("ours-1", "ours-2")


class Run(msgspec.Struct, frozen=True):
    """One run of load on one system. CPU times are in microseconds for a request, other times in seconds."""

    system: str
    round: int
    connections: int
    requests: int
    rate: float
    """Requests answered in a second."""
    p50: float
    p99: float
    broken: int
    """Connections that ended in the middle of an exchange; a wrong answer would have ended the run."""
    cpu: float
    """Of the system's own processes, all of them."""
    redis_cpu: float
    strangers: float
    """CPUs that were busy with something that is no part of the run: how quiet the machine was."""


class Slow(msgspec.Struct, frozen=True):
    """One run of 200 clients on the slow upstream. Errors are wrong answers, timeouts, broken connections."""

    system: str
    rate: float
    p50: float
    p99: float
    errors: int


class Memory(msgspec.Struct, frozen=True):
    """Bytes of the whole process tree: its proportional set size before and after load, and what it would be
    after load if no other program on the machine shared its files."""

    idle: int
    loaded: int
    alone: int


class Renewal(msgspec.Struct, frozen=True):
    """One run of load on many sessions. Times are in seconds."""

    kind: str
    """How many of the tokens become due meanwhile: "no", "few" or "many"."""
    refreshes: float
    """In a second, as the provider counts them."""
    rate: float
    p50: float
    p99: float
    wrong: int


class Streams(msgspec.Struct, frozen=True):
    """Idle event streams in one worker. Bytes are those of the whole process tree: the arbiter, too."""

    opened: int
    alive: int
    """Of them, those that still stood when memory was read."""
    before: int
    during: int


class Result(msgspec.Struct):
    """All figures of one benchmark. A part that could not be measured is a sentence in `missing`."""

    when: str
    quick: bool
    machine: dict[str, str]
    titles: dict[str, str]
    missing: list[str] = []
    runs: list[Run] = []
    slow: list[Slow] = []
    memory: dict[str, Memory] = {}
    renewals: list[Renewal] = []
    streams: Streams | None = None

    def systems(self) -> list[str]:
        """The systems that have figures, in the order they were started."""
        measured = {run.system for run in self.runs}
        return [key for key in self.titles if key in measured]

    def median(self, system: str, connections: int, figure: Callable[[Run], float]) -> float:
        """The median over rounds of a figure."""
        found = [figure(run) for run in self.runs if (run.system, run.connections) == (system, connections)]
        return statistics.median(found)

    def ratio(
        self, system: str, other: str, connections: int, figure: Callable[[Run], float]
    ) -> float | None:
        """The median of the ratios within each round, so that what the machine did to both cancels out.
        None where one of them was not measured."""
        found = {(run.system, run.round): figure(run) for run in self.runs if run.connections == connections}
        pairs = [
            value / found[other, number]
            for (key, number), value in found.items()
            if key == system and found.get((other, number))
        ]
        return statistics.median(pairs) if pairs else None

    def slow_median(self, system: str, figure: Callable[[Slow], float]) -> float | None:
        """The median over rounds of a figure on the slow upstream; None where it was not measured."""
        found = [figure(run) for run in self.slow if run.system == system]
        return statistics.median(found) if found else None

    def renewal_median(self, kind: str, figure: Callable[[Renewal], float]) -> float | None:
        """The same for load on many sessions, with tokens becoming due or without."""
        found = [figure(run) for run in self.renewals if run.kind == kind]
        return statistics.median(found) if found else None


def write(result: Result) -> bytes:
    """As JSON, indented."""
    return msgspec.json.format(msgspec.json.encode(result), indent=1)


def read(content: bytes) -> Result:
    """From JSON. Raises msgspec.DecodeError."""
    return msgspec.json.decode(content, type=Result)
