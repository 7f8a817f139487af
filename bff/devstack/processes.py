"""The processes of the stack: started, watched, and stopped together."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

START_SECONDS = 30.0
STOP_SECONDS = 10.0
_COLOURS = {"redis": 31, "idp": 35, "api": 36, "bff": 32}


class Stopped(Exception):
    """A signal asked us to stop."""


class StackFailed(Exception):
    """The stack cannot go on; the argument says why and what helps."""


@dataclass
class Part:
    """One process of the stack."""

    name: str
    argv: list[str]
    environ: dict[str, str]
    ready: Callable[[], bool]
    log: Path | None = None
    """Where its lines go, if not to ours."""
    process: subprocess.Popen[str] | None = None

    @property
    def words(self) -> str:
        """Where to read what it had to say."""
        return f"its last lines, in {self.log}," if self.log else "its last lines above"


class Console:
    """Prints lines of several processes without mixing them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ

    def say(self, text: str) -> None:
        with self._lock:
            print(text, flush=True)  # noqa: T201

    def relay(self, name: str, stream: IO[str]) -> None:
        """Print each line of a part after its name."""
        label = f"{name:<5} |"
        if self._colour:
            label = f"\x1b[{_COLOURS[name]}m{label}\x1b[0m"
        for line in stream:
            self.say(f"{label} {line.rstrip()}")


class Stack:
    """The processes that run."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._parts: list[Part] = []
        self._stopping = False
        self.redis = ""
        self.leftovers: list[Path] = []

    def ask_to_stop(self, _number: int, _frame: object) -> None:
        """A signal handler: it only leaves a note, so that no process is lost between fork and list."""
        self._stopping = True

    def start(self, part: Part) -> None:
        part.process = subprocess.Popen(  # noqa: S603  our own commands
            part.argv,
            env={**part.environ, "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,  # Ctrl-C reaches us alone, and we stop the parts in order
            preexec_fn=_die_with_parent,
        )
        self._parts.append(part)
        relay = (part.name, part.process.stdout)
        threading.Thread(target=self._console.relay, args=relay, daemon=True).start()

    def await_ready(self) -> None:
        """Wait until all parts answer. Raises StackFailed where one does not."""
        until = time.monotonic() + START_SECONDS
        for part in self._parts:
            pause = 0.05
            while not part.ready():
                self._check()
                if time.monotonic() > until:
                    seconds = f"{START_SECONDS:.0f} s"
                    raise StackFailed(
                        f"{part.name} does not answer after {seconds}; {part.words} may say why"
                    )
                time.sleep(pause)
                pause = min(pause * 1.2, 1.0)  # who cannot be ready says why at every question

    def watch(self) -> None:
        """Wait until a part dies (StackFailed) or a signal comes (Stopped)."""
        while True:
            self._check()
            time.sleep(0.1)

    def _check(self) -> None:
        if self._stopping:
            raise Stopped
        for part in self._parts:
            if part.process is not None and (status := part.process.poll()) is not None:
                time.sleep(0.2)  # let its last lines be printed
                raise StackFailed(f"{part.name} ended (status {status}); {part.words} say why")

    def stop(self) -> None:
        """End all parts, the youngest first, and whatever they started."""
        for part in reversed(self._parts):
            _signal_group(part, signal.SIGTERM)
            try:
                if part.process is not None:
                    part.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._console.say(f"{part.name} does not stop; killing it")
            _signal_group(part, signal.SIGKILL)
        for directory in self.leftovers:
            shutil.rmtree(directory, ignore_errors=True)


def _signal_group(part: Part, number: signal.Signals) -> None:
    if part.process is None:
        return
    try:
        os.killpg(part.process.pid, number)
    except ProcessLookupError:
        return


def _die_with_parent() -> None:
    """Linux: should this process be killed outright, its parts do not stay behind."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
