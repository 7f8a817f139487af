"""Sign-ins and callbacks by client address."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bff import rate_limit
from bff.errors import RateLimited
from bff.rate_limit import RateLimit
from tests.fakes import FakeClock
from tests.support.browser import CSRF
from tests.support.stack import Stack, running, store


def allowed(limit: RateLimit, client: str, tries: int) -> int:
    """How many of so many requests may pass."""
    passed = 0
    for _ in range(tries):
        with suppress(RateLimited):
            limit.check(client)
            passed += 1
    return passed


def test_one_address_does_not_cost_another() -> None:
    """Each address has its own count."""
    limit = RateLimit(3)
    assert allowed(limit, "192.0.2.1", 5) == 3
    assert allowed(limit, "192.0.2.2", 5) == 3
    assert allowed(limit, "unknown", 5) == 3


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("2001:db8:0:1::1", "2001:db8:0:1:ffff::2", True),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
        ("192.0.2.1", "::ffff:192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("0.0.0.1", "::1", False),
    ],
)
def test_addresses_that_are_one(first: str, second: str, same: bool) -> None:
    """An IPv6 network is one client; a mapped address is the one that it maps."""
    limit = RateLimit(3)
    allowed(limit, first, 3)
    assert allowed(limit, second, 3) == (0 if same else 3)


def test_off() -> None:
    """0 is no limit."""
    assert allowed(RateLimit(0), "192.0.2.1", 2000) == 2000


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many addresses somebody has, so many are remembered of a minute."""
    monkeypatch.setattr(rate_limit, "REMEMBERED", 100)
    limit = RateLimit(3)
    for number in range(1000):
        limit.check(f"10.0.{number // 250}.{number % 250}")
        assert len(limit._now) <= 100
        assert len(limit._before) <= 100


def test_the_window_slides() -> None:
    """What came in the minute before counts by the share of it that is not over yet, and then no more."""
    clock = FakeClock()
    clock.now = 6000.0
    limit = RateLimit(60, clock)
    assert allowed(limit, "192.0.2.1", 100) == 60
    for later, free in ((59, 0), (60, 0), (70, 10), (90, 20), (119, 29), (120, 1)):
        clock.now = 6000.0 + later
        assert allowed(limit, "192.0.2.1", 100) == free, later
    clock.now += 200
    assert allowed(limit, "192.0.2.1", 100) == 60


@given(
    st.integers(1, 30), st.lists(st.tuples(st.integers(0, 100), st.integers(1, 40)), min_size=1, max_size=9)
)
def test_the_time_to_wait(per_minute: int, visits: list[tuple[int, int]]) -> None:
    """Whoever is refused and waits for as long as he is told, and no longer, may come again."""
    clock = FakeClock(6000.0)
    limit = RateLimit(per_minute, clock)
    for pause, tries in visits:
        clock.now += pause
        allowed(limit, "192.0.2.1", tries)
    with suppress(RateLimited):
        while True:
            limit.check("192.0.2.1")
    with pytest.raises(RateLimited) as refused:
        limit.check("192.0.2.1")
    wait = refused.value.retry_after
    assert wait is not None
    assert 0 < wait <= 121
    clock.now += wait - 2
    assert allowed(limit, "192.0.2.1", 1) == 0 or wait < 3
    clock.now += 2
    assert allowed(limit, "192.0.2.1", 1) == 1


@given(st.lists(st.tuples(st.floats(0, 40), st.integers(1, 30)), max_size=20))
def test_never_twice_the_limit(visits: list[tuple[float, int]]) -> None:
    """Whenever they come: in any sixty seconds fewer than twice as many pass, and in each minute of the clock
    no more than the limit."""
    clock = FakeClock()
    limit, passed = RateLimit(20, clock), []
    for pause, tries in visits:
        clock.now += pause
        passed += [clock.now] * allowed(limit, "192.0.2.1", tries)
    for begin in passed:
        assert sum(begin <= each < begin + 60 for each in passed) < 40
        assert sum(each // 60 == begin // 60 for each in passed) <= 20


@pytest.fixture
def stack() -> Iterator[Stack]:
    with store() as redis, running(redis, rate_limit_per_minute="5", trusted_proxies="127.0.0.1/32") as found:
        yield found


def test_over_the_limit(stack: Stack) -> None:
    """Sign-ins and callbacks get a page with 429 and the time to wait, counted together and by the address
    that a trusted proxy tells; nothing else is limited."""
    browser = stack.browser()
    for _ in range(3):
        assert browser.get("/bff/login").status == 302
    for _ in range(2):
        assert browser.get("/bff/callback?state=x&code=y").status == 400
    for target in ("/bff/login", "/bff/callback?state=x"):
        answer = browser.get(target)
        assert (answer.status, int(answer.get("retry-after")) > 0) == (429, True)
        assert "<code>rate_limited</code>" in answer.text
        assert answer.get("cache-control") == "no-store"
    assert browser.get("/bff/login", {"X-Forwarded-For": "192.0.2.9"}).status == 302
    assert browser.get("/").status == 200
    assert browser.get("/bff/user", CSRF).status == 401


def test_the_order_of_refusals(stack: Stack) -> None:
    """405 and 413 come before 429, and do not count."""
    browser = stack.browser()
    for _ in range(8):
        assert browser.post("/bff/login").status == 405
        assert browser.request("POST", "/bff/callback", {"Content-Length": "99999999"}).status == 413
    assert browser.get("/bff/login").status == 302
