"""Connections to Redis that fail fast: bounded pools that wait, short time-outs, one quick retry."""

from __future__ import annotations

from typing import Any

import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import ExponentialBackoff
from redis.retry import Retry

CONNECT_SECONDS = 0.5
ANSWER_SECONDS = 0.7
POOL_WAIT_SECONDS = 1.0
RETRIES = 1
_BACKOFF = {"cap": 0.1, "base": 0.02}


def _options() -> dict[str, Any]:
    return {
        "socket_connect_timeout": CONNECT_SECONDS,
        "socket_timeout": ANSWER_SECONDS,
        "socket_keepalive": True,
        "health_check_interval": 0,
        "decode_responses": False,
    }


def connect(url: str, *, connections: int) -> redis.Redis:
    """A client for threads; waits for a free connection instead of failing at once."""
    options = _options()
    if url.startswith("unix:"):
        options.pop("socket_keepalive")
    pool = redis.BlockingConnectionPool.from_url(
        url,
        max_connections=connections,
        timeout=POOL_WAIT_SECONDS,
        retry=Retry(ExponentialBackoff(**_BACKOFF), RETRIES),
        **options,
    )
    return redis.Redis.from_pool(pool)  # closed with the client


def connect_async(url: str, *, connections: int) -> redis.asyncio.Redis:
    """The same for the event loop of the data plane."""
    options = _options()
    if url.startswith("unix:"):
        options.pop("socket_keepalive")
    pool = redis.asyncio.BlockingConnectionPool.from_url(
        url,
        max_connections=connections,
        timeout=POOL_WAIT_SECONDS,
        retry=AsyncRetry(ExponentialBackoff(**_BACKOFF), RETRIES),
        **options,
    )
    return redis.asyncio.Redis.from_pool(pool)  # closed with the client
