"""The command: `python -m benchmarks.chaos`, or `make chaos`."""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.chaos.campaign import FULL, QUICK, Effort, run
from benchmarks.chaos.faults import FAULTS
from benchmarks.chaos.report import summary, table
from benchmarks.proxy.machine import describe
from benchmarks.proxy.programs import CannotMeasure

SHOWN = ("cores", "CPU", "memory", "kernel", "load before", "Python", "Redis")


def main(arguments: Sequence[str] | None = None) -> int:
    """Try, print. 1 where a promise was broken, or nothing could be tried."""
    options = _parser().parse_args(arguments)
    before = signal.signal(signal.SIGTERM, _leave)
    machine = describe()
    try:
        found = asyncio.run(run(_effort(options), _say, options.logs))
    except CannotMeasure as reason:
        print(reason, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    finally:
        signal.signal(signal.SIGTERM, before)
    for each in found:
        print(f"\n## A grace period of {each.grace} s\n\n{table(each)}\n\n{summary(each)}")
    told = {name: machine[name] for name in SHOWN if name in machine} | {
        "load after": f"{os.getloadavg()[0]:.2f}"
    }
    print("\n" + ", ".join(f"{name}: {value}" for name, value in told.items()))
    return 1 if any(each.broken for each in found) else 0


def _effort(options: argparse.Namespace) -> Effort:
    """What the options ask for. Raises CannotMeasure where that is nothing."""
    effort = QUICK if options.quick else FULL
    rounds = effort.rounds
    if options.only:
        chosen = tuple(fault for fault in FAULTS if any(words in fault.name for words in options.only))
        if not chosen:
            raise CannotMeasure(
                f"no fault has these words. There are: {', '.join(each.name for each in FAULTS)}"
            )
        rounds = tuple((grace, chosen) for grace, _ in rounds)
    if options.grace:
        rounds = tuple((grace, dict(rounds).get(grace, rounds[0][1])) for grace in options.grace)
    return dataclasses.replace(effort, rounds=rounds, sessions=options.sessions or effort.sessions)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chaos", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="few sessions and the worst faults, a minute and a quarter"
    )
    parser.add_argument("--grace", type=int, nargs="+", metavar="SECONDS", help="of the provider (60 and 0)")
    parser.add_argument("--sessions", type=int, help="how many are signed in")
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="WORDS", help="faults whose names have such words"
    )
    parser.add_argument("--logs", type=Path, metavar="FOLDER", help="keep there what the programs logged")
    return parser


def _say(line: str) -> None:
    print(line, flush=True)


def _leave(_number: int, _frame: object) -> None:
    signal.raise_signal(signal.SIGINT)  # which asyncio turns into an orderly end


if __name__ == "__main__":
    sys.exit(main())
