"""What a provider in trouble may do to sessions: nothing. Only a refusal of the grant ends one."""

from __future__ import annotations

import time

import pytest

from tests.processes.fleet import Fleet, asked, outcomes
from tests.processes.rotation import FAULTS, Fault
from tests.support.stopwatch import Stopwatch
from tests.support.wire import until

pytestmark = [pytest.mark.e2e, pytest.mark.redis_server]


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_keeps_the_session(quick: Fleet, name: str) -> None:
    """Whatever goes wrong at the provider, requests with a dead token get 503 and keep their cookie, both
    processes together ask once, and the same cookie works when it is over."""
    visitor = quick.plant("dead", FAULTS[name])
    for number, node in enumerate(quick.nodes * 3):
        if number == 1:
            quick.prolong_pause(visitor)
        answer = node.get("/weather", visitor)
        assert (answer.status, answer.code) == (503, "provider_unavailable")
        assert int(answer.get("retry-after")) > 0
        assert not answer.all("set-cookie")
    assert visitor.family.redeems == 1
    visitor.family.fault = None
    quick.end_pause(visitor)
    for node in quick.nodes:
        assert node.get("/weather", visitor).text == visitor.newest != visitor.first
    assert (visitor.family.redeems, visitor.family.reuses) == (2, 0)


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_leaves_a_living_token_in_use(quick: Fleet, name: str) -> None:
    """While a due token lives, no trouble at the provider is seen by requests, and it is asked once."""
    visitor = quick.plant("due", FAULTS[name])
    for number, node in enumerate(quick.nodes * 3):
        assert node.get("/weather", visitor).text == visitor.first
        if number == 0:
            assert until(lambda: quick.prolong_pause(visitor))
    assert visitor.family.redeems == 1
    visitor.family.fault = None
    quick.end_pause(visitor)
    assert until(lambda: quick.nodes[0].get("/weather", visitor).status == 200 and quick.saved(visitor))
    assert quick.nodes[1].get("/weather", visitor).text == visitor.newest != visitor.first
    for node in quick.nodes:  # whichever has renewed it: none has a failure to count
        assert node.get("/weather", quick.plant("dead")).status == 200


def test_the_pause_ends_when_it_says(quick: Fleet) -> None:
    """After a fault the same cookie works again once the time of Retry-After is over, without a restart."""
    assert quick.nodes[0].get("/weather", quick.plant("dead", FAULTS["500"])).status == 503
    visitor = quick.plant("dead", FAULTS["500"])  # its pause is the second, of four seconds
    wait = int(quick.nodes[0].get("/weather", visitor).get("retry-after"))
    visitor.family.fault = None
    assert quick.nodes[1].get("/weather", visitor).status == 503
    time.sleep(wait + 0.1)
    assert quick.nodes[1].get("/weather", visitor).text == visitor.newest
    assert visitor.family.redeems == 2
    assert quick.nodes[0].get("/weather", quick.plant("dead")).status == 200  # it has no failure to count


@pytest.mark.parametrize("token", ["dead", "due"])
def test_invalid_grant_ends_the_session_for_all(quick: Fleet, token: str) -> None:
    """A refused grant ends the session on both processes, and nobody asks again."""
    visitor = quick.plant(token)
    visitor.family.revoked = True
    quick.nodes[0].get("/weather", visitor)
    assert until(lambda: quick.record(visitor) is None)
    with asked((quick.nodes[i % 2], visitor) for i in range(10)) as lines:
        assert outcomes(lines) == {(401, "session_expired")}
    assert quick.keys(visitor) == []
    assert visitor.family.redeems == 1


def test_an_outage_is_no_stampede(quick: Fleet) -> None:
    """A hundred requests of twenty sessions on two processes ask a failing provider six times, three for
    each process; when it is back, all of them go on with a redeem each."""
    nodes = quick.start(2)
    visitors = [quick.plant("dead") for _ in range(20)]
    quick.provider.fault, began = Fault(reply=FAULTS["500"].reply), Stopwatch()
    for number in range(100):
        assert nodes[number % 2].get("/weather", visitors[number // 2 % 20]).status == 503
    more = 2 * int(began.elapsed / 8)  # after a pause of eight seconds each process asks once more
    assert sum(visitor.family.redeems for visitor in visitors) <= 6 + more
    quick.provider.fault = None

    def works(number: int) -> bool:
        return nodes[number % 2].get("/weather", visitors[number]).status == 200

    left, watch = set(range(20)), Stopwatch()
    while left and watch.own < 20:
        left = {number for number in left if not works(number)}
        time.sleep(0.2)
    assert not left
    assert sum(visitor.family.redeems for visitor in visitors) <= 20 + 6 + more
    assert sum(visitor.family.reuses for visitor in visitors) == 0
    for node in nodes:
        node.kill()
