"""The production server: gunicorn as arbiter of our workers."""

from __future__ import annotations

import gc
import logging
import math
import os
import resource
import signal
import socket
import sys
import typing
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import structlog
from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from gunicorn.glogging import Logger
from gunicorn.util import parse_address

from bff.answers import CommonHeaders
from bff.asgi import ASGIApp
from bff.connection import DEFAULT_HEADER_BYTES, Protocol
from bff.tls import FilesRefused, Identity, server_context
from bff.worker import GRACEFUL_SECONDS, Worker

KEEP_ALIVE_SECONDS = 75
"""Longer than what common proxies in front keep a connection: they, not we, close it first."""
MOST_FILES = 65_536
_MEMORY = Path("/dev/shm")  # noqa: S108  the workers' heartbeat file must not wait for a disk

log = structlog.get_logger("bff.server")


class _PlainLogger(Logger):
    """Gunicorn's messages go where all others go."""

    def setup(self, _cfg: Any) -> None:
        self.error_log.handlers, self.error_log.propagate = [], True
        self.access_log.handlers, self.access_log.propagate = [], True
        self.error_log.setLevel(logging.WARNING)


class Companion(typing.Protocol):
    """A process beside the workers."""

    def prepare(self) -> None:
        """Before anything is started."""

    def keep(self, others: Iterable[Any]) -> None:
        """See to it that it runs, about once a second; `others` are the sockets that are not for it."""

    def leave(self, place: int) -> None:
        """In a worker: let go of what is not for it. No two workers have the same `place` at the same time;
        one that ends leaves it to the next."""

    def worker_ended(self, place: int) -> None:
        """The worker that had this place has ended."""

    def stop(self) -> None:
        """End it."""


class _Arbiter(Arbiter):
    def manage_workers(self) -> None:
        super().manage_workers()
        if self.app.companion is not None:
            self.app.companion.keep(self.LISTENERS)


class _Application(BaseApplication):
    def __init__(
        self,
        factory: Callable[[], ASGIApp],
        options: dict[str, Any],
        identity: Identity | None,
        companion: Companion | None,
    ) -> None:
        self._factory = factory
        self.companion = companion
        self._options = options
        self._identity = identity
        super().__init__()

    def load_config(self) -> None:
        """Called at the start, and again by SIGHUP: then a renewed certificate is taken up."""
        if self._identity is not None:
            try:
                Worker.tls = server_context(self._identity)
            except FilesRefused as error:  # better an old certificate than none
                log.error("certificate_not_renewed", reason=str(error))  # noqa: TRY400  it says all
        for name, value in self._options.items():
            self.cfg.set(name, value)

    def load(self) -> ASGIApp:
        return self._factory()

    def run(self) -> None:
        _Arbiter(self).run()


def serve(
    factory: Callable[[], ASGIApp],
    *,
    name: str,
    bind: str,
    workers: int,
    max_header_bytes: int = DEFAULT_HEADER_BYTES,
    secure: bool = False,
    local: bool = False,
    drain_seconds: float = 0.0,
    tls: Identity | None = None,
    companion: Companion | None = None,
    side: Mapping[str, str] | None = None,
) -> None:
    """Serve until a signal comes. `factory` is called in each worker process, after the fork; what it makes
    may have a method `drain`, which is called `drain_seconds` before the listener closes. With `tls`, `bind`
    speaks TLS and nothing else; SIGHUP has new workers take up what is in these files then. `side` are other
    addresses to listen on, without TLS, each with the name of the method that takes the exchanges that come
    there.

    Raises FilesRefused where the files of `tls` cannot be used, and OSError, with the address as its
    `filename`, where one cannot be listened on; both before anything is started.
    """
    Worker.tls = None if tls is None else server_context(tls)
    side = side or {}
    for address in (bind, *side):
        _probe(address)
    allow_many_files()
    Protocol.max_header_bytes = max_header_bytes
    Protocol.common = CommonHeaders(secure=secure, local=local)
    Worker.drain_seconds = drain_seconds
    Worker.side = {parse_address(address): _protocol(taker) for address, taker in side.items()}
    log.info("starting", server=name, address=bind, workers=workers, **{v: k for k, v in side.items()})
    options = {
        "bind": [bind, *side],
        "workers": workers,
        "worker_class": Worker,
        "logger_class": _PlainLogger,
        "keepalive": KEEP_ALIVE_SECONDS,
        "graceful_timeout": math.ceil(drain_seconds) + GRACEFUL_SECONDS + 5,
        "proc_name": name,
        "control_socket_disable": True,
        "worker_tmp_dir": str(_MEMORY) if _MEMORY.is_dir() else None,
        "post_fork": _listen_to_signals,
    }
    # Until the arbiter listens to signals itself: what was made by then is to be cleaned up, and the first
    # process of a container would not even hear one.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    # What has been imported by now is shared by all workers until somebody writes to it: the collector would.
    gc.collect()
    gc.freeze()
    if companion is None:
        _Application(factory, options, tls, None).run()
    else:
        _run_beside(companion, factory, options, tls)


def _run_beside(
    companion: Companion, factory: Callable[[], ASGIApp], options: dict[str, Any], identity: Identity | None
) -> None:
    options["pre_fork"] = _give_place

    def post_fork(arbiter: Arbiter, worker: Worker) -> None:
        _listen_to_signals(arbiter, worker)
        companion.leave(worker.place)

    options["post_fork"] = post_fork
    options["child_exit"] = lambda _arbiter, worker: companion.worker_ended(worker.place)
    arbiter = os.getpid()
    try:
        companion.prepare()
        _Application(factory, options, identity, companion).run()
    finally:
        if os.getpid() == arbiter:  # workers come by here, too
            companion.stop()


def _listen_to_signals(arbiter: Arbiter, _worker: Worker) -> None:
    """In a worker, first of all. Until gunicorn sees to it, signals go into the queue that was the arbiter's,
    which nobody reads here: a worker that was told to end as it began would be waited for until it is killed.
    """
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    while not arbiter.SIG_QUEUE.empty():
        if arbiter.SIG_QUEUE.get_nowait() == signal.SIGTERM:
            sys.exit(0)


def _give_place(arbiter: Arbiter, worker: Worker) -> None:
    """The first place that no running worker has: a restart uses up none."""
    taken = {other.place for other in arbiter.WORKERS.values()}
    worker.place = next(place for place in count() if place not in taken)


def allow_many_files() -> None:
    """As many open files as the system lets us have: every stream holds two connections. The usual limit of
    1,024 is there for programs that wait with select(), and may be raised by who does not."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _probe(bind: str) -> None:
    """Gunicorn would try an address in use for seconds and then fail with a stack trace."""
    host, _, port = bind.rpartition(":")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, int(port)))
        except OSError as error:
            raise OSError(error.errno, error.strerror, bind) from None


def _protocol(taker: str) -> type[Protocol]:
    """The protocol of a listener whose exchanges go to another method of the application."""
    return type("SideProtocol", (Protocol,), {"taker": taker})
