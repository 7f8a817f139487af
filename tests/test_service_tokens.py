"""The client's own tokens: one fetch for all who wait, renewed early, patient with a provider in trouble."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import pytest

from bff.errors import ProviderUnavailable
from bff.service_tokens import ServiceTokens
from bff.tokens import TokenSet
from tests.fakes import FakeClock, token_set
from tests.support.wire import happens

T = TypeVar("T")


class Source:
    """Gives numbered tokens that live for 100 seconds."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.monotonic = FakeClock(0)
        self.asked: list[tuple[str | None, str | None]] = []
        self.error: Exception | None = None
        self.delay = 0.0
        self.go_on = threading.Event()
        self.go_on.set()
        self.lives: float | None = 100
        self._lock = threading.Lock()

    def fetch(self, scope: str | None, resource: str | None) -> TokenSet:
        with self._lock:
            self.asked.append((scope, resource))
            number = len(self.asked)
        time.sleep(self.delay)
        assert self.go_on.wait(30)
        if self.error is not None:
            raise self.error
        return token_set(self.clock, str(number), lives=self.lives)

    def run(self, work: Callable[[ServiceTokens], Awaitable[T]]) -> T:
        async def whole() -> T:
            with ThreadPoolExecutor(2) as pool:
                tokens = ServiceTokens(self.fetch, pool, self.clock, monotonic=self.monotonic)
                return await work(tokens)

        return asyncio.run(whole())


def test_fifty_wait_for_one_fetch() -> None:
    """However many come at once, the provider is asked once, and then not again."""
    source = Source()
    source.delay = 0.05

    async def work(tokens: ServiceTokens) -> None:
        got = await asyncio.gather(*(tokens.token("a", None) for _ in range(50)))
        assert set(got) == {"access-1"}
        assert await tokens.token("a", None) == "access-1"

    source.run(work)
    assert source.asked == [("a", None)]


def test_each_scope_and_resource_has_its_own() -> None:
    """A token for one API is never sent to another."""
    source = Source()

    async def work(tokens: ServiceTokens) -> None:
        wanted = [("a", None), ("b", None), ("a", "https://x"), (None, None)]
        got = [await tokens.token(*each) for each in wanted for _ in range(2)]
        assert len(set(got)) == 4

    source.run(work)
    assert len(source.asked) == 4


def test_renewed_early_and_beside() -> None:
    """With a fifth of its life left a new one is fetched beside the requests; nobody waits for it."""
    source = Source()

    async def work(tokens: ServiceTokens) -> None:
        assert await tokens.token("a", None) == "access-1"
        source.clock.advance(79)
        assert await tokens.token("a", None) == "access-1"
        assert len(source.asked) == 1
        source.clock.advance(2)
        source.go_on.clear()
        assert [await tokens.token("a", None) for _ in range(5)] == ["access-1"] * 5
        source.go_on.set()
        assert await happens(lambda: not tokens._flights)
        assert await tokens.token("a", None) == "access-2"

    source.run(work)
    assert len(source.asked) == 2


@pytest.mark.parametrize("error", [ProviderUnavailable(reason="x"), RuntimeError("x")])
def test_a_provider_in_trouble(error: Exception) -> None:
    """A token that lives is used on; a dead one is 503, and the provider is asked again after a moment."""
    source = Source()

    async def work(tokens: ServiceTokens) -> None:
        assert await tokens.token("a", None) == "access-1"
        source.error = error
        source.clock.advance(90)
        assert [await tokens.token("a", None) for _ in range(5)] == ["access-1"] * 5
        await asyncio.sleep(0.05)
        source.clock.advance(20)
        for _ in range(5):
            with pytest.raises((ProviderUnavailable, RuntimeError)):
                await tokens.token("a", None)
        assert len(source.asked) == 2
        source.error = None
        source.monotonic.advance(3)
        assert await tokens.token("a", None) == "access-3"

    source.run(work)


def test_a_browser_that_leaves_takes_nothing_from_others() -> None:
    """The fetch is nobody's request."""
    source = Source()
    source.delay = 0.1

    async def work(tokens: ServiceTokens) -> None:
        first = asyncio.create_task(tokens.token("a", None))
        second = asyncio.create_task(tokens.token("a", None))
        await asyncio.sleep(0.02)
        first.cancel()
        assert await second == "access-1"

    source.run(work)
    assert len(source.asked) == 1


def test_a_lifetime_that_is_not_told() -> None:
    """It counts as a minute."""
    source = Source()
    source.lives = None

    async def work(tokens: ServiceTokens) -> None:
        assert await tokens.token("a", None) == "access-1"
        source.clock.advance(61)
        assert await tokens.token("a", None) == "access-2"

    source.run(work)


@pytest.mark.parametrize("lives", [0.0, 0.5, 2.0])
def test_a_lifetime_that_is_too_short(lives: float) -> None:
    """The provider is asked once in two seconds, however short its tokens live."""
    source = Source()
    source.lives = lives

    async def work(tokens: ServiceTokens) -> None:
        for expected in ("access-1", "access-2"):
            assert [await tokens.token("a", None) for _ in range(10)] == [expected] * 10
            source.clock.advance(1.5)
            assert await tokens.token("a", None) == expected
            await asyncio.sleep(0.05)  # a renewal beside it
            source.clock.advance(0.6)

    source.run(work)
    assert len(source.asked) == 2


def test_the_last_seconds_of_a_token() -> None:
    """They are not sent to an upstream, which may get them too late, unless there is nothing better."""
    source = Source()

    async def work(tokens: ServiceTokens) -> None:
        assert await tokens.token("a", None) == "access-1"
        source.clock.advance(97.5)
        assert await tokens.token("a", None) == "access-2"
        source.error = ProviderUnavailable(reason="x")
        source.clock.advance(97.5)
        assert await tokens.token("a", None) == "access-2"
        source.clock.advance(3)
        with pytest.raises(ProviderUnavailable):
            await tokens.token("a", None)

    source.run(work)
