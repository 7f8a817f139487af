"""The cached document: one fetch for all who wait, and old knowledge in an outage."""

from __future__ import annotations

import threading
import time

import pytest

from bff.errors import ProviderUnavailable
from bff.provider.cache import Cached
from tests.support.stopwatch import Stopwatch
from tests.support.wire import until


class Source:
    """Counts fetches; fails while `down`."""

    def __init__(self) -> None:
        self.fetched = 0
        self.down = False
        self.published: int | None = None
        """What each fetch brings; the number of the fetch where that is None."""
        self.now = 1000.0
        self.hold = threading.Event()
        self.hold.set()
        self.asked = 0

    def __call__(self) -> int:
        self.asked += 1
        assert self.hold.wait(30)
        self.fetched += 1
        if self.down:
            raise ProviderUnavailable("Down.", reason="test")
        return self.fetched if self.published is None else self.published

    def clock(self) -> float:
        return self.now


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
def cached(source: Source) -> Cached[int]:
    return Cached(source, source.clock, lifetime=100, cooldown=5)


def test_lifetime(source: Source, cached: Cached[int]) -> None:
    """Within its lifetime a value is served without asking, after it the newest is fetched."""
    assert [cached.get(), cached.get()] == [1, 1]
    source.now += 99.9
    assert cached.get() == 1
    source.now += 0.2
    assert cached.get() == 2
    assert cached.fresh()


def test_nothing_known_yet(source: Source, cached: Cached[int]) -> None:
    """Before the first success nothing is known, and nobody is asked by looking."""
    assert cached.known() is None
    assert not cached.fresh()
    assert source.fetched == 0


def test_failure_and_cooldown(source: Source, cached: Cached[int]) -> None:
    """After a failure the same error is given without asking again until the cooldown has passed."""
    source.down = True
    for _ in range(3):
        with pytest.raises(ProviderUnavailable, match="test"):
            cached.get()
    assert source.fetched == 1
    source.now += 5
    source.down = False
    assert cached.get() == 2


def test_stale_in_an_outage(source: Source, cached: Cached[int]) -> None:
    """An old value outlives an outage, and is replaced once the provider is back."""
    cached.get()
    source.now += 1000
    source.down = True
    assert [cached.get(), cached.get()] == [1, 1]
    assert source.fetched == 2, "asked once, then left in peace"
    assert not cached.fresh()
    source.now += 6
    source.down = False
    assert cached.get() == 3


def test_renewal_that_helps(source: Source, cached: Cached[int]) -> None:
    """What was fetched a moment ago, or renewed a moment ago with success, is renewed at once."""
    assert [cached.renew(cached.get(), "a"), cached.renew(2, "a")] == [2, 3]


def test_renewal_in_vain_has_a_cooldown(source: Source, cached: Cached[int]) -> None:
    """A flood of unknown key ids costs one fetch in a cooldown, and no other kind of asker its renewal."""
    source.published = 7
    value = cached.get()
    assert [cached.renew(value, "a") for _ in range(20)] == [7] * 20
    assert source.fetched == 2
    cached.renew(value, "b")
    assert source.fetched == 3
    source.now += 5
    cached.renew(value, "a")
    assert source.fetched == 4


def test_clock_that_is_set_back(source: Source, cached: Cached[int]) -> None:
    """No wait becomes longer by it."""
    source.published = 7
    cached.renew(cached.get(), "a")
    source.now -= 5000
    cached.renew(7, "a")
    assert source.fetched == 3


def test_another_value_is_there_already(source: Source, cached: Cached[int]) -> None:
    """Who has tried an older value gets the known one without a fetch."""
    old = cached.get()
    newer = cached.renew(old, "a")
    assert cached.renew(old, "a") is newer
    assert source.fetched == 2


def test_renewal_does_not_take_a_fetch_that_began_before(source: Source, cached: Cached[int]) -> None:
    """What a fetch brings that was under way may be older than the need; those who wait share one more."""
    source.published = 7
    cached.get()
    source.hold.clear()
    threads = [threading.Thread(target=cached.renew, args=(7, "a")) for _ in range(6)]
    for thread in threads:
        thread.start()
        time.sleep(0.02)
    source.hold.set()
    for thread in threads:
        thread.join(5)
    assert source.fetched == 2, "the first found nothing new, and the others keep its cooldown"
    source.now += 6
    source.hold.clear()
    threads = [threading.Thread(target=cached.renew, args=(7, kind)) for kind in "abbb"]
    for thread in threads:
        thread.start()
        time.sleep(0.02)
    source.hold.set()
    for thread in threads:
        thread.join(5)
    assert source.fetched == 4


def test_renew_while_down(source: Source, cached: Cached[int]) -> None:
    """A renewal that fails leaves the value that is known, and is not tried again at once."""
    cached.get()
    source.down = True
    assert [cached.renew(1, "a"), cached.renew(1, "a")] == [1, 1]
    assert source.fetched == 2


def test_unexpected_error_frees_the_lock(source: Source) -> None:
    """An error of another kind reaches the caller, and the next caller is not locked out."""
    calls: list[int] = []

    def fetch() -> int:
        calls.append(1)
        if len(calls) == 1:
            raise ZeroDivisionError
        return 7

    cached = Cached(fetch, source.clock)
    with pytest.raises(ZeroDivisionError):
        cached.get()
    source.now += 10
    assert cached.get() == 7


@pytest.mark.parametrize("down", [False, True])
def test_single_flight(source: Source, cached: Cached[int], down: bool) -> None:
    """Many threads that need the first value wait for one fetch, which all of them share, good or bad."""
    source.down = down
    source.hold.clear()
    results: list[object] = []

    def ask() -> None:
        try:
            results.append(cached.get())
        except ProviderUnavailable:
            results.append("down")

    threads = [threading.Thread(target=ask) for _ in range(12)]
    for thread in threads:
        thread.start()
    time.sleep(0.05)
    source.hold.set()
    for thread in threads:
        thread.join(5)
    assert results == ["down" if down else 1] * 12
    assert source.fetched == 1


def test_nobody_waits_for_a_renewal(source: Source, cached: Cached[int]) -> None:
    """While one thread fetches a new value, the others go on with the old one at once."""
    cached.get()
    source.now += 1000
    source.hold.clear()
    thread = threading.Thread(target=cached.get)
    thread.start()
    assert until(lambda: source.asked == 2)
    started = Stopwatch()
    assert cached.get() == 1
    assert started.own < 3
    source.hold.set()
    thread.join(5)
    assert cached.get() == 2
