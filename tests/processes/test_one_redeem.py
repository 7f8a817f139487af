"""One redeem per expiry over processes, and nobody waits without need."""

from __future__ import annotations

import threading
import time

import pytest

from tests.processes.fleet import Fleet, answers, asked, outcomes
from tests.processes.rotation import HANGS, Fault
from tests.support.stopwatch import Stopwatch
from tests.support.wire import until

pytestmark = [pytest.mark.e2e, pytest.mark.redis_server]


def test_fifty_requests_over_two_processes_cost_one_redeem(patient: Fleet) -> None:
    """A dead token, fifty requests at once on two processes, a provider that takes three or eight seconds:
    it is asked once, and all fifty go on with the new token."""
    visitors = [patient.plant("dead", Fault(before=seconds)) for seconds in (3, 8)]
    both = [(node, visitor) for visitor in visitors for node in patient.nodes]
    with asked(both * 25) as lines:
        found = answers(lines)
    for number, visitor in enumerate(visitors):
        told = {each.text for each in found[2 * number :: 4] + found[2 * number + 1 :: 4]}
        assert told == {visitor.newest} != {visitor.first}
        assert (visitor.family.redeems, visitor.family.reuses) == (1, 0)


def test_due_tokens_are_used_while_the_refresh_runs(patient: Fleet) -> None:
    """A token that is due is used at once by fifty requests on two processes while one slow refresh runs;
    later requests bring the new one."""
    comes = threading.Event()
    visitor = patient.plant("due", Fault(hold=comes))
    began = Stopwatch()
    with asked((patient.nodes[i % 2], visitor) for i in range(50)) as lines:
        assert outcomes(lines) == {(200, visitor.first)}
    assert began.own < 5
    assert until(lambda: visitor.family.redeems)
    comes.set()
    assert until(lambda: patient.saved(visitor))
    for node in patient.nodes:
        assert node.get("/weather", visitor).text == visitor.newest != visitor.first
    assert (visitor.family.redeems, visitor.family.reuses) == (1, 0)


def test_a_later_expiry_is_redeemed_again_once(patient: Fleet) -> None:
    """Each expiry costs one redeem: tokens that live for some seconds are renewed one after the other,
    without a reuse, by two processes in turn."""
    visitor = patient.plant("dead")
    patient.provider.lifetime = 4
    try:
        for _ in range(2):
            redeems = visitor.family.redeems
            with asked((patient.nodes[i % 2], visitor) for i in range(10)) as lines:
                assert outcomes(lines) == {(200, visitor.newest)}
            assert visitor.family.redeems == redeems + 1
            time.sleep(4.05)
    finally:
        patient.provider.lifetime = 300
    assert visitor.family.reuses == 0


def test_a_provider_that_hangs_ends_the_wait_and_stops_nobody_else(quick: Fleet) -> None:
    """Behind a provider that hangs, requests with a dead token get 503 after its deadline and two seconds at
    most; whoever needs no refresh, or asks who is signed in, is answered meanwhile."""
    stuck = [quick.plant("dead", HANGS) for _ in range(20)]
    other = quick.plant("fresh")
    nodes = quick.start(2)  # theirs is an outage, which lasts for the process
    began = Stopwatch()
    with asked((node, visitor) for visitor in stuck for node in nodes) as lines:
        for node in nodes:
            at = Stopwatch()
            assert node.get("/weather", other).text == other.first
            assert node.get("/bff/user", other).status == 200
            assert node.get("/bff/user", stuck[0]).status == 200
            assert at.own < 1.8
        found = answers(lines)
    assert began.own < 2 + 2 + 2.5
    assert {(each.status, each.code) for each in found} == {(503, "provider_unavailable")}
    assert all(int(each.get("retry-after")) > 0 and not each.all("set-cookie") for each in found)
    assert all(visitor.family.redeems <= 1 and quick.record(visitor) for visitor in stuck)
    for node in nodes:
        node.kill()


def test_three_hundred_waiters_hold_no_thread(patient: Fleet) -> None:
    """Three hundred requests that wait for one refresh on one process take no thread each."""
    node = patient.nodes[0]
    first, visitor = patient.plant("dead"), patient.plant("dead", Fault(before=1.3))
    assert node.get("/weather", first).status == 200
    before = node.threads
    with asked((node, visitor) for _ in range(300)) as lines:
        assert until(lambda: visitor.family.redeems)
        time.sleep(0.3)
        assert node.threads <= before + 4
        assert outcomes(lines) == {(200, visitor.newest)}
    assert visitor.family.redeems == 1


def test_three_hundred_waiters_for_another_process_hold_no_thread(patient: Fleet) -> None:
    """The same where another process does the refresh: they watch for its outcome without a thread each."""
    owner, node = patient.nodes
    first, visitor = patient.plant("dead"), patient.plant("dead", Fault(before=1.3))
    assert node.get("/weather", first).status == 200
    before = node.threads
    with asked([(owner, visitor)]) as own:
        assert until(lambda: visitor.family.redeems)
        with asked((node, visitor) for _ in range(300)) as lines:
            time.sleep(0.3)
            assert node.threads <= before + 4
            assert outcomes(own) == outcomes(lines) == {(200, visitor.newest)}
    assert visitor.family.redeems == 1
