"""Writes that must outlive a failover: they wait for a replica, a moment."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import redis
import structlog
from redis.exceptions import AskError, ClusterDownError, ReadOnlyError, TryAgainError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from bff.sessions.connect import LazyCluster
from bff.sessions.script import Script, Words

log = structlog.get_logger("bff.sessions")

WAIT_SECONDS = 0.2
"""What a write waits for a replica, at most."""
DOUBT_SECONDS = 1.0
"""After no replica has acknowledged in time, nobody waits for one, for so long: where all of them are away,
ending ten thousand sessions must not take ten thousand times what one may."""


class LastingWrites:
    """Runs scripts whose effect should not be lost by a failover: WAIT, on the same connection.

    A missing acknowledgement is no error: the write has been done. `missing` counts them.
    """

    def __init__(
        self, client: redis.Redis, *, replicated: bool, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        """`replicated`: whether there is a replica to wait for."""
        self._client = client
        self._replicated = replicated
        self._monotonic = monotonic
        self._doubt_until = 0.0
        self.missing = 0

    def run(self, write: str, script: Script, keys: Sequence[str], args: Words = ()) -> Any:
        """The script's answer; `write` is its name in the log. Raises RedisError."""
        if not self._replicated:
            return script.run(self._client, keys, args)
        if self._monotonic() < self._doubt_until:
            answer = script.run(self._client, keys, args)
            self._missed(write, "none a moment ago")
            return answer
        command = ("EVAL", script.text, len(keys), *keys, *args)
        answer, replicas = ask_and_wait(self._client, keys[0], command, WAIT_SECONDS)
        self._note(write, replicas)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _note(self, write: str, replicas: Any) -> None:
        if isinstance(replicas, int) and replicas > 0:
            return
        if replicas is None:
            self._missed(write, "not asked for, while slots move")
            return
        self._doubt_until = self._monotonic() + DOUBT_SECONDS
        self._missed(write, type(replicas).__name__ if isinstance(replicas, Exception) else "none in time")

    def _missed(self, write: str, acknowledgements: str) -> None:
        self.missing += 1
        log.warning("write_not_replicated", write=write, acknowledgements=acknowledgements)


def ask_and_wait(client: Any, key: str, command: Sequence[Any], patience: float) -> tuple[Any, Any]:
    """The answer to a command with that key, and how many replicas have what it wrote, after so many seconds
    at most (None where that could not be asked); an error that Redis answers with is an exception in the
    place of either. Raises RedisError."""
    if isinstance(client, LazyCluster):
        return _in_cluster(client.cluster(), key, command, patience)
    return _and_wait(client, command, patience)


def _and_wait(client: Any, command: Sequence[Any], patience: float) -> tuple[Any, Any]:
    """A command and WAIT, one after the other on one connection: their answers, or errors in their place."""
    with client.pipeline(transaction=False) as pipeline:
        pipeline.execute_command(*command)
        pipeline.execute_command("WAIT", 1, max(1, round(patience * 1000)))  # 0 would be for ever
        answer, replicas = pipeline.execute(raise_on_error=False)
    return answer, replicas


def _in_cluster(cluster: Any, key: str, command: Sequence[Any], patience: float) -> tuple[Any, Any]:
    """The same on the server that has the key's slot.

    Where that has moved, a read by redis-py finds out where to; where it is just moving, redis-py follows it,
    and nobody waits for a replica.
    """
    for _ in range(2):
        try:
            node = cluster.get_node_from_key(key)
            answer, replicas = _and_wait(cluster.get_redis_connection(node), command, patience)
        except (RedisConnectionError, RedisTimeoutError):
            pass
        else:
            if not _elsewhere(answer):
                return answer, replicas
        cluster.exists(key)
    return cluster.execute_command(*command), None


def _elsewhere(answer: Any) -> bool:
    """Whether the script has not run because this is not the place, or not yet (MOVED, ASK, TRYAGAIN …)."""
    return isinstance(answer, AskError | TryAgainError | ClusterDownError | ReadOnlyError)
