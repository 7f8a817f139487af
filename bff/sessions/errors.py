"""Whatever Redis does wrong is one thing to a caller: come back in a moment, nothing is lost."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from redis.exceptions import RedisError

from bff.errors import StoreUnavailable


@contextmanager
def store_errors() -> Iterator[None]:
    """Turns errors of the Redis client into StoreUnavailable."""
    try:
        yield
    except (RedisError, TimeoutError) as error:
        raise StoreUnavailable(
            "Sessions cannot be read at the moment; you are still signed in. Please try again.",
            reason=f"Redis: {type(error).__name__}",
        ) from error
