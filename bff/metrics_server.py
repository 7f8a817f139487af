"""The Prometheus endpoint: a child process of its own beside the workers, on an address of its own.

Whichever worker was asked could tell of itself alone, and the arbiter must not answer anybody: it would need
threads, and it forks. The child reads the files in which the workers count (prometheus-client's multi-process
mode), and counts live sessions. No request waits for it, and its end ends nothing.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import NoReturn, Protocol

import structlog

from bff.errors import StoreUnavailable
from bff.sealing import Keyring
from bff.sessions.census import Census
from bff.sessions.connect import connect
from bff.sessions.lifetime import Lifetime
from bff.sessions.record import Codec
from bff.sessions.store import SessionStore
from bff.settings import Settings

DIRECTORY = "PROMETHEUS_MULTIPROC_DIR"
RESTART_SECONDS = 5.0
LOOK_SECONDS = 0.5
ASK_SECONDS = 15.0
"""How often the number of sessions is asked for; it is counted once a minute."""
_MEMORY = Path("/dev/shm")  # noqa: S108  counting must not wait for a disk
_IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)

log = structlog.get_logger("bff.metrics")


class Closable(Protocol):
    """What the child must not keep open."""

    def close(self) -> object: ...


class MetricsServer:
    """The arbiter's side: makes the directory and the child, and cleans up after both."""

    def __init__(self, bind: str, census: Callable[[], Census]) -> None:
        """`census` is called in the child."""
        self._bind = bind
        self._census = census
        self._listener: socket.socket | None = None
        self._directory = ""
        self._child = 0
        self._began_at = float("-inf")

    def listen(self) -> None:
        """Take the address. Raises OSError."""
        host, _, port = self._bind.rpartition(":")
        host = host.strip("[]")
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.create_server((host, int(port)), family=family, backlog=16)

    def prepare(self) -> None:
        """Make the directory that workers count in, before there is one; where it cannot be made, exit."""
        memory = str(_MEMORY) if os.access(_MEMORY, os.W_OK) else None
        try:
            self._directory = tempfile.mkdtemp(prefix="bff-metrics-", dir=memory)
        except OSError as error:
            sys.exit(
                f"bff: BFF_METRICS_BIND needs a temporary directory, and none can be made: {error.strerror}"
            )
        os.environ[DIRECTORY] = self._directory
        import prometheus_client.values  # noqa: F401  once for all workers; it reads the environment

    def keep(self, others: Iterable[Closable]) -> None:
        """See to it that the child runs; to be called now and then. `others` are the arbiter's listeners."""
        if self._runs() or time.monotonic() < self._began_at + RESTART_SECONDS:
            return
        if self._child:
            log.error("metrics_ended", reason="the process that answers Prometheus has died: another begins")
        self._began_at = time.monotonic()
        arbiter = os.getpid()
        self._child = os.fork()
        if not self._child:
            self._be_the_child(arbiter, others)

    def leave(self, place: int) -> None:
        """In a worker: let go of what is the arbiter's, and go on counting where the last one of this place
        ended.

        Files by process id, which is what prometheus-client would have, are never given up. They fill the
        memory that they lie in a little more with each worker that dies, and who writes to a mapped file when
        none is left is sent SIGBUS: in the end each new worker, as it begins.
        """
        from prometheus_client import values

        values.ValueClass = values.MultiProcessValue(lambda: place)  # type: ignore[no-untyped-call]
        if self._listener is not None:
            self._listener.close()

    def worker_ended(self, place: int) -> None:
        """Drop what a worker said of itself while it ran; what it counted stays."""
        from prometheus_client.multiprocess import mark_process_dead

        with suppress(OSError):
            mark_process_dead(place, self._directory)  # type: ignore[no-untyped-call]

    def stop(self) -> None:
        """End the child, and remove the directory."""
        if self._runs():
            with suppress(ProcessLookupError):
                os.kill(self._child, signal.SIGKILL)
        if self._directory:
            shutil.rmtree(self._directory, ignore_errors=True)

    def _runs(self) -> bool:
        if not self._child:
            return False
        try:
            return os.waitpid(self._child, os.WNOHANG) == (0, 0)
        except ChildProcessError:  # the arbiter has buried it
            return False

    def _be_the_child(self, arbiter: int, others: Iterable[Closable]) -> NoReturn:
        """Serve as long as the arbiter lives: signals are for it, and workers count until they have ended."""
        code = 1
        try:
            for number in _IGNORED:
                signal.signal(number, signal.SIG_IGN)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for other in others:  # or nobody could listen there when the arbiter has gone
                other.close()
            self._serve(arbiter)
            code = 0
        except Exception:
            log.exception("metrics_ended")
        finally:
            sys.stderr.flush()
            os._exit(code)

    def _serve(self, arbiter: int) -> None:
        from bff.scrape import Server, page  # here: it reads the environment when it is imported

        if self._listener is None:
            raise RuntimeError("listen() comes first")
        known = Known(self._census())
        threading.Thread(target=known.keep_asking, daemon=True).start()
        server = Server(self._listener, page(self._directory, known.sessions))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        while os.getppid() == arbiter:
            time.sleep(LOOK_SECONDS)
        shutil.rmtree(self._directory, ignore_errors=True)  # the arbiter was killed, and could not


class Known:
    """The number of live sessions, as it was last heard."""

    def __init__(self, census: Census) -> None:
        self._census = census
        self._sessions: int | None = None

    def sessions(self) -> int | None:
        """None where it is not known."""
        return self._sessions

    def ask(self) -> None:
        """Ask again; while somebody is counting, the last number goes on being told."""
        try:
            number = self._census.number()
        except StoreUnavailable as error:
            log.warning("sessions_not_counted", reason=error.reason)
            self._sessions = None
        else:
            self._sessions = self._sessions if number is None else number

    def keep_asking(self) -> NoReturn:
        """For ever, in a thread."""
        while True:
            self.ask()
            time.sleep(ASK_SECONDS)


def census(settings: Settings) -> Census:
    """The census of the Redis of these settings."""
    client = connect(settings.redis_address, connections=2)
    codec = Codec(Keyring(settings.keys), settings.redis_prefix)
    lifetime = Lifetime(settings.session_idle_seconds, settings.session_max_seconds)
    return Census(client, SessionStore(client, codec, lifetime, time.time))
