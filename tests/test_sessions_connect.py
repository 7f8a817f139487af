"""Connections to Redis fail fast, wait for a free one, and say what is wrong in one way."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator

import pytest
import redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisClusterException
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.sentinel import MasterNotFoundError

from bff.errors import StoreUnavailable
from bff.sealing import Keyring
from bff.sessions.connect import connect as connect_to
from bff.sessions.errors import StoreErrors, store_errors
from bff.sessions.lifetime import Lifetime
from bff.sessions.reader import SessionReader
from bff.sessions.record import Codec
from bff.sessions.store import SessionStore
from bff.sessions.wiring import wire_to
from bff.settings import parse_redis_url
from tests.fakes import KEY
from tests.support.stack import be_patient_with_redis
from tests.support.stopwatch import Stopwatch


def connect(url: str, *, connections: int) -> redis.Redis:
    """As the control plane connects."""
    return connect_to(parse_redis_url(url), connections=connections)


CODEC, LIFETIME = Codec(Keyring([KEY]), "t:"), Lifetime(1800, 28800)


@pytest.fixture
def closed_port() -> Iterator[str]:
    """The URL of a port on which nobody listens, nor will."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        yield f"redis://127.0.0.1:{probe.getsockname()[1]}"


@pytest.fixture
def silent_port() -> Iterator[str]:
    """The URL of a port that accepts and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=16) as listener:
        yield f"redis://127.0.0.1:{listener.getsockname()[1]}"


def load(url: str) -> None:
    """Ask the control plane's store for a session."""
    with connect(url, connections=2) as client:
        SessionStore(client, CODEC, LIFETIME, time.time).load("x")


def read(url: str) -> None:
    """Ask the data plane's reader for a session."""

    async def ask() -> None:
        reader = SessionReader(wire_to(parse_redis_url(url)), CODEC, LIFETIME, time.time)
        try:
            await reader.load("x")
        finally:
            await reader.close()

    asyncio.run(ask())


@pytest.mark.parametrize("ask", [load, read])
def test_a_redis_that_is_down_is_told_at_once(ask: type, closed_port: str) -> None:
    """Three quick tries, not ten slow ones: a request is not held for seconds."""
    began = Stopwatch()
    with pytest.raises(StoreUnavailable) as caught:
        ask(closed_port)
    assert began.own < 1
    assert caught.value.reason == "Redis: ConnectionError"
    assert "127.0.0.1" not in caught.value.detail


@pytest.mark.parametrize("ask", [load, read])
def test_a_redis_that_hangs_is_given_up(ask: type, silent_port: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each try has its time; then the answer is the same as for one that is down."""
    monkeypatch.setattr("bff.sessions.connect.ANSWER_SECONDS", 0.1)
    monkeypatch.setattr("bff.sessions.line.ANSWER_SECONDS", 0.1)
    began = Stopwatch()
    with pytest.raises(StoreUnavailable) as caught:
        ask(silent_port)
    assert began.own < 2
    assert caught.value.reason == "Redis: TimeoutError"


def test_threads_wait_for_a_free_connection(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """More threads than connections is a short wait and no error."""
    be_patient_with_redis(monkeypatch)
    with connect(redis_url, connections=1) as client:
        answers = []
        threads = [
            threading.Thread(target=lambda: answers.append(client.blpop(["none"], timeout=0.1)))
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert answers == [None] * 4


def test_a_pool_that_stays_exhausted_is_unavailable(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The wait is bounded."""
    monkeypatch.setattr("bff.sessions.connect.POOL_WAIT_SECONDS", 0.1)
    with connect(redis_url, connections=1) as client:
        held = client.connection_pool.get_connection()
        with pytest.raises(StoreUnavailable), store_errors():
            client.get("x")
        client.connection_pool.release(held)


def test_both_clients_reach_a_real_redis(redis_url: str) -> None:
    """Over a socket too; what one writes the other reads, as bytes."""
    with connect(redis_url, connections=2) as client:
        client.set("k", b"\xff")

    async def ask() -> object:
        other = wire_to(parse_redis_url(redis_url))
        try:
            return await other.ask("GET", "k")
        finally:
            await other.close()

    assert asyncio.run(ask()) == b"\xff"


@pytest.mark.parametrize(
    "failure", [RedisTimeoutError(), TimeoutError(), RedisClusterException(), MasterNotFoundError()], ids=repr
)
def test_what_takes_long_to_fail_takes_one_thread(failure: Exception) -> None:
    """Also where no node of a cluster, or no sentinel, answers: each has been waited for."""
    errors = StoreErrors()
    with pytest.raises(StoreUnavailable), errors():
        raise failure
    with errors(), pytest.raises(StoreUnavailable, match="finding out"), errors():
        raise AssertionError("never reached")


def test_a_store_that_hangs_takes_one_thread() -> None:
    """After a time-out one call at a time finds out whether Redis answers again; the others fail at once."""
    errors = StoreErrors()
    with pytest.raises(StoreUnavailable), errors():
        raise RedisTimeoutError
    with errors(), pytest.raises(StoreUnavailable, match="finding out"), errors():
        raise AssertionError("never reached")
    with errors(), errors():  # it answered: all go on
        pass
    with pytest.raises(StoreUnavailable), errors():
        raise RedisConnectionError
    with errors(), errors():  # a refused connection is told at once and holds no thread
        pass
