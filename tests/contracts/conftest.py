"""Every contract is held by Redis in memory, by a real one, and by a cluster of three."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bff.sessions.connect import connect
from bff.sessions.wiring import wire_to
from bff.settings import parse_redis_url
from tests.fakes import Backend, fake_backend
from tests.support.redis_servers import Cluster, cluster
from tests.support.stack import be_patient_with_redis

BACKENDS = [
    "fakeredis",
    pytest.param("redis-server", marks=pytest.mark.redis_server),
    pytest.param("cluster", marks=pytest.mark.redis_server),
]


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    be_patient_with_redis(monkeypatch)


@pytest.fixture(scope="package")
def three_nodes() -> Iterator[Cluster]:
    """A cluster of three primaries."""
    with cluster() as found:
        yield found


@pytest.fixture
def cluster_backend(three_nodes: Cluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[Backend]:
    """That cluster, empty, as both planes connect to it. It has no replica to wait for."""
    monkeypatch.setattr("bff.sessions.lasting.WAIT_SECONDS", 0.001)
    monkeypatch.setattr("bff.sessions.lasting.DOUBT_SECONDS", 0.1)
    three_nodes.empty()
    address = parse_redis_url(three_nodes.url)
    with connect(address, connections=8) as client:
        yield Backend(client, lambda: wire_to(address), replicated=True)


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    """A Redis, empty."""
    if request.param != "fakeredis":
        name = {"redis-server": "real_backend", "cluster": "cluster_backend"}[request.param]
        yield request.getfixturevalue(name)
        return
    backend = fake_backend()
    yield backend
    backend.client.close()
