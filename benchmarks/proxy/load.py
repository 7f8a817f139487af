"""Load by wrk, and what it saw."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

LUA = Path(__file__).parent / "lua"
TIMEOUT_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Load:
    """What wrk counted. Times are in seconds."""

    requests: int
    seconds: float
    bytes: int
    wrong: int
    """Answers that are not 2xx or 3xx, and timeouts."""
    broken: int
    """Connections that could not be made, or ended in the middle of an exchange."""
    mean: float
    p50: float
    p99: float

    @property
    def rate(self) -> float:
        """Requests answered in a second."""
        return self.requests / self.seconds


def parse(output: str) -> Load:
    """Read the line that lua/result.lua prints. Raises ValueError where there is none."""
    for line in output.splitlines():
        if line.startswith("RESULT "):
            found = json.loads(line.removeprefix("RESULT "))
            return Load(
                requests=found["requests"],
                seconds=found["microseconds"] / 1e6,
                bytes=found["bytes"],
                wrong=found["status"] + found["timeouts"],
                broken=found["broken"],
                mean=found["mean"] / 1e6,
                p50=found["p50"] / 1e6,
                p99=found["p99"] / 1e6,
            )
    raise ValueError(f"wrk printed no result: {output.strip()[-300:]}")


def run(
    url: str,
    headers: Sequence[str],
    connections: int,
    seconds: int,
    script: str = "plain.lua",
    arguments: Sequence[object] = (),
) -> Load:
    """Load an address for some seconds from one thread of wrk."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", f"--timeout={TIMEOUT_SECONDS}s"]
    command += ["-s", script, *(part for header in headers for part in ("-H", header)), url]
    command += ["--", *map(str, arguments)] if arguments else []
    done = subprocess.run(command, cwd=LUA, capture_output=True, text=True, check=False)
    return parse(done.stdout + done.stderr)
