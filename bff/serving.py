"""The production server: gunicorn as arbiter, uvicorn's worker (uvloop, httptools) with our connections."""

from __future__ import annotations

import logging
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import structlog
from gunicorn.app.base import BaseApplication
from gunicorn.glogging import Logger
from uvicorn_worker import UvicornWorker

from bff.answers import CommonHeaders
from bff.connection import DEFAULT_HEADER_BYTES, Protocol
from bff.dataplane import ASGIApp

KEEP_ALIVE_SECONDS = 75
"""Longer than what common proxies in front keep a connection: they, not we, close it first."""
GRACEFUL_SECONDS = 30
_MEMORY = Path("/dev/shm")  # noqa: S108  the workers' heartbeat file must not wait for a disk

log = structlog.get_logger("bff.server")


class Worker(UvicornWorker):
    """One process of the server."""

    CONFIG_KWARGS = {
        "loop": "uvloop",
        "http": Protocol,
        "ws": "none",
        "lifespan": "on",
        "proxy_headers": False,  # X-Forwarded-* is judged by us, from configured peers only
        "server_header": False,
        "date_header": False,  # an upstream's Date passes; ours is added where there is none
        "access_log": False,
        "timeout_graceful_shutdown": GRACEFUL_SECONDS,
    }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name in ("uvicorn.error", "uvicorn.access"):
            logger = logging.getLogger(name)
            logger.handlers, logger.propagate = [], True
            logger.setLevel(logging.WARNING)

    async def callback_notify(self) -> None:
        """Now and then: end with the arbiter, or a restarted one would find the address in use."""
        if os.getppid() != self.ppid:
            signal.raise_signal(signal.SIGTERM)
        await super().callback_notify()


class _PlainLogger(Logger):
    """Gunicorn's messages go where all others go."""

    def setup(self, _cfg: Any) -> None:
        self.error_log.handlers, self.error_log.propagate = [], True
        self.access_log.handlers, self.access_log.propagate = [], True
        self.error_log.setLevel(logging.WARNING)


class _Application(BaseApplication):
    def __init__(self, factory: Callable[[], ASGIApp], options: dict[str, Any]) -> None:
        self._factory = factory
        self._options = options
        super().__init__()

    def load_config(self) -> None:
        for name, value in self._options.items():
            self.cfg.set(name, value)

    def load(self) -> ASGIApp:
        return self._factory()


def serve(
    factory: Callable[[], ASGIApp],
    *,
    name: str,
    bind: str,
    workers: int,
    max_header_bytes: int = DEFAULT_HEADER_BYTES,
    secure: bool = False,
) -> None:
    """Serve until a signal comes. `factory` is called in each worker process, after the fork.

    Raises OSError, before anything is started, where the address cannot be listened on.
    """
    _probe(bind)
    Protocol.max_header_bytes = max_header_bytes
    Protocol.common = CommonHeaders(secure=secure)
    log.info("starting", server=name, address=bind, workers=workers)
    options = {
        "bind": [bind],
        "workers": workers,
        "worker_class": Worker,
        "logger_class": _PlainLogger,
        "keepalive": KEEP_ALIVE_SECONDS,
        "graceful_timeout": GRACEFUL_SECONDS + 5,
        "proc_name": name,
        "control_socket_disable": True,
        "worker_tmp_dir": str(_MEMORY) if _MEMORY.is_dir() else None,
    }
    _Application(factory, options).run()


def _probe(bind: str) -> None:
    """Gunicorn would try an address in use for seconds and then fail with a stack trace."""
    host, _, port = bind.rpartition(":")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, int(port)))
