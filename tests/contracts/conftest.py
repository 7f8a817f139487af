"""Every contract is held by Redis in memory and by a real one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fakes import Backend, fake_backend

BACKENDS = ["fakeredis", pytest.param("redis-server", marks=pytest.mark.redis_server)]


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    """A Redis, empty."""
    if request.param == "redis-server":
        yield request.getfixturevalue("real_backend")
        return
    backend = fake_backend()
    yield backend
    backend.client.close()
