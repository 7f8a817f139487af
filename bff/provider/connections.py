"""Connections to the provider: kept alive for a moment, never where it is in doubt what comes next."""

from __future__ import annotations

import http.client
import socket
import ssl
import time
from typing import Any

from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection

from bff.provider.deadline import current
from bff.turn import aside

KEEP_SECONDS = 1.0
"""Connections that have rested longer are not used again: shorter than servers keep them open, as one that is
closed while we send leaves the outcome of a redeem unknown. Under load it saves the handshake of most."""


class _Answer(http.client.HTTPResponse):
    """The final answer to one request, after which the connection is kept only where it has surely ended:
    what is left of it would be the next exchange's answer, with the tokens of somebody else."""

    def begin(self) -> None:
        super().begin()
        while 100 <= self.status < 200 and self.status != http.client.SWITCHING_PROTOCOLS:
            self.headers = self.msg = None  # type: ignore[assignment]
            super().begin()  # any number of interim answers may precede (RFC 9110 §15.2); it knows 100 only
        lengths = self.headers.get_all("Content-Length", [])
        codings = self.headers.get_all("Transfer-Encoding", [])
        doubtful = len(lengths) + len(codings) > 1 or (codings and not self.chunked)  # RFC 9112 §6.3
        if doubtful or self.status == http.client.SWITCHING_PROTOCOLS:
            self.will_close = True


class _Watched:
    """A connection that shows its socket to the watchdog of the thread, before the first byte, and lets other
    threads have their turn while it is opened and while the head of an answer is waited for."""

    sock: Any
    response_class: Any = _Answer

    def _new_conn(self) -> socket.socket:
        connection: socket.socket = super()._new_conn()  # type: ignore[misc]
        _show(connection)
        return connection

    def connect(self) -> None:
        with aside():
            super().connect()  # type: ignore[misc]

    def getresponse(self, *args: Any, **kwargs: Any) -> Any:
        with aside():
            return super().getresponse(*args, **kwargs)  # type: ignore[misc]

    def request(self, *args: Any, **kwargs: Any) -> None:
        if self.sock is not None:
            _show(self.sock)
        super().request(*args, **kwargs)  # type: ignore[misc]


class _WatchedHTTP(_Watched, HTTPConnection):
    pass


class _WatchedHTTPS(_Watched, HTTPSConnection):
    pass


class _WatchedPool:
    """A pool to which a connection returns only when nobody can cut it any more, and that gives none back
    which has rested long."""

    pool: Any

    def _get_conn(self, *args: Any, **kwargs: Any) -> Any:
        connection = super()._get_conn(*args, **kwargs)  # type: ignore[misc]
        watchdog = current()
        fresh_only = watchdog is None or watchdog.fresh_only
        if fresh_only or _has_rested(connection) or _has_more(connection.sock):
            connection.close()  # it opens again by itself
        if watchdog is not None:
            watchdog.used_again = connection.sock is not None
        return connection

    def _put_conn(self, connection: Any) -> None:
        watchdog = current()
        if watchdog is not None:
            watchdog.leave()
        if connection is not None:
            connection.at_rest_since = time.monotonic()
            self._close_rested()
        super()._put_conn(connection)  # type: ignore[misc]

    def _close_rested(self) -> None:
        """Those below the newest may rest for good: the newest is always taken first."""
        pool = self.pool
        if pool is None:  # closed meanwhile
            return
        with pool.mutex:  # what is in there is in nobody's hands meanwhile
            for each in pool.queue:
                if each is not None and _has_rested(each):
                    each.close()


def _show(connection: Any) -> None:
    """To the watchdog, which cuts it when time is over."""
    watchdog = current()
    if watchdog is not None:
        watchdog.watch(connection)


def _has_rested(connection: Any) -> bool:
    return time.monotonic() - getattr(connection, "at_rest_since", 0.0) > KEEP_SECONDS


def _has_more(connection: Any) -> bool:
    """Whether TLS holds what nobody has asked for, where urllib3 does not look: it asks the system only."""
    return isinstance(connection, ssl.SSLSocket) and connection.pending() > 0


class _HTTPPool(_WatchedPool, HTTPConnectionPool):
    ConnectionCls = _WatchedHTTP


class _HTTPSPool(_WatchedPool, HTTPSConnectionPool):
    ConnectionCls = _WatchedHTTPS


POOLS = {"http": _HTTPPool, "https": _HTTPSPool}
