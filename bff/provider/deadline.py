"""The time that an exchange with the provider may take, from its first byte to its last."""

from __future__ import annotations

import heapq
import itertools
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class Watchdog:
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


class Kennel:
    """Lets watchdogs bite when their time has come: one thread for all of them, where a timer each would
    start one for every exchange."""

    def __init__(self) -> None:
        self._due: list[tuple[float, int, Watchdog]] = []
        self._numbers = itertools.count()  # watchdogs know no order
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def add(self, watchdog: Watchdog, seconds: float) -> None:
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

    def _next(self) -> Watchdog:
        with self._changed:
            while True:
                left = self._due[0][0] - time.monotonic() if self._due else None
                if left is not None and left <= 0:
                    return heapq.heappop(self._due)[2]
                self._changed.wait(left)


_exchange = threading.local()
_kennel = Kennel()


def current() -> Watchdog | None:
    """The watchdog of the exchange that this thread is at."""
    return getattr(_exchange, "watchdog", None)


@contextmanager
def deadline(seconds: float) -> Iterator[Watchdog]:
    """All that this thread does with a connection meanwhile has to end within so many seconds."""
    watchdog = _exchange.watchdog = Watchdog()
    _kennel.add(watchdog, seconds)
    try:
        yield watchdog
    finally:
        watchdog.leave()
        del _exchange.watchdog
