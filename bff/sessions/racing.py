"""Several peers that can give the same answer: the first that does is enough."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

T = TypeVar("T")


async def first(attempts: Sequence[Coroutine[Any, Any, T]], drop: Callable[[T], object]) -> T:
    """What the first attempt without a RedisError gives; the others are given up, and what they gave all the
    same is dropped. Raises the last RedisError where all have failed."""
    tasks = [asyncio.ensure_future(attempt) for attempt in attempts]
    failure: RedisError = RedisConnectionError("nobody to ask")
    chosen: list[T] = []
    try:
        for done in asyncio.as_completed(tasks):
            try:
                chosen.append(await done)
            except RedisError as error:
                failure = error
            else:
                return chosen[0]
        raise failure
    finally:
        for task in tasks:
            task.cancel()
        for each in await asyncio.gather(*tasks, return_exceptions=True):
            if not isinstance(each, BaseException) and each not in chosen:
                drop(each)
