"""HTTP to the provider: kept-alive connections, no redirects, bounded in size and time."""

from __future__ import annotations

import heapq
import http.client
import itertools
import os
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from requests.utils import get_environ_proxies
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, PoolManager
from urllib3.connection import HTTPConnection, HTTPSConnection

from bff.turn import aside

MAX_ANSWER_BYTES = 1_048_576
CONNECT_SECONDS = 3.0
SLACK_SECONDS = 2.0
KEEP_SECONDS = 1.0
"""Connections that have rested longer are not used again: shorter than servers keep them open, as one that is
closed while we send leaves the outcome of a redeem unknown. Under load it saves the handshake of most."""

DISTRUST_SECONDS = 60.0
"""For how long no connection is used again after one has failed: there are servers, and balancers in front of
them, that close one after an answer without saying so, which is seen too late each time from far away."""


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
        bundle = authorities or os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE")
        self._verify = str(bundle) if bundle else True  # an empty one would have requests verify nothing
        self._proxies: dict[str, dict[str, str]] = {}
        self._distrusts_until = 0.0

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> PoolManager:
        manager: PoolManager = super().proxy_manager_for(*args, **kwargs)
        manager.pool_classes_by_scheme = _POOLS
        return manager

    def send(self, request: requests.PreparedRequest, **options: Any) -> requests.Response:  # type: ignore[override]
        # The watchdog's word comes first, so that what is over time is told by one rule; the socket's own
        # time-out is for a thread of deadlines that has fallen behind.
        options["timeout"] = (min(CONNECT_SECONDS, self._deadline), self._deadline + SLACK_SECONDS)
        options["stream"] = True
        options["verify"] = self._verify
        options["proxies"] = self._proxies_for(str(request.url))
        with _deadline(self._deadline) as watchdog:
            watchdog.fresh_only = time.monotonic() < self._distrusts_until
            try:
                response = super().send(request, **options)
            except requests.RequestException as error:
                if watchdog.bit:
                    raise requests.ReadTimeout("the answer took too long", request=request) from error
                if watchdog.used_again:
                    self._distrusts_until = time.monotonic() + DISTRUST_SECONDS
                raise
            except OSError as error:  # the file of authorities is missing: trouble with TLS, as any other
                raise requests.exceptions.SSLError(str(error), request=request) from error
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

    def close(self) -> None:
        """Nothing: sessions come and go with each exchange, and requests has each close its adapter."""

    def _proxies_for(self, url: str) -> dict[str, str]:
        """As the environment says (HTTPS_PROXY, NO_PROXY …), which is read once for each host: requests would
        search all of it for every exchange, a quarter of what a refresh costs."""
        host = "/".join(url.split("/", 3)[:3])
        found = self._proxies.get(host)
        if found is None:
            found = self._proxies[host] = get_environ_proxies(host)
        return found


def _read(response: requests.Response) -> bytes:
    body = bytearray()
    for chunk in response.iter_content(16_384):
        body += chunk
        if len(body) > MAX_ANSWER_BYTES:
            raise requests.RequestException("the answer is larger than 1 MiB")
    return bytes(body)


def _tells_its_end(response: requests.Response) -> bool:
    """Whether reading it would have failed had it been cut (RFC 9112 §6.3)."""
    return response.headers.get("Content-Length", "").isdigit() or bool(response.raw.chunked)


class _Watchdog:
    """Cuts the connection of one exchange when its time is over.

    The socket's own time-out begins anew with each byte, in the handshake, the head and the body alike:
    a provider whose answer drips would hold a thread, and outlive a refresh lease.
    """

    def __init__(self) -> None:
        self.bit = False
        self.fresh_only = False
        """Whether only a new connection will do."""
        self.used_again = False
        """Whether the connection has served another exchange before."""
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


class _Kennel:
    """Lets watchdogs bite when their time has come: one thread for all of them, where a timer each would
    start one for every exchange."""

    def __init__(self) -> None:
        self._due: list[tuple[float, int, _Watchdog]] = []
        self._numbers = itertools.count()  # watchdogs know no order
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def add(self, watchdog: _Watchdog, seconds: float) -> None:
        """Let it bite in so many seconds, unless it has left."""
        with self._changed:
            entry = (time.monotonic() + seconds, next(self._numbers), watchdog)
            heapq.heappush(self._due, entry)
            if self._thread is None or not self._thread.is_alive():  # not in this process, after a fork
                self._thread = threading.Thread(target=self._run, name="deadlines", daemon=True)
                self._thread.start()
            elif self._due[0] is entry:
                self._changed.notify()

    def _run(self) -> None:
        while True:
            self._next().bite()

    def _next(self) -> _Watchdog:
        with self._changed:
            while True:
                left = self._due[0][0] - time.monotonic() if self._due else None
                if left is not None and left <= 0:
                    return heapq.heappop(self._due)[2]
                self._changed.wait(left)


_exchange = threading.local()
_kennel = _Kennel()


@contextmanager
def _deadline(seconds: float) -> Iterator[_Watchdog]:
    """All that this thread does with a connection meanwhile has to end within so many seconds."""
    watchdog = _exchange.watchdog = _Watchdog()
    _kennel.add(watchdog, seconds)
    try:
        yield watchdog
    finally:
        watchdog.leave()
        del _exchange.watchdog


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
        _exchange.watchdog.watch(connection)
        return connection

    def connect(self) -> None:
        with aside():
            super().connect()  # type: ignore[misc]

    def getresponse(self, *args: Any, **kwargs: Any) -> Any:
        with aside():
            return super().getresponse(*args, **kwargs)  # type: ignore[misc]

    def request(self, *args: Any, **kwargs: Any) -> None:
        if self.sock is not None:
            _exchange.watchdog.watch(self.sock)
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
        watchdog = _exchange.watchdog
        if watchdog.fresh_only or _has_rested(connection) or _has_more(connection.sock):
            connection.close()  # it opens again by itself
        watchdog.used_again = connection.sock is not None
        return connection

    def _put_conn(self, connection: Any) -> None:
        watchdog = getattr(_exchange, "watchdog", None)
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


def _has_rested(connection: Any) -> bool:
    return time.monotonic() - getattr(connection, "at_rest_since", 0.0) > KEEP_SECONDS


def _has_more(connection: Any) -> bool:
    """Whether TLS holds what nobody has asked for, where urllib3 does not look: it asks the system only."""
    return isinstance(connection, ssl.SSLSocket) and connection.pending() > 0


class _HTTPPool(_WatchedPool, HTTPConnectionPool):
    ConnectionCls = _WatchedHTTP


class _HTTPSPool(_WatchedPool, HTTPSConnectionPool):
    ConnectionCls = _WatchedHTTPS


_POOLS = {"http": _HTTPPool, "https": _HTTPSPool}


def mount(session: requests.Session, adapter: BoundedAdapter) -> None:
    """Send all of a session's requests through `adapter`, which may be shared between threads, and reads the
    environment itself; no password of a .netrc is sent."""
    session.trust_env = False
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
