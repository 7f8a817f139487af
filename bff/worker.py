"""One process of the server: uvicorn's worker for gunicorn (uvloop, httptools) with our connections."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import ssl
import sys
from collections.abc import Callable, Mapping
from functools import partial
from types import FrameType
from typing import Any

import structlog
import uvicorn
from gunicorn.arbiter import Arbiter
from uvicorn_worker import UvicornWorker

from bff.connection import Protocol

GRACEFUL_SECONDS = 30
LAST_SECONDS = 1.0
"""For how long, after the listener has closed, a connection on which nothing has come yet may still ask."""
_LOOK_SECONDS = 0.01

log = structlog.get_logger("bff.server")


def _nothing() -> None: ...


class Server(uvicorn.Server):
    """Uvicorn's server, which on SIGTERM goes on for a while, so that whoever sends requests here can hear
    that it will end; only then the listener closes and what is under way is finished.

    A listener may have another protocol than the rest. What accepts a connection decides who answers on it:
    addresses, which could look alike, do not.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        *,
        drain_seconds: float = 0.0,
        announce: Callable[[], object] = _nothing,
        side: Mapping[Any, type[Protocol]] | None = None,
    ) -> None:
        """`announce` is called on SIGTERM, `drain_seconds` before the listeners close. `side` are the
        listening sockets that have a protocol of their own."""
        super().__init__(config)
        self._drain_seconds = drain_seconds
        self._announce = announce
        self._side = side or {}
        self._draining = False
        self._loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().startup([sock for sock in sockets or [] if sock not in self._side])
        for sock, protocol in self._side.items():
            listener = await self._loop.create_server(
                partial(protocol, self.config, self.server_state, self.lifespan.state),
                sock=sock,
                backlog=self.config.backlog,
            )
            self.servers.append(listener)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Whoever connected at the last moment is still heard: a proxy does not send again what it has sent
        on a new connection, unless that is safe to repeat."""
        for server in self.servers:
            server.close()
        for sock in sockets or []:
            sock.close()
        for _ in range(round(LAST_SECONDS / _LOOK_SECONDS)):
            if not self._unheard():
                break
            await asyncio.sleep(_LOOK_SECONDS)
        await super().shutdown(sockets)

    def _unheard(self) -> bool:
        """Whether there is a connection on which no request has come yet."""
        return any(getattr(each, "cycle", None) is None for each in self.server_state.connections)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if sig != signal.SIGTERM or self._loop is None:
            super().handle_exit(sig, frame)
        elif not self._draining:  # one comes from the arbiter, others may come from whoever stops the group
            self._draining = True
            self._loop.call_soon_threadsafe(self._drain, sig, frame)

    def _drain(self, sig: int, frame: FrameType | None) -> None:
        self._announce()
        asyncio.get_running_loop().call_later(self._drain_seconds, super().handle_exit, sig, frame)


class Worker(UvicornWorker):
    """One process of the server."""

    drain_seconds = 0.0
    tls: ssl.SSLContext | None = None
    """Made before the fork: what one worker gives a browser to resume its TLS session, all can open."""
    side: Mapping[tuple[str, int], type[Protocol]] = {}
    """By the address that they were made for, listeners with a protocol of their own."""
    place = 0
    """Told from those of the other workers that run."""

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

    async def _serve(self) -> None:
        self.config.app = self.wsgi
        self.config.load()
        self.config.ssl = self.tls
        server = Server(
            self.config,
            drain_seconds=self.drain_seconds,
            announce=getattr(self.wsgi, "drain", _nothing),
            side=self._side_listeners(),
        )
        self._install_sigquit_handler()
        await server.serve(sockets=self.sockets)
        if not server.started:
            sys.exit(Arbiter.WORKER_BOOT_ERROR)

    def _side_listeners(self) -> dict[Any, type[Protocol]]:
        """Sockets that a service manager hands over are no configured ones: better none than a wrong one."""
        found = {sock: self.side[sock.cfg_addr] for sock in self.sockets if sock.cfg_addr in self.side}
        if len(found) != len(self.side):
            log.error("not_started", reason="the listeners are not the configured ones")
            sys.exit(Arbiter.WORKER_BOOT_ERROR)
        return found

    async def callback_notify(self) -> None:
        """Now and then: end with the arbiter, or a restarted one would find the address in use."""
        if os.getppid() != self.ppid:
            signal.raise_signal(signal.SIGTERM)
        await super().callback_notify()
