"""HTTP to the issuer: a session whose connections are cut when the time for all of it is over."""

from __future__ import annotations

import os
import socket
import threading
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import requests
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, PoolManager
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError

TRANSPORT_ERRORS = (requests.RequestException, HTTPError, OSError)
"""What a request or the reading of its answer can end with."""


class Watchdog:
    """Cuts every connection of one fetch when `seconds` are over.

    A socket's own time-out begins anew with each byte, in the handshake, the head and the body alike:
    an issuer that drips would hold a thread for ever, and the next fetch another one.
    """

    def __init__(self, seconds: float) -> None:
        self.bit = False
        self._lock = threading.Lock()
        self._connections: list[socket.socket] = []
        self._timer = threading.Timer(seconds, self._bite)
        self._timer.daemon = True

    def __enter__(self) -> Self:
        self._timer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        with self._lock:
            while self._connections:
                self._connections.pop().close()

    def watch(self, connection: socket.socket) -> socket.socket:
        """Cut this one too; through a descriptor of our own, since TLS takes the first one over."""
        own = socket.socket(fileno=os.dup(connection.fileno()))
        with self._lock:
            self._connections.append(own)
            if self.bit:
                _cut(own)
        return connection

    def _bite(self) -> None:
        with self._lock:
            self.bit = True
            for connection in self._connections:
                _cut(connection)


def watched_session(watchdog: Watchdog, authorities: Path | None = None) -> requests.Session:
    """A session without retries and credentials, all of whose connections `watchdog` can cut."""
    session = _Session()
    session.auth = _no_credentials
    session.mount("https://", adapter := _WatchedAdapter(watchdog, authorities))
    session.mount("http://", adapter)
    return session


class _Session(requests.Session):
    def get_redirect_target(self, _resp: requests.Response) -> None:
        """Know of no redirect: even where none is followed, `requests` would parse its Location and read
        all of its body, decompressed and without a limit, to prepare the next request."""


class _WatchedAdapter(HTTPAdapter):
    def __init__(self, watchdog: Watchdog, authorities: Path | None) -> None:
        self._pools = _pools(watchdog)
        self._authorities = authorities
        super().__init__(max_retries=0)

    def send(self, request: requests.PreparedRequest, **options: Any) -> requests.Response:  # type: ignore[override]
        if self._authorities is not None:  # else those of `requests`, or of REQUESTS_CA_BUNDLE
            options["verify"] = str(self._authorities)
        return super().send(request, **options)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = self._pools

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> PoolManager:
        manager: PoolManager = super().proxy_manager_for(*args, **kwargs)
        manager.pool_classes_by_scheme = self._pools
        return manager


def _pools(watchdog: Watchdog) -> dict[str, type[HTTPConnectionPool]]:
    """Pools whose connections show their socket to the watchdog before the first byte."""

    class HTTP(HTTPConnection):
        def _new_conn(self) -> socket.socket:
            return watchdog.watch(super()._new_conn())

    class HTTPS(HTTPSConnection):
        def _new_conn(self) -> socket.socket:
            return watchdog.watch(super()._new_conn())

    class HTTPPool(HTTPConnectionPool):
        ConnectionCls = HTTP

    class HTTPSPool(HTTPSConnectionPool):
        ConnectionCls = HTTPS

    return {"http": HTTPPool, "https": HTTPSPool}


def _cut(connection: socket.socket) -> None:
    with suppress(OSError):  # the other side was faster
        connection.shutdown(socket.SHUT_RDWR)


def _no_credentials(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Keeps `requests` from adding a password of `~/.netrc`."""
    return request
