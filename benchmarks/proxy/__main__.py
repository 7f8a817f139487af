"""The command: `python -m benchmarks.proxy`, or `make bench`."""

from __future__ import annotations

import argparse
import dataclasses
import signal
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import msgspec

from benchmarks.proxy import documentation, result
from benchmarks.proxy.campaign import FULL, QUICK, Campaign, Effort
from benchmarks.proxy.programs import CannotMeasure
from benchmarks.proxy.report import picture, sections
from benchmarks.proxy.result import OURS
from benchmarks.proxy.systems import KINDS
from benchmarks.proxy.world import ROOT

BUILD = ROOT / "build" / "bench"
PARTS = ("proxy", "slow", "refresh", "streams")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, keep. 1 where our own server could not be measured."""
    options = _parser().parse_args(arguments)
    if options.read is not None:
        try:
            found = result.read(options.read.read_bytes())
        except (OSError, msgspec.DecodeError) as reason:
            print(f"{options.read} is no result of this version: {reason}", file=sys.stderr)
            return 1
    else:
        signal.signal(signal.SIGTERM, _leave)
        effort = QUICK if options.quick else FULL
        effort = dataclasses.replace(
            effort, rounds=options.rounds or effort.rounds, seconds=options.seconds or effort.seconds
        )
        try:
            found = _measure(effort, options)
        except CannotMeasure as reason:
            print(reason, file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            return 130
    for heading, content in sections(found):
        print(f"\n{heading}\n\n{content}")
    if options.docs:
        documentation.write(found)
    return 0 if "proxy" not in options.parts or set(found.systems()) & set(OURS) else 1


def _measure(effort: Effort, options: argparse.Namespace) -> result.Result:
    campaign = Campaign(effort, only=options.only, quick=options.quick, say=_say, python=options.python)
    found = campaign.run(options.parts)
    BUILD.mkdir(parents=True, exist_ok=True)
    stamp = datetime.fromisoformat(found.when).strftime("%Y%m%d-%H%M%S")
    file = BUILD / f"proxy-{stamp}.json"
    file.write_bytes(result.write(found))
    file.with_suffix(".svg").write_text(picture(found))
    print(f"\nkept in {file.relative_to(ROOT)}, and the plot beside it")
    return found


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.proxy", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round of everything, about a minute")
    parser.add_argument("--rounds", type=int, help="rounds of the comparison")
    parser.add_argument("--seconds", type=int, help="seconds of one run in it")
    keys = [kind.key for kind in KINDS]
    parser.add_argument("--only", nargs="+", choices=keys, default=[], help="these systems alone")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="these parts alone")
    parser.add_argument("--python", default=sys.executable, help="runs our own server")
    parser.add_argument("--docs", action="store_true", help="put the figures into docs/performance.md")
    parser.add_argument("--read", type=Path, metavar="JSON", help="measure nothing, take a run that was kept")
    return parser


def _say(line: str) -> None:
    print(line, flush=True)


def _leave(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
