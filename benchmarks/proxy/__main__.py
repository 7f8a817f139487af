"""The command: `python -m benchmarks.proxy`, or `make bench`."""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from contextlib import closing
from pathlib import Path

from benchmarks.proxy.measure import Run, once
from benchmarks.proxy.programs import CannotMeasure, free_port
from benchmarks.proxy.systems import KINDS
from benchmarks.proxy.systems.system import System
from benchmarks.proxy.world import World


def main() -> int:
    p = argparse.ArgumentParser()
    p.add_argument("--quick", action="store_true")
    a = p.parse_args()
    rounds, seconds = (1, 2) if a.quick else (3, 4)
    with tempfile.TemporaryDirectory() as d, closing(World(Path(d))) as world:
        ports = {kind.key: free_port() for kind in KINDS}
        provider = world.start_provider(
            [f"http://localhost:{ports[kind.key]}{kind.callback}" for kind in KINDS if kind.callback], 3600
        )
        systems: list[System] = []
        for kind in KINDS:
            try:
                systems.append(kind.start(world, provider, ports[kind.key]))
            except CannotMeasure as reason:
                print(reason)
        runs: dict[tuple[str, int], list[Run]] = {}
        for number in range(rounds):
            for connections in (1, 16, 64):
                for system in systems:
                    r = once(world, system, connections, seconds)
                    runs.setdefault((system.key, connections), []).append(r)
                    print(
                        f"{number} {connections:3} {system.title:30} cpu {r.cpu:7.1f} redis {r.redis_cpu:5.1f} {r.load.rate:8.0f}/s p50 {r.load.p50 * 1e3:.2f} p99 {r.load.p99 * 1e3:.2f} strangers {r.strangers:.2f}",
                        flush=True,
                    )
        for (key, c), rs in sorted(runs.items(), key=lambda x: (x[0][1], x[0][0])):
            print(key, c, round(statistics.median(r.cpu for r in rs), 1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
