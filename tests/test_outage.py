"""A provider in trouble is left alone for a while."""

from __future__ import annotations

import threading

from bff.outage import ENOUGH_FAILURES, LONGEST_PAUSE_SECONDS, NEWS_SECONDS, Outage
from tests.fakes import FakeClock


def test_one_failure_stops_nobody_else() -> None:
    """A connection breaks now and then: other sessions go on; only the one that failed waits."""
    outage = Outage(FakeClock(0))
    for _ in range(ENOUGH_FAILURES - 1):
        assert outage.failed(outage=True) > 0
        assert outage.wait() == 0


def test_the_pause_of_a_session_grows() -> None:
    """2, 4, 8 seconds and then 15, for refusals as well; a success begins anew."""
    outage = Outage(FakeClock(0))
    assert [outage.failed(outage=False) for _ in range(5)] == [2, 4, 8, 15, 15]
    outage.over()
    assert outage.failed(outage=False) == 2


def test_an_outage_silences_the_process_but_for_one() -> None:
    """After the pause one call finds out; the others look soon for what it finds: it may bring good news."""
    clock = FakeClock(0)
    outage = Outage(clock)
    for _ in range(ENOUGH_FAILURES):
        outage.failed(outage=True)
    assert outage.wait() == 8
    clock.advance(3)
    assert outage.wait() == 5
    clock.advance(5)
    assert outage.wait() == 0
    assert outage.wait() == NEWS_SECONDS
    outage.failed(outage=True)
    assert outage.wait() == 15
    clock.advance(15)
    assert outage.wait() == 0
    outage.over()
    assert [outage.wait() for _ in range(3)] == [0, 0, 0]


def test_a_call_that_never_reports_silences_nobody_for_ever() -> None:
    """Should the one that was let through vanish, the next may try after a while."""
    clock = FakeClock(0)
    outage = Outage(clock)
    for _ in range(ENOUGH_FAILURES):
        outage.failed(outage=True)
    clock.advance(8)
    assert outage.wait() == 0
    clock.advance(LONGEST_PAUSE_SECONDS - 0.5)
    assert outage.wait() == 0.5
    clock.advance(0.5)
    assert outage.wait() == 0


def test_a_provider_that_refuses_is_alive() -> None:
    """A wrong secret is refused for everybody, but quickly: that is no outage."""
    outage = Outage(FakeClock(0))
    for _ in range(10):
        outage.failed(outage=True)
    outage.failed(outage=False)
    assert outage.wait() == 0


def test_many_threads_one_leave() -> None:
    """Of many threads at the end of the pause exactly one is let through."""
    clock = FakeClock(0)
    outage = Outage(clock)
    for _ in range(ENOUGH_FAILURES):
        outage.failed(outage=True)
    clock.advance(8)
    waits: list[float] = []
    threads = [threading.Thread(target=lambda: waits.append(outage.wait())) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(waits) == [0.0, *[NEWS_SECONDS] * 19]
