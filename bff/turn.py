"""Threads that take turns, so that they leave the event loop its share of the interpreter.

In one process Python runs one thread at a time. When many refreshes become due together, their threads
compete with the event loop for every moment of it, and each of them gets as much: requests whose tokens are
good would wait for the refreshes of others. Taking turns, they are as one.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

PATIENCE_SECONDS = 0.1
"""Whoever has waited so long goes on: whatever holds the turn up, a Redis that hangs for instance, is no
reason for others to wait as well."""

_thread = threading.local()


class Turn:
    """`with turn:` by turns. Only a courtesy, nothing is protected by it."""

    def __init__(self) -> None:
        self._free = threading.Lock()

    def __enter__(self) -> None:
        _thread.turn = self if self._free.acquire(timeout=PATIENCE_SECONDS) else None

    def __exit__(self, *_: object) -> None:
        if _thread.turn is not None:
            self._free.release()
            _thread.turn = None


@contextmanager
def aside() -> Iterator[None]:
    """While this thread waits for somebody else: others may have the turn, if it is this one's."""
    turn: Turn | None = getattr(_thread, "turn", None)
    if turn is None:
        yield
        return
    turn.__exit__()
    try:
        yield
    finally:
        turn.__enter__()
