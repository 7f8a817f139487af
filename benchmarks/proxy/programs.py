"""Programs that are measured or needed: started in a group of their own, awaited, and stopped."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

START_SECONDS = 40.0
STOP_SECONDS = 10.0


class CannotMeasure(Exception):
    """Something cannot be measured here; the argument is a sentence that says why."""


_ports = itertools.cycle(random.sample(range(10_000, 22_000), 12_000))
"""Below those that systems give to outgoing connections (Linux: from 32,768 on), one of which could be there
before the server is; and in another order in each process."""


def free_port() -> int:
    """A port on loopback that nobody listens on now."""
    for port in _ports:
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise AssertionError  # it is a cycle


@dataclass
class Program:
    """One program with all its processes: they are one process group, which the figures are of."""

    name: str
    argv: Sequence[str]
    port: int
    directory: Path
    environ: Mapping[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    @property
    def group(self) -> int:
        if self.process is None:
            raise RuntimeError(f"{self.name} was not started")
        return self.process.pid

    @property
    def log(self) -> Path:
        return self.directory / f"{self.name}.log"

    def start(self) -> Program:
        """Start, and wait until somebody listens on the port. Raises CannotMeasure."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("BFF_", "API_", "IDP_"))}
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                list(self.argv),
                env=kept | dict(self.environ),
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        until = time.monotonic() + START_SECONDS
        while not self._listens():
            if self.process.poll() is not None or time.monotonic() > until:
                raise CannotMeasure(f"{self.name} did not start: {self.last_words()}")
            time.sleep(0.05)
        return self

    def stop(self) -> None:
        """End all its processes."""
        if self.process is None:
            return
        self.send(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(STOP_SECONDS)
        self.send(signal.SIGKILL)
        self.process.wait()

    def kill(self) -> None:
        """End all its processes at once, as a machine that loses its power; `start` begins them anew."""
        self.send(signal.SIGKILL)
        if self.process is not None:
            self.process.wait()

    def last_words(self) -> str:
        """The end of what it printed."""
        lines = self.log.read_text(errors="replace").strip().splitlines() if self.log.exists() else []
        return " / ".join(lines[-3:]) or "it said nothing"

    def _listens(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        except OSError:
            return False
        return True

    def send(self, number: signal.Signals) -> None:
        """Send a signal to all its processes."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.group, number)
