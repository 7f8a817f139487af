"""HTTP to the provider: kept-alive connections, no redirects, bounded in size and time."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, PoolManager
from urllib3.connection import HTTPConnection, HTTPSConnection

MAX_ANSWER_BYTES = 1_048_576
CONNECT_SECONDS = 3.0


class AnswerBroken(requests.RequestException):
    """The head of an answer came, and its body broke off, took too long or was too large.

    `response` tells what the head said.
    """


class BoundedAdapter(HTTPAdapter):
    """Reads each answer whole, within a total deadline and a size, before anybody parses it."""

    def __init__(self, deadline_seconds: float, authorities: Path | None = None) -> None:
        """`authorities` take the place of the well-known ones as those that sign certificates."""
        super().__init__(pool_connections=8, pool_maxsize=32, max_retries=0)
        self._deadline = deadline_seconds
        self._authorities = authorities

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> PoolManager:
        manager: PoolManager = super().proxy_manager_for(*args, **kwargs)
        manager.pool_classes_by_scheme = _POOLS
        return manager

    def send(self, request: requests.PreparedRequest, **options: Any) -> requests.Response:  # type: ignore[override]
        options["timeout"] = (min(CONNECT_SECONDS, self._deadline), self._deadline)
        options["stream"] = True
        if self._authorities is not None:
            options["verify"] = str(self._authorities)
        with _deadline(self._deadline) as watchdog:
            try:
                response = super().send(request, **options)
            except requests.RequestException as error:
                if watchdog.bit:
                    raise requests.ReadTimeout("the answer took too long", request=request) from error
                raise
            try:
                response._content = _read(response)  # noqa: SLF001
            except requests.RequestException as error:
                raise AnswerBroken(type(error).__name__, response=response) from error
            finally:
                response.close()
        # An answer without a length seems to end where the connection is cut. Any other is whole, however
        # late we read it: a process that stood still must not throw away what it has redeemed.
        if watchdog.bit and not _tells_its_end(response):
            raise AnswerBroken("it took too long", response=response)
        return response


def _read(response: requests.Response) -> bytes:
    body = bytearray()
    for chunk in response.iter_content(16_384):
        body += chunk
        if len(body) > MAX_ANSWER_BYTES:
            raise requests.RequestException("the answer is larger than 1 MiB")
    return bytes(body)


def _tells_its_end(response: requests.Response) -> bool:
    """Whether reading it would have failed had it been cut (RFC 9112 §6.3)."""
    return "Content-Length" in response.headers or bool(response.raw.chunked)


class _Watchdog:
    """Cuts the connection of one exchange when its time is over.

    The socket's own time-out begins anew with each byte, in the handshake, the head and the body alike:
    a provider whose answer drips would hold a thread, and outlive a refresh lease.
    """

    def __init__(self) -> None:
        self.bit = False
        self._over = False
        self._lock = threading.Lock()
        self._connection: socket.socket | None = None

    def watch(self, connection: socket.socket) -> None:
        """Cut this one; through a descriptor of our own, since TLS takes the first one over."""
        with self._lock:
            self._let_go()
            self._connection = socket.socket(fileno=os.dup(connection.fileno()))
            if self.bit:
                self._cut()

    def bite(self) -> None:
        """The time is over."""
        with self._lock:
            if not self._over:
                self.bit = True
                self._cut()

    def leave(self) -> None:
        """The exchange has ended: from here on the connection may be another one's."""
        with self._lock:
            self._over = True
            self._let_go()

    def _cut(self) -> None:
        if self._connection is not None:
            with suppress(OSError):  # the other side was faster
                self._connection.shutdown(socket.SHUT_RDWR)

    def _let_go(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


_exchange = threading.local()


@contextmanager
def _deadline(seconds: float) -> Iterator[_Watchdog]:
    """All that this thread does with a connection meanwhile has to end within so many seconds."""
    watchdog = _exchange.watchdog = _Watchdog()
    timer = threading.Timer(seconds, watchdog.bite)
    timer.daemon = True
    timer.start()
    try:
        yield watchdog
    finally:
        timer.cancel()
        watchdog.leave()
        del _exchange.watchdog


class _Watched:
    """A connection that shows its socket to the watchdog of the thread, before the first byte."""

    sock: Any

    def _new_conn(self) -> socket.socket:
        connection: socket.socket = super()._new_conn()  # type: ignore[misc]
        _exchange.watchdog.watch(connection)
        return connection

    def request(self, *args: Any, **kwargs: Any) -> None:
        if self.sock is not None:
            _exchange.watchdog.watch(self.sock)
        super().request(*args, **kwargs)  # type: ignore[misc]


class _WatchedHTTP(_Watched, HTTPConnection):
    pass


class _WatchedHTTPS(_Watched, HTTPSConnection):
    pass


class _WatchedPool:
    """A pool to which a connection returns only when nobody can cut it any more."""

    def _put_conn(self, connection: Any) -> None:
        watchdog = getattr(_exchange, "watchdog", None)
        if watchdog is not None:
            watchdog.leave()
        super()._put_conn(connection)  # type: ignore[misc]


class _HTTPPool(_WatchedPool, HTTPConnectionPool):
    ConnectionCls = _WatchedHTTP


class _HTTPSPool(_WatchedPool, HTTPSConnectionPool):
    ConnectionCls = _WatchedHTTPS


_POOLS = {"http": _HTTPPool, "https": _HTTPSPool}


def mount(session: requests.Session, adapter: BoundedAdapter) -> None:
    """Send all of a session's requests through `adapter`, which may be shared between threads."""
    session.mount("https://", adapter)
    session.mount("http://", adapter)
    session.max_redirects = 0


def get_json(adapter: BoundedAdapter, url: str) -> dict[str, Any]:
    """A JSON object by GET. Raises requests.RequestException or ValueError."""
    with requests.Session() as session:
        mount(session, adapter)
        response = session.get(url, headers={"Accept": "application/json"}, allow_redirects=False)
    if response.status_code != 200:
        raise ValueError(f"status {response.status_code} instead of 200")
    try:
        document = response.json()
    except RecursionError:
        raise ValueError("the answer is nested too deeply") from None
    if not isinstance(document, dict):
        raise ValueError("the answer is not a JSON object")  # noqa: TRY004
    return document
