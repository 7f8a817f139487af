"""Fixtures that several test files share: Redis, real and in memory."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from hypothesis import settings

from bff.sessions.wiring import wire_to
from bff.settings import parse_redis_url
from tests.fakes import Backend, FakeClock, Rig, fake_backend
from tests.support.log import lines
from tests.support.wire import until

__all__ = ["lines"]

# A busy machine makes an example slow now and then; that is no failure.
settings.register_profile("project", deadline=None)
settings.load_profile("project")

NO_REDIS = (
    "redis-server is not on PATH; to run these tests, install it "
    "(Debian and Ubuntu: apt install redis-server; macOS: brew install redis)"
)


@pytest.fixture(scope="session")
def redis_process() -> Iterator[str]:
    """The URL of a real Redis of our own, on a socket that only we know."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip(NO_REDIS)
    with tempfile.TemporaryDirectory(prefix="bff-redis-") as folder:  # short: a socket's path has 107 bytes
        socket = Path(folder) / "redis.sock"
        options = [
            "--port",
            "0",
            "--unixsocket",
            str(socket),
            "--dir",
            folder,
            "--save",
            "",
            "--appendonly",
            "no",
        ]
        process = subprocess.Popen([program, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            url = f"unix://{socket}"
            assert until(lambda: _answers(url), within=20), "redis-server does not answer"
            yield url
        finally:
            process.terminate()
            process.wait(10)


def _answers(url: str) -> bool:
    try:
        with redis.Redis.from_url(url) as client:
            return bool(client.ping())
    except redis.ConnectionError:
        return False


@pytest.fixture
def redis_url(redis_process: str) -> str:
    """The URL of a real and empty Redis."""
    with redis.Redis.from_url(redis_process) as client:
        client.flushall()
    return redis_process


@pytest.fixture
def real_backend(redis_url: str) -> Iterator[Backend]:
    """A real and empty Redis, as both planes connect to it."""
    with redis.Redis.from_url(redis_url) as client:
        yield Backend(client, lambda: wire_to(parse_redis_url(redis_url)))


@pytest.fixture
def fake_redis() -> Iterator[Backend]:
    """A Redis in memory, empty."""
    backend = fake_backend()
    yield backend
    backend.client.close()


@pytest.fixture
def rig(fake_redis: Backend) -> Rig:
    """Sessions in memory, with a clock to turn."""
    return Rig(fake_redis, FakeClock())
