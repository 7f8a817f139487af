"""Whatever Redis does wrong is one thing to a caller: come back in a moment, nothing is lost."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from redis.exceptions import RedisClusterException, RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.sentinel import MasterNotFoundError

from bff.errors import StoreUnavailable

_SLOW = (RedisTimeoutError, TimeoutError, RedisClusterException, MasterNotFoundError)
"""What costs a thread the time of a hanging peer, or of several: no node and no sentinel has answered."""


@contextmanager
def store_errors() -> Iterator[None]:
    """Turns errors of the Redis client into StoreUnavailable."""
    try:
        yield
    except (RedisError, RedisClusterException, TimeoutError) as error:
        raise unavailable(type(error).__name__) from error


def unavailable(reason: str) -> StoreUnavailable:
    """The error for the caller; `reason` is for the log."""
    return StoreUnavailable(
        "Sessions cannot be read at the moment; you are still signed in. Please try again.",
        reason=f"Redis: {reason}",
    )


class StoreErrors:
    """The same for threads, of which there are few: once a call has timed out, one at a time finds out
    whether Redis answers again, and the others fail at once. Or those that wait for a Redis that hangs would
    take the threads of everybody else."""

    def __init__(self) -> None:
        self._in_doubt = False
        self._probe = threading.Lock()

    @contextmanager
    def __call__(self) -> Iterator[None]:
        if not self._in_doubt:
            with self._noting_time_outs():
                yield
        elif self._probe.acquire(blocking=False):
            try:
                with self._noting_time_outs():
                    yield
                self._in_doubt = False
            finally:
                self._probe.release()
        else:
            raise unavailable("it hangs, as another call is finding out")

    @contextmanager
    def _noting_time_outs(self) -> Iterator[None]:
        try:
            with store_errors():
                yield
        except StoreUnavailable as error:
            if isinstance(error.__cause__, _SLOW):
                self._in_doubt = True
            raise
