"""Two nodes are restarted one after the other under load, and no request fails."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.processes.balancing import CALLERS, Balancer, Caller, calls, restart_each
from tests.processes.fleet import Fleet, fleet
from tests.support.nginx import nginx

pytestmark = [pytest.mark.e2e, pytest.mark.redis_server]

DRAIN_SECONDS = 3
ROUTE = '[[routes]]\npath = "/api"\nupstream = "UPSTREAM"\nmethods = ["GET", "POST"]\n'


@pytest.fixture
def own() -> Iterator[Fleet]:
    """Two nodes of two workers, which say for three seconds that they will end."""
    with fleet(2, ROUTE, workers="2", drain_seconds=str(DRAIN_SECONDS)) as found:
        yield found


def assert_unnoticed(own: Fleet, callers: list[Caller], visitors: int) -> None:
    """Nothing failed, much was asked, and each token that was due was renewed once."""
    assert [wrong for caller in callers for wrong in caller.wrong] == []
    assert sum(sum(caller.answered.values()) for caller in callers) > 300
    families = own.provider.families[-visitors:]
    assert [(family.redeems, family.reuses) for family in families] == [(1, 0)] * visitors


def test_behind_a_balancer_that_asks_for_readiness(own: Fleet) -> None:
    """A balancer that asks every node for its readiness sees it go in time: also requests that must not be
    sent twice all get their answer, on kept connections and on new ones, while tokens are renewed."""
    balancer = Balancer([node.port for node in own.nodes], every=DRAIN_SECONDS / 10)
    callers = [
        Caller(balancer.port, own.plant("due"), method)
        for method in ("GET", "POST")
        for _ in range(CALLERS // 2)
    ]
    with calls(callers, balancer.ask):
        restart_each(own.nodes, own.replace)
    assert_unnoticed(own, callers, CALLERS)
    ports = {port for caller in callers for port in caller.answered}
    assert ports == {node.port for node in own.nodes}


def test_behind_nginx_that_asks_nobody(own: Fleet) -> None:
    """nginx learns only from its failures that a node is gone, and asks the other one: requests that may be
    sent twice all get their answer. It forgets the failure before the other node's drain is over, as with the
    defaults (5 s each)."""
    ports = (own.nodes[0].port, own.nodes[1].port)
    with nginx(ports, {"fail_timeout=5s": "fail_timeout=1s"}) as port:
        callers = [Caller(lambda: port, own.plant("due"), "GET") for _ in range(CALLERS)]
        with calls(callers):
            restart_each(own.nodes, own.replace)
    assert_unnoticed(own, callers, CALLERS)
