"""The cached document: one fetch for all who wait, and old knowledge in an outage."""

from __future__ import annotations

import threading
import time

import pytest

from bff.errors import ProviderUnavailable
from bff.provider.cache import Cached


class Source:
    """Counts fetches; fails while `down`."""

    def __init__(self) -> None:
        self.fetched = 0
        self.down = False
        self.now = 1000.0
        self.hold = threading.Event()
        self.hold.set()

    def __call__(self) -> int:
        self.hold.wait(5)
        self.fetched += 1
        if self.down:
            raise ProviderUnavailable("Down.", reason="test")
        return self.fetched

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


def test_renew_has_a_cooldown(source: Source, cached: Cached[int]) -> None:
    """A flood of unknown key ids costs one fetch in a cooldown."""
    cached.get()
    source.now += 6
    assert [cached.renew() for _ in range(20)] == [2] * 20
    source.now += 6
    assert cached.renew() == 3


def test_renew_while_down(source: Source, cached: Cached[int]) -> None:
    """A renewal that fails leaves the value that is known."""
    cached.get()
    source.now += 6
    source.down = True
    assert cached.renew() == 1


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
    time.sleep(0.05)
    started = time.monotonic()
    assert cached.get() == 1
    assert time.monotonic() - started < 0.5
    source.hold.set()
    thread.join(5)
    assert cached.get() == 2
