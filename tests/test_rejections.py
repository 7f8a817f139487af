"""When a token that an upstream refuses is worth renewing."""

from __future__ import annotations

from bff.rejections import (
    IN_A_ROW,
    REMEMBERED,
    SESSION_PAUSE_SECONDS,
    UPSTREAM_PAUSE_SECONDS,
    Rejections,
)
from tests.fakes import FakeClock


def test_a_session_is_not_renewed_again_and_again() -> None:
    """A renewal in vain is not repeated for a while, for that session and that upstream alone."""
    clock = FakeClock()
    rejections = Rejections(clock)
    assert rejections.worth_renewing("http://a", "one")
    assert not rejections.in_vain("http://a", "one")
    assert not rejections.worth_renewing("http://a", "one")
    assert rejections.worth_renewing("http://a", "two")
    assert rejections.worth_renewing("http://b", "one")
    clock.now += SESSION_PAUSE_SECONDS
    assert rejections.worth_renewing("http://a", "one")


def test_an_upstream_that_refuses_all() -> None:
    """After so many renewals in vain in a row nobody's token is renewed for that upstream for a while."""
    clock = FakeClock()
    rejections = Rejections(clock)
    verdicts = [rejections.in_vain("http://a", f"session {number}") for number in range(IN_A_ROW)]
    assert verdicts == [False] * (IN_A_ROW - 1) + [True]
    assert not rejections.worth_renewing("http://a", "another")
    assert rejections.worth_renewing("http://b", "another")
    clock.now += UPSTREAM_PAUSE_SECONDS
    assert rejections.worth_renewing("http://a", "another")


def test_one_that_helped_begins_the_count_anew() -> None:
    """Single sessions that cannot be helped do not count against an upstream that accepts others."""
    rejections = Rejections(FakeClock())
    for number in range(3 * IN_A_ROW):
        assert not rejections.in_vain("http://a", f"session {number}")
        rejections.helped("http://a")
    assert rejections.worth_renewing("http://a", "another")


def test_what_is_remembered_is_bounded() -> None:
    """However many sessions there are, so many are remembered."""
    rejections = Rejections(FakeClock())
    for number in range(REMEMBERED + 100):
        rejections.in_vain("http://a", f"session {number}")
        rejections.helped("http://a")
    assert len(rejections._in_vain) == REMEMBERED
