"""The smallest question about a session: is it still there, and until when?"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from redis.exceptions import RedisError

from bff.sessions.ending import Reason, note
from bff.sessions.errors import unavailable


@dataclass(frozen=True, slots=True)
class Alive:
    """What can change while a session lives."""

    last_seen: float
    generation: int


@dataclass(frozen=True, slots=True)
class Gone:
    reason: Reason
    """Where nothing says why: expired."""


async def glance(ask: Callable[..., Awaitable[Any]], key: str) -> Alive | Gone:
    """Look at a session by its Redis key; `ask` sends a command. Extends nothing. Raises StoreUnavailable."""
    try:
        seen, generation = await ask(b"HMGET", key, b"s", b"g")
        if seen is not None and generation is not None:
            return Alive(float(seen), int(generation))
        reason = await ask(b"GET", note(key))
    except (RedisError, TimeoutError) as error:
        raise unavailable(type(error).__name__) from error
    return Gone(_reason(reason))


def _reason(noted: bytes | None) -> Reason:
    try:
        return Reason.EXPIRED if noted is None else Reason(noted.decode())
    except ValueError:  # a newer version's, while one takes the place of the other
        return Reason.REVOKED
