"""What dies in the middle of a refresh: a process, a browser, Redis, an answer."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from tests.processes.fleet import Fleet, answers, asked, fleet, outcomes
from tests.processes.rotation import HANGS, Fault
from tests.support.wire import until

pytestmark = [pytest.mark.e2e, pytest.mark.redis_server]

ISSUED = Fault(after=20)
"""The tokens are issued, and the answer is still on its way."""


def test_sigkill_during_a_redeem(quick: Fleet) -> None:
    """Where the process that redeems is killed, nobody is signed out for waiting, and another process redeems
    once more when the lease has run out: that works unless the tokens had been issued under strict rotation.
    Then the user signs in again, once."""
    node = quick.start()[0]
    other = quick.nodes[0]
    unanswered = quick.plant("dead", HANGS)
    strict, grace = quick.plant("dead", ISSUED), quick.plant("dead", ISSUED, grace=True)
    visitors = [unanswered, strict, grace]
    with asked((node, visitor) for visitor in visitors):
        assert until(lambda: unanswered.family.redeems)
        assert until(lambda: len(strict.family.tokens + grace.family.tokens) == 4)
        os.kill(node.worker, signal.SIGKILL)
    for visitor in visitors:
        visitor.family.fault = None

    def statuses() -> list[int]:
        with asked((other, visitor) for visitor in visitors) as lines:
            return [answer.status for answer in answers(lines)]

    assert statuses() == [503, 503, 503]
    assert all(quick.record(visitor) for visitor in visitors)
    assert until(node.ready, within=15), "it has a new worker"
    assert until(lambda: statuses() == [200, 401, 200], within=15)
    for each in [other, node] * 3:
        assert each.get("/weather", unanswered).text == unanswered.newest != unanswered.first
        assert each.get("/weather", grace).text == grace.newest
        assert each.get("/weather", strict).status == 401
    assert [visitor.family.redeems for visitor in visitors] == [2, 2, 2]
    assert [visitor.family.reuses for visitor in visitors] == [0, 1, 0]
    node.kill()


@pytest.mark.parametrize("grace", [False, True])
def test_an_answer_that_is_lost(quick: Fleet, grace: bool) -> None:
    """A redeem whose answer is lost is repeated once, after the pause: a grace period makes it good, and
    without one the user signs in again, once, and stays so."""
    visitor = quick.plant("dead", Fault(lost=True), grace=grace)
    assert quick.nodes[0].get("/weather", visitor).status == 503
    assert quick.record(visitor) is not None
    visitor.family.fault = None
    quick.end_pause(visitor)
    if grace:
        assert quick.nodes[0].get("/weather", visitor).text == visitor.newest
    for node in quick.nodes * 3:
        assert node.get("/weather", visitor).status == (200 if grace else 401)
    assert visitor.family.redeems == 2
    browser, done = quick.sign_in(quick.nodes[0])
    assert done.status == 200
    redeems = quick.provider.redeems
    assert browser.api("/weather").status == 200
    assert quick.provider.redeems == redeems


def test_browsers_that_hang_up_burn_no_token(patient: Fleet) -> None:
    """Where all who wait for a refresh hang up, it is saved for the next one who comes."""
    visitor = patient.plant("dead", Fault(after=0.7))
    with asked((patient.nodes[i % 2], visitor) for i in range(10)):
        assert until(lambda: len(visitor.family.tokens) == 2)
    assert until(lambda: patient.saved(visitor))
    for node in patient.nodes:
        assert node.get("/weather", visitor).text == visitor.newest
    assert (visitor.family.redeems, visitor.family.reuses) == (1, 0)


def test_a_browser_that_hangs_up_takes_nothing_from_others(patient: Fleet) -> None:
    """Where those who began a refresh hang up, the others who wait for it get the new token."""
    visitor = patient.plant("dead", Fault(after=0.7))
    with asked((node, visitor) for node in patient.nodes) as first:
        assert until(lambda: len(visitor.family.tokens) == 2)
        with asked((patient.nodes[i % 2], visitor) for i in range(10)) as rest:
            for line in first:
                line.close()
            assert outcomes(rest) == {(200, visitor.newest)}
    assert (visitor.family.redeems, visitor.family.reuses) == (1, 0)


@pytest.fixture(scope="module")
def own() -> Iterator[Fleet]:
    """Nodes that give Redis no more time than in earnest."""
    with fleet(2, patient=False, provider_timeout_seconds="10") as found:
        yield found


@pytest.mark.parametrize("kind", ["hanging", "down", "read-only", "full"])
def test_redis_is_away_between_redeem_and_save(own: Fleet, kind: str) -> None:
    """Where Redis is in trouble when the new tokens arrive, they are saved when it is back; who waits is
    answered with them, and the provider is asked once."""
    comes = threading.Event()
    visitor = own.plant("dead", Fault(hold=comes))
    before = own.questions
    with asked((own.nodes[0], visitor) for _ in range(5)) as lines:
        assert until(lambda: len(visitor.family.tokens) == 2 and own.questions >= before + 5)
        with own.redis.trouble(kind):
            comes.set()
            time.sleep(1.2)
        assert outcomes(lines) == {(200, visitor.newest)}
    assert own.saved(visitor)
    for node in own.nodes:
        assert until(lambda node=node: node.get("/weather", visitor).text == visitor.newest)
    assert (visitor.family.redeems, visitor.family.reuses) == (1, 0)


def test_sigterm_during_refreshes(patient: Fleet) -> None:
    """A process that is asked to end saves the refreshes under way, answers who waits, and exits with 0:
    also those that nobody waits for."""
    node = patient.start()[0]
    due, dead = patient.plant("due", Fault(after=1.5)), patient.plant("dead", Fault(after=0.6))
    assert node.get("/weather", due).text == due.first
    with asked([(node, dead)]) as lines:
        assert until(lambda: len(due.family.tokens + dead.family.tokens) == 4)
        node.terminate()
        assert outcomes(lines) == {(200, dead.newest)}
    assert node.code() == 0
    assert "Traceback" not in node.output
    assert patient.saved(due)
    assert patient.saved(dead)
    assert patient.nodes[0].get("/weather", due).text == due.newest
    assert (due.family.redeems, dead.family.redeems) == (1, 1)
