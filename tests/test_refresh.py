"""Refresh, proven: once per expiry over threads and processes, never in the way, never lost."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TypeVar

import msgspec
import pytest
from structlog.testing import capture_logs

from bff.errors import StoreUnavailable
from bff.metrics import NoMetrics
from bff.outage import Outage
from bff.provider.renewal import (
    GrantEnded,
    Refreshed,
    RefreshFailed,
    RefreshResult,
    SameUser,
    Unrenewable,
    Unverified,
)
from bff.refresh import Refresher
from bff.sessions.record import SessionRecord, digest
from bff.sessions.store import Lease, Saved, SessionStore
from bff.tokens import LoginRequired, Outcome, TokenSet, TryLater, Usable
from tests.fakes import ISSUER, SUBJECT, FakeClock, FakeProvider, Rig, audit, renewing, token_set
from tests.support.stopwatch import Stopwatch
from tests.support.wire import happens

T = TypeVar("T")

SID = "s" * 43
NAME = digest(SID)
LIFE = 300.0
DUE, DEAD = LIFE - 30, LIFE + 1


@asynccontextmanager
async def process(
    rig: Rig,
    provider: FakeProvider,
    *,
    deadline: float = 5,
    threads: int = 4,
    store: SessionStore | None = None,
    outage: Outage | None = None,
) -> AsyncIterator[Refresher]:
    """One process of the BFF, as far as refreshes go; at its end it drains."""
    pool, reader = ThreadPoolExecutor(threads), rig.reader()
    refresher = Refresher(
        store or rig.store,
        reader,
        provider,
        pool,
        rig.clock,
        outage or Outage(time.monotonic),
        audit(),
        NoMetrics(),
        leeway=60,
        provider_deadline=deadline,
    )
    try:
        yield refresher
        await refresher.drain()
    finally:
        provider.go_on.set()
        await asyncio.to_thread(pool.shutdown)
        await reader.close()


def run(
    rig: Rig,
    provider: FakeProvider,
    work: Callable[[Refresher], Awaitable[T]],
    *,
    deadline: float = 5,
    threads: int = 4,
    store: SessionStore | None = None,
    outage: Outage | None = None,
) -> T:
    """Let one process do `work`, wait for its refreshes, and end it."""

    async def whole() -> T:
        async with process(
            rig, provider, deadline=deadline, threads=threads, store=store, outage=outage
        ) as refresher:
            return await work(refresher)

    return asyncio.run(whole())


def load(rig: Rig) -> SessionRecord:
    """The live session, which must be there."""
    record = rig.store.load(NAME)
    assert record is not None
    return record


def aged(rig: Rig, age: float, **more: object) -> SessionRecord:
    """A session whose access token is that old, of a user who was here just now."""
    record = rig.begin(SID, token_set(rig.clock, "1", lives=LIFE, **more))
    rig.clock.advance(age)
    return record


def access_token(outcome: Outcome) -> str:
    """The token to go on with."""
    assert isinstance(outcome, Usable), outcome
    return outcome.tokens.access_token


def weary() -> Outage:
    """Of a provider that has often failed: the next pause is the longest, 15 s, which no test takes."""
    outage = Outage(time.monotonic)
    for _ in range(3):
        outage.failed(outage=False)
    return outage


# -- when -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("age", [0, LIFE - 61])
def test_a_young_token_is_left_alone(rig: Rig, age: float) -> None:
    """Not due: nobody is asked, neither the provider nor Redis."""
    record, provider = aged(rig, age), FakeProvider(renewing(rig.clock))
    before = rig.in_redis()
    assert run(rig, provider, lambda refresher: refresher.usable(record)) == Usable(record.tokens)
    assert provider.redeemed == []
    assert rig.in_redis() == before


def test_a_due_token_is_refreshed_beside_the_request(rig: Rig) -> None:
    """The request goes on at once with the old token; the new one is there afterwards."""
    record, provider = aged(rig, DUE), FakeProvider(renewing(rig.clock))
    provider.go_on.clear()

    async def work(refresher: Refresher) -> None:
        began = Stopwatch()
        outcomes = [await refresher.usable(record) for _ in range(20)]
        assert began.own < 3
        assert {access_token(outcome) for outcome in outcomes} == {"access-1"}
        assert await asyncio.to_thread(provider.began.wait, 5)
        assert load(rig).generation == 1
        provider.go_on.set()

    run(rig, provider, work)
    assert provider.redeemed == ["refresh-1"]
    after = load(rig)
    assert (after.tokens.access_token, after.generation) == ("access-2", 2)
    assert after.last_seen == record.last_seen


def test_a_dead_token_costs_fifty_requests_one_redeem(rig: Rig) -> None:
    """All wait for the same refresh, which asks Redis once for all of them, and go on with its token."""
    record, provider, store = aged(rig, DEAD), FakeProvider(renewing(rig.clock), delay=0.1), flaky(rig)

    async def work(refresher: Refresher) -> list[Outcome]:
        return await asyncio.gather(*[refresher.usable(record) for _ in range(50)])

    outcomes = run(rig, provider, work, store=store)
    assert [access_token(outcome) for outcome in outcomes] == ["access-2"] * 50
    assert provider.redeemed == ["refresh-1"]
    assert store.leases == 1


@pytest.mark.parametrize("age", [DUE, DEAD])
def test_two_processes_redeem_once(rig: Rig, age: float) -> None:
    """The lease lets one of them redeem, however slow the provider; the other takes what it brought."""
    record, provider = aged(rig, age), FakeProvider(renewing(rig.clock), delay=0.5)

    async def work() -> list[Outcome]:
        async with process(rig, provider) as one, process(rig, provider) as two:
            outcomes = [each.usable(record) for each in (one, two) for _ in range(5)]
            return await asyncio.gather(*outcomes)

    outcomes = asyncio.run(work())
    assert provider.redeemed == ["refresh-1"]
    expected = "access-1" if age == DUE else "access-2"
    assert {access_token(outcome) for outcome in outcomes} == {expected}
    assert load(rig).generation == 2


def test_old_knowledge_does_not_redeem_again(rig: Rig) -> None:
    """A request that read the session before another process refreshed it takes the new tokens."""
    record, provider = aged(rig, DEAD), FakeProvider(renewing(rig.clock))
    rig.store.save_tokens(record, token_set(rig.clock, "other"))
    assert access_token(run(rig, provider, lambda refresher: refresher.usable(record))) == "access-other"
    assert provider.redeemed == []


def test_one_session_waits_for_no_other(rig: Rig) -> None:
    """Two sessions are two flights."""
    one, provider = aged(rig, 0), FakeProvider(lambda tokens, _: Refreshed(_next(rig, tokens)), delay=0.1)
    two = rig.begin("o" * 43, token_set(rig.clock, "a", lives=LIFE))
    rig.clock.advance(DEAD)

    async def work(refresher: Refresher) -> list[Outcome]:
        return list(await asyncio.gather(refresher.usable(one), refresher.usable(two)))

    assert [access_token(outcome) for outcome in run(rig, provider, work)] == [
        "next-access-1",
        "next-access-a",
    ]


def _next(rig: Rig, tokens: TokenSet) -> TokenSet:
    return token_set(rig.clock, access_token=f"next-{tokens.access_token}")


def test_refreshes_of_a_process_take_turns(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many that become due together are as one to the requests beside them."""
    monkeypatch.setattr("bff.turn.PATIENCE_SECONDS", 30)
    inside, most = 0, 0

    def answer(tokens: TokenSet, _: int) -> RefreshResult:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        time.sleep(0.02)
        inside -= 1
        return Refreshed(_next(rig, tokens))

    records = [rig.begin(letter * 43, token_set(rig.clock, letter, lives=LIFE)) for letter in "abcd"]
    rig.clock.advance(DEAD)

    async def work(refresher: Refresher) -> list[Outcome]:
        return list(await asyncio.gather(*map(refresher.usable, records)))

    outcomes = run(rig, FakeProvider(answer), work)
    assert [access_token(outcome) for outcome in outcomes] == [f"next-access-{each}" for each in "abcd"]
    assert most == 1


def test_without_a_refresh_token_only_a_sign_in_helps(rig: Rig) -> None:
    """The access token is used while it lives, and then the session is over; nobody is asked."""
    record, provider = aged(rig, DUE, refresh_token=None), FakeProvider(renewing(rig.clock))
    assert run(rig, provider, lambda refresher: refresher.usable(record)) == Usable(record.tokens)
    rig.clock.advance(DEAD - DUE)
    assert run(rig, provider, lambda refresher: refresher.usable(record)) == LoginRequired()
    assert provider.redeemed == []


def test_the_provider_is_told_whose_tokens_these_must_be(rig: Rig) -> None:
    """A refreshed ID token of another user or issuer does not pass for ours."""
    record, provider = aged(rig, DEAD), FakeProvider(renewing(rig.clock))
    run(rig, provider, lambda refresher: refresher.usable(record))
    assert provider.same_user is not None
    assert provider.same_user(ISSUER, SUBJECT)
    assert not provider.same_user(ISSUER, "another")
    assert not provider.same_user("https://other.example", SUBJECT)


# -- a provider in trouble --------------------------------------------------------------------------


def failing(provider_reason: str = "503") -> FakeProvider:
    """A provider that cannot refresh for now."""
    return FakeProvider(lambda _tokens, _number: RefreshFailed(provider_reason))


def test_a_failure_keeps_a_living_token_in_use(rig: Rig) -> None:
    """Inside the leeway nobody notices that the provider is down."""
    record, provider = aged(rig, DUE), failing()
    outcome = run(rig, provider, lambda refresher: refresher.usable(record))
    assert access_token(outcome) == "access-1"
    assert provider.redeemed == ["refresh-1"]
    assert load(rig) == record


def test_a_failure_with_a_dead_token_is_try_later_and_no_sign_out(rig: Rig) -> None:
    """503 with a time to come back; the session stays as it is."""
    record = aged(rig, DEAD)
    outcome = run(rig, failing(), lambda refresher: refresher.usable(record))
    assert isinstance(outcome, TryLater)
    assert outcome.retry_after >= 1
    assert load(rig) == record


@pytest.mark.parametrize("age", [DUE, DEAD])
def test_a_provider_in_trouble_is_not_asked_at_every_request(rig: Rig, age: float) -> None:
    """Within the pause no second call, from this process or another; waiting requests get their answer."""
    record, provider = aged(rig, age), failing()

    async def work() -> None:
        for _ in range(2):
            async with process(rig, provider, outage=weary()) as refresher:
                for _ in range(5):
                    await refresher.usable(record)
                    await refresher.drain()

    asyncio.run(work())
    assert provider.redeemed == ["refresh-1"]
    assert rig.store.lease(record, "me", 1) is Lease.PAUSE


def test_the_pause_grows_and_is_bounded(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """2, 4, 8 and then 15 seconds; after a success it begins small again."""
    monkeypatch.setattr("bff.refresh.REST_SECONDS", 0)
    answers = [True, True, True, True, True, False, True]
    provider = FakeProvider(
        lambda tokens, number: RefreshFailed("503") if answers[number - 1] else Refreshed(tokens)
    )
    record, store, pauses = aged(rig, DUE), flaky(rig), list[float]()
    release = store.release

    def noting(record: SessionRecord, owner: str, pause: float = 0) -> None:
        release(record, owner, pause)
        pauses.append(pause)

    monkeypatch.setattr(store, "release", noting)

    async def work(refresher: Refresher) -> None:
        for _ in answers:
            await refresher.usable(load(rig))
            await refresher.drain()
            await asyncio.sleep(0.01)
            assert rig.client.pttl(record.key + ":lease") <= pauses[-1] * 1000
            rig.client.delete(record.key + ":lease")
            clock.advance(20)

    clock = FakeClock()
    run(rig, provider, work, outage=Outage(clock), store=store)
    del pauses[answers.index(False)]
    assert pauses == [2, 4, 8, 15, 15, 2]


def test_an_outage_is_not_stormed_by_other_sessions(rig: Rig) -> None:
    """Once three sessions have met it, the others are told to come back; one finds out when it is over."""
    clock = FakeClock()
    down = True
    renew = renewing(rig.clock)
    provider = FakeProvider(lambda tokens, n: RefreshFailed("503") if down else renew(tokens, n))
    tokens = token_set(rig.clock, "old", obtained_at=rig.clock() - DEAD, expires_at=rig.clock() - 1)
    records = [rig.begin(f"{number:043}", tokens) for number in range(40)]

    async def work(refresher: Refresher) -> None:
        nonlocal down
        for record in records[:3]:
            assert isinstance(await refresher.usable(record), TryLater)
        outcomes = await asyncio.gather(*map(refresher.usable, records[3:30]))
        assert all(isinstance(outcome, TryLater) and outcome.retry_after == 8 for outcome in outcomes)
        assert len(provider.redeemed) == 3
        clock.advance(8)
        await asyncio.gather(*map(refresher.usable, records[30:35]))
        assert len(provider.redeemed) == 4
        down = False
        clock.advance(15)
        assert access_token(await refresher.usable(records[35])) == "access-6"
        outcomes = await asyncio.gather(*map(refresher.usable, records[36:]))
        assert all(isinstance(outcome, Usable) for outcome in outcomes)

    run(rig, provider, work, outage=Outage(clock))


def test_after_the_pause_it_is_tried_again(rig: Rig) -> None:
    """A provider that recovers is noticed by itself."""
    record = aged(rig, DEAD)
    renew = renewing(rig.clock)
    provider = FakeProvider(lambda tokens, n: RefreshFailed("timeout") if n == 1 else renew(tokens, n))

    async def work(refresher: Refresher) -> Outcome:
        assert isinstance(await refresher.usable(record), TryLater)
        rig.client.delete(record.key + ":lease")  # the pause is over
        return await refresher.usable(record)

    assert access_token(run(rig, provider, work)) == "access-3"


def test_in_a_pause_not_every_request_asks_redis(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A token that is merely due: between two tries the requests go on with it and ask nobody."""
    monkeypatch.setattr("bff.refresh.REST_SECONDS", 30)
    record, provider, store = aged(rig, DUE), failing(), flaky(rig)

    async def work(refresher: Refresher) -> None:
        for _ in range(30):
            assert access_token(await refresher.usable(record)) == "access-1"
            await asyncio.sleep(0.01)
        await refresher.drain()
        assert access_token(await refresher.usable(record)) == "access-1"
        await refresher.drain()
        assert store.leases == 1

    run(rig, provider, work, store=store)


def test_after_a_rest_redis_is_asked_again(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pause of the session may be over, by what another process has found out."""
    monkeypatch.setattr("bff.refresh.REST_SECONDS", 0.05)
    record, provider, store = aged(rig, DUE), failing(), flaky(rig)

    async def work(refresher: Refresher) -> None:
        watch = Stopwatch()
        while store.leases < 2 and watch.own < 10:
            assert access_token(await refresher.usable(record)) == "access-1"
            await refresher.drain()
            await asyncio.sleep(0.01)
        assert store.leases == 2
        assert watch.elapsed > 0.05

    run(rig, provider, work, store=store)


@pytest.mark.parametrize("age", [DUE, DEAD])
def test_an_id_token_that_cannot_be_judged_loses_nothing(
    rig: Rig, age: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new signing key that is not to be had yet: the new refresh token is kept, the new access token is not
    used, and after the pause it is tried again; nobody is signed out."""
    monkeypatch.setattr("bff.refresh.REST_SECONDS", 0)
    renew = renewing(rig.clock)

    def answer(tokens: TokenSet, number: int) -> RefreshResult:
        if number == 1:
            return Unverified(msgspec.structs.replace(tokens, refresh_token="refresh-new"))
        return renew(tokens, number)

    record, provider = aged(rig, age), FakeProvider(answer)

    async def work(refresher: Refresher) -> tuple[Outcome, Outcome]:
        first = await refresher.usable(record)
        await refresher.drain()
        kept = load(rig)
        assert (kept.tokens.access_token, kept.tokens.refresh_token) == ("access-1", "refresh-new")
        assert rig.store.lease(kept, "me", 1) is Lease.PAUSE
        rig.client.delete(record.key + ":lease")
        await asyncio.sleep(0.01)
        second = await refresher.usable(load(rig))
        await refresher.drain()
        return first, second

    with capture_logs() as logs:
        first, second = run(rig, provider, work, outage=weary())
    assert provider.redeemed == ["refresh-1", "refresh-new"]
    assert load(rig).tokens.access_token == "access-3"
    assert provider.revoked == []
    assert [entry["event"] for entry in logs] == ["refresh_failed"]
    if age == DEAD:
        assert first == TryLater(15)
        assert access_token(second) == "access-3"
    else:
        assert access_token(first) == access_token(second) == "access-1"


def test_after_a_success_a_session_pauses_too(rig: Rig) -> None:
    """A provider whose clock is off hands out dead tokens: it is not hammered for it, nobody signed out."""
    record = aged(rig, DEAD)
    late = token_set(rig.clock, "late", obtained_at=rig.clock() - 300, expires_at=rig.clock() - 1)
    provider = FakeProvider(lambda _tokens, _number: Refreshed(late))

    async def work(refresher: Refresher) -> None:
        for _ in range(5):
            assert isinstance(await refresher.usable(load(rig)), TryLater)

    run(rig, provider, work)
    assert provider.redeemed == ["refresh-1"]
    assert load(rig).tokens == late
    assert rig.store.lease(load(rig), "me", 1) is Lease.PAUSE
    assert record.tokens != late


def test_waiting_ends_two_seconds_after_the_providers_deadline(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A provider that hangs costs a waiting request so much and no more; the refresh itself goes on."""
    monkeypatch.setattr("bff.refresh.WAIT_MARGIN_SECONDS", 0.2)
    record, provider = aged(rig, DEAD), FakeProvider(renewing(rig.clock))
    provider.go_on.clear()

    async def work(refresher: Refresher) -> Outcome:
        watch = Stopwatch()
        outcome = await refresher.usable(record)
        assert watch.own < 5
        assert watch.elapsed > 0.25
        provider.go_on.set()
        return outcome

    outcome = run(rig, provider, work, deadline=0.1)
    assert isinstance(outcome, TryLater)
    assert load(rig).tokens.access_token == "access-2"


def test_waiting_for_another_process_ends_as_well(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lease whose owner never comes back is waited for as long, not longer; nobody is signed out."""
    monkeypatch.setattr("bff.refresh.WAIT_MARGIN_SECONDS", 0.2)
    record, provider = aged(rig, DEAD), FakeProvider(renewing(rig.clock))
    rig.store.lease(record, "dead process", 60)

    async def work(refresher: Refresher) -> Outcome:
        outcome = await refresher.usable(record)
        rig.clock.advance(10)  # the flight looks at the clock
        return outcome

    assert isinstance(run(rig, provider, work, deadline=0.1), TryLater)
    assert provider.redeemed == []
    assert load(rig) == record


def test_a_lease_does_not_run_out_while_its_redeem_waits_for_a_thread(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With every thread busy at a slow provider, another process must not redeem the same token."""
    monkeypatch.setattr("bff.refresh.LEASE_MARGIN_SECONDS", 0.05)
    monkeypatch.setattr("bff.refresh.WAIT_MARGIN_SECONDS", 30)
    began, go_on = threading.Event(), threading.Event()

    def answer(tokens: TokenSet, _: int) -> RefreshResult:
        if tokens.refresh_token == "refresh-a":
            began.set()
            assert go_on.wait(30)
        return Refreshed(_next(rig, tokens))

    provider = FakeProvider(answer)
    records = [rig.begin(letter * 43, token_set(rig.clock, letter, lives=LIFE)) for letter in "abc"]
    rig.clock.advance(DEAD)

    async def work() -> None:
        async with (
            process(rig, provider, threads=1, deadline=0.35) as one,
            process(rig, provider, threads=1, deadline=0.35) as two,
        ):
            first = [asyncio.create_task(one.usable(record)) for record in records]
            assert await asyncio.to_thread(began.wait, 10)
            await asyncio.sleep(0.5)  # a lease lasts for 0.4 s
            await asyncio.gather(*[two.usable(record) for record in records[:0:-1]])
            go_on.set()
            await asyncio.gather(*first)

    asyncio.run(work())
    assert sorted(str(token) for token in provider.redeemed) == ["refresh-a", "refresh-b", "refresh-c"]


def test_a_redeem_that_takes_longer_than_the_lease_keeps_it(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Discovery, keys and redeem may each take the provider's deadline: the lease is kept all along."""
    monkeypatch.setattr("bff.refresh.LEASE_MARGIN_SECONDS", 2.9)
    monkeypatch.setattr("bff.refresh.WAIT_MARGIN_SECONDS", 30)
    monkeypatch.setattr("bff.sessions.store.ANSWERED_SECONDS", 0.05)
    record, provider = aged(rig, DEAD), FakeProvider(renewing(rig.clock), delay=3.8)

    async def work() -> list[Outcome]:
        async with process(rig, provider, deadline=0.1) as one, process(rig, provider, deadline=0.1) as two:
            return list(await asyncio.gather(one.usable(record), two.usable(record)))

    assert [access_token(outcome) for outcome in asyncio.run(work())] == ["access-2"] * 2
    assert provider.redeemed == ["refresh-1"]


class Frozen(FakeProvider):
    """A process that is stopped between its lease and the token request, while another one is at work."""

    meanwhile: Callable[[], None]
    asked = 0
    seconds = 1000.0
    """What its clock shows."""

    def refresh(
        self, tokens: TokenSet, same_user: SameUser, before: Callable[[], None] = lambda: None
    ) -> RefreshResult:
        def stopped() -> None:
            self.asked += 1
            self.meanwhile()
            before()

        return super().refresh(tokens, same_user, stopped)


@pytest.fixture
def frozen(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> Frozen:
    """One whose lease may have run out after a tenth of a second, by a clock that only the test moves."""
    provider = Frozen(renewing(rig.clock))
    monkeypatch.setattr("bff.refresh.LEASE_MARGIN_SECONDS", 0.1)
    monkeypatch.setattr("bff.refresh._seconds", lambda: provider.seconds)
    return provider


def test_a_process_that_stood_still_does_not_redeem(rig: Rig, frozen: Frozen) -> None:
    """Stopped after the lease, awake when it has run out and another process has redeemed: it looks again."""
    record, provider = aged(rig, DEAD), frozen

    def meanwhile() -> None:
        provider.seconds += 0.15
        rig.store.save_tokens(record, token_set(rig.clock, "other"))
        rig.client.delete(record.key + ":lease")

    provider.meanwhile = meanwhile
    assert access_token(run(rig, provider, lambda refresher: refresher.usable(record))) == "access-other"
    assert provider.redeemed == []
    assert provider.asked == 1


def test_a_process_that_stood_still_leaves_the_redeem_to_another(rig: Rig, frozen: Frozen) -> None:
    """Awake while another process is redeeming: it waits for that one."""
    record, provider = aged(rig, DEAD), frozen

    def meanwhile() -> None:
        provider.seconds += 0.15
        rig.client.set(record.key + ":lease", "another", ex=60)

    provider.meanwhile = meanwhile

    async def work(refresher: Refresher) -> Outcome:
        waiting = asyncio.create_task(refresher.usable(record))
        assert await happens(lambda: rig.client.get(record.key + ":lease") == b"another")
        await asyncio.sleep(0.3)  # it asks now and then
        rig.store.save_tokens(record, token_set(rig.clock, "other"))
        return await waiting

    assert access_token(run(rig, provider, work)) == "access-other"
    assert provider.redeemed == []


def test_a_process_whose_keys_came_late_keeps_its_lease(rig: Rig, frozen: Frozen) -> None:
    """The lease is asked for again, lasts from then on, and the redeem goes on."""
    record, provider, store = aged(rig, DEAD), frozen, flaky(rig)
    left = []

    def meanwhile() -> None:
        provider.seconds += 0.3
        rig.client.pexpire(record.key + ":lease", 60_000)  # to be seen to be set anew

    def answer(tokens: TokenSet, number: int) -> RefreshResult:
        left.append(rig.client.pttl(record.key + ":lease") / 1000)
        return renewing(rig.clock)(tokens, number)

    provider.meanwhile, provider.answer = meanwhile, answer
    assert access_token(run(rig, provider, lambda refresher: refresher.usable(record), store=store)) == (
        "access-2"
    )
    assert store.leases == 2
    assert 0 < left[0] <= 5.1


# -- answers that end something ---------------------------------------------------------------------


@pytest.mark.parametrize("age", [DUE, DEAD])
def test_invalid_grant_ends_the_session(rig: Rig, age: float) -> None:
    """A refresh token known dead is the end, whether somebody waits or not."""
    record, provider = aged(rig, age), FakeProvider(lambda _tokens, _number: GrantEnded())
    outcome = run(rig, provider, lambda refresher: refresher.usable(record))
    assert outcome == LoginRequired() if age == DEAD else access_token(outcome) == "access-1"
    assert rig.store.load(NAME) is None
    assert rig.in_redis() == []


@pytest.mark.parametrize("age", [DUE, DEAD])
def test_invalid_grant_for_replaced_tokens_ends_nothing(rig: Rig, age: float) -> None:
    """Only the generation that was refused may end its session; a request that waits takes the newer one."""
    record = aged(rig, age)

    def answer(_tokens: TokenSet, _number: int) -> GrantEnded:
        rig.store.save_tokens(record, token_set(rig.clock, "other"))
        return GrantEnded()

    outcome = run(rig, FakeProvider(answer), lambda refresher: refresher.usable(record))
    assert access_token(outcome) == ("access-1" if age == DUE else "access-other")
    assert load(rig).tokens.access_token == "access-other"


def test_after_a_late_invalid_grant_the_lease_is_free(rig: Rig) -> None:
    """Other tokens were saved meanwhile: their refresh must not wait for a lease that nobody uses."""
    record = aged(rig, DEAD)

    def answer(_tokens: TokenSet, _number: int) -> GrantEnded:
        rig.store.save_tokens(record, token_set(rig.clock, "other"))
        return GrantEnded()

    run(rig, FakeProvider(answer), lambda refresher: refresher.usable(record))
    assert rig.store.lease(load(rig), "somebody", 1) is Lease.YOURS


def test_tokens_that_came_too_late_are_not_used(rig: Rig) -> None:
    """Another process has saved its own: these are the session's, and the lease is given back."""
    record, renew = aged(rig, DEAD), renewing(rig.clock)

    def answer(tokens: TokenSet, number: int) -> RefreshResult:
        rig.store.save_tokens(record, token_set(rig.clock, "other"))
        return renew(tokens, number)

    provider = FakeProvider(answer)
    with capture_logs() as logs:
        outcome = run(rig, provider, lambda refresher: refresher.usable(record))
    assert access_token(outcome) == load(rig).tokens.access_token == "access-other"
    assert [entry["event"] for entry in logs] == ["refresh_not_saved"]
    assert provider.revoked == [], "at many providers that would end the saved ones, too"
    assert rig.store.lease(load(rig), "somebody", 1) is Lease.PAUSE


@pytest.mark.parametrize("age", [DUE, DEAD])
def test_what_is_refused_is_revoked(rig: Rig, age: float) -> None:
    """Tokens of somebody else, which nobody will ever hold, do not stay valid."""
    strange = token_set(rig.clock, "strange")
    provider = FakeProvider(lambda _tokens, _number: Unrenewable("sub differs", strange))
    record = aged(rig, age)
    run(rig, provider, lambda refresher: refresher.usable(record))
    assert (provider.revoked, provider.discarded) == ([], [strange])


@pytest.mark.parametrize("age", [DUE, DEAD])
def test_an_answer_that_is_not_for_this_user_is_neither_used_nor_asked_for_again(
    rig: Rig, age: float
) -> None:
    """The redeem was answered, so the refresh token is used up; the old access token lives out its time."""
    record, provider = aged(rig, age), FakeProvider(lambda _tokens, _number: Unrenewable("sub differs"))

    async def work(refresher: Refresher) -> list[Outcome]:
        outcomes = [await refresher.usable(record)]
        await refresher.drain()
        outcomes.append(await refresher.usable(record))
        return outcomes

    outcomes = run(rig, provider, work)
    assert provider.redeemed == ["refresh-1"]
    if age == DEAD:
        assert outcomes == [LoginRequired(), LoginRequired()]
        assert rig.store.load(NAME) is None
    else:
        assert [access_token(outcome) for outcome in outcomes] == ["access-1", "access-1"]
        assert load(rig).tokens.refresh_token is None


def test_signing_out_wins_against_a_refresh_under_way(rig: Rig) -> None:
    """The new tokens are revoked, the session stays dead, and the waiting request must sign in."""
    record, provider = aged(rig, DEAD), FakeProvider(renewing(rig.clock))
    provider.go_on.clear()

    async def work(refresher: Refresher) -> Outcome:
        waiting = asyncio.create_task(refresher.usable(record))
        assert await asyncio.to_thread(provider.began.wait, 5)
        assert rig.store.end(NAME) is not None
        provider.go_on.set()
        return await waiting

    assert run(rig, provider, work) == LoginRequired()
    assert [tokens.refresh_token for tokens in provider.revoked] == ["refresh-2"]
    assert rig.in_redis() == []


def test_a_session_that_ended_meanwhile_is_not_refreshed(rig: Rig) -> None:
    """What a late request still holds of an ended session is not redeemed."""
    record, provider = aged(rig, DEAD), FakeProvider(renewing(rig.clock))
    rig.store.end(NAME)
    assert run(rig, provider, lambda refresher: refresher.usable(record)) == LoginRequired()
    assert provider.redeemed == []


def test_signing_out_in_another_process_ends_the_wait(rig: Rig) -> None:
    """Who waits for another process's refresh learns that the session has ended."""
    record, provider = aged(rig, DEAD), FakeProvider(renewing(rig.clock))
    rig.store.lease(record, "another process", 60)

    async def work(refresher: Refresher) -> Outcome:
        waiting = asyncio.create_task(refresher.usable(record))
        await asyncio.sleep(0.1)
        rig.store.end(NAME)
        return await waiting

    assert run(rig, provider, work) == LoginRequired()


# -- a store in trouble, a browser that leaves ------------------------------------------------------


class Flaky(SessionStore):
    """A store that is down at certain calls, and counts leases."""

    down = 0
    """So many saves of tokens fail."""
    releases_down = 0
    answers_lost = 0
    """So many leases are granted, and nobody hears of it."""
    leases = 0

    def lease(self, record: SessionRecord, owner: str, seconds: float) -> Lease:
        self.leases += 1
        lease = super().lease(record, owner, seconds)
        if self.answers_lost:
            self.answers_lost -= 1
            raise StoreUnavailable(reason="Redis: TimeoutError")
        return lease

    def save_tokens(self, record: SessionRecord, tokens: TokenSet) -> Saved:
        if self.down:
            self.down -= 1
            raise StoreUnavailable(reason="Redis: ConnectionError")
        return super().save_tokens(record, tokens)

    def release(self, record: SessionRecord, owner: str, pause: float = 0) -> None:
        if self.releases_down:
            self.releases_down -= 1
            raise StoreUnavailable(reason="Redis: ConnectionError")
        super().release(record, owner, pause)


def flaky(rig: Rig) -> Flaky:
    """Such a store on the rig's Redis."""
    return Flaky(rig.client, rig.codec, rig.lifetime, rig.clock)


@pytest.mark.parametrize("age", [DUE, DEAD])
def test_a_redeem_that_could_not_be_saved_is_saved_later_and_never_repeated(rig: Rig, age: float) -> None:
    """The old refresh token is used up: what came for it is kept until Redis is back."""
    record, provider, store = aged(rig, age), FakeProvider(renewing(rig.clock)), flaky(rig)
    store.down = 2

    async def work(refresher: Refresher) -> list[Outcome]:
        return await asyncio.gather(*[refresher.usable(record) for _ in range(3)])

    outcomes = run(rig, provider, work, store=store)
    assert {access_token(outcome) for outcome in outcomes} == {"access-1" if age == DUE else "access-2"}
    assert provider.redeemed == ["refresh-1"]
    assert load(rig).tokens.access_token == "access-2"


def test_a_save_that_waits_for_redis_has_no_turn(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Others refresh meanwhile: the Redis of one session may be the cluster's one node that is away."""
    monkeypatch.setattr("bff.turn.PATIENCE_SECONDS", 30)
    one, store = aged(rig, 0), flaky(rig)
    two = rig.begin("o" * 43, token_set(rig.clock, "a", lives=LIFE))
    rig.clock.advance(DEAD)
    away = threading.Event()
    away.set()
    saved, began = store.save_tokens, threading.Event()

    def save_tokens(record: SessionRecord, tokens: TokenSet) -> Saved:
        if record.key == one.key and away.is_set():
            began.set()
            raise StoreUnavailable(reason="Redis: ConnectionError")
        return saved(record, tokens)

    monkeypatch.setattr(store, "save_tokens", save_tokens)
    provider = FakeProvider(lambda tokens, _: Refreshed(_next(rig, tokens)))

    async def work(refresher: Refresher) -> Outcome:
        first = asyncio.create_task(refresher.usable(one))
        assert await asyncio.to_thread(began.wait, 5)
        try:
            second = await asyncio.wait_for(refresher.usable(two), 5)
        finally:
            away.clear()
        assert access_token(await first) == "next-access-1"
        return second

    assert access_token(run(rig, provider, work, store=store)) == "next-access-a"


def test_a_redis_that_is_away_for_longer_than_the_lease(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Redeemed, not saved, lease run out: when Redis is back, the answered redeem is not sent again."""
    monkeypatch.setattr("bff.refresh.WAIT_MARGIN_SECONDS", 30)
    monkeypatch.setattr("bff.sessions.store.ANSWERED_SECONDS", 10)
    record, provider = aged(rig, DEAD), FakeProvider(renewing(rig.clock))
    store, others = flaky(rig), flaky(rig)
    store.down = 1_000

    async def work() -> list[Outcome]:
        async with (
            process(rig, provider, deadline=0.1, store=store) as one,
            process(rig, provider, deadline=0.1, store=others) as two,
        ):
            first = asyncio.create_task(one.usable(record))
            assert await happens(lambda: store.down < 1_000)
            rig.client.delete(record.key + ":lease")  # what Redis held of it is over
            second = asyncio.create_task(two.usable(record))
            assert await happens(lambda: others.leases >= 2)
            store.down = 0
            return list(await asyncio.gather(first, second))

    assert [access_token(outcome) for outcome in asyncio.run(work())] == ["access-2"] * 2
    assert provider.redeemed == ["refresh-1"]


def test_a_save_whose_answer_was_lost_is_not_taken_for_another_ones(rig: Rig) -> None:
    """Saved, but nobody heard of it: the second try says so, and the tokens are used."""
    record, provider, store = aged(rig, DEAD), FakeProvider(renewing(rig.clock)), flaky(rig)
    saves = iter([False, True])

    def save(record: SessionRecord, tokens: TokenSet) -> Saved:
        saved = SessionStore.save_tokens(store, record, tokens)
        if not next(saves):
            raise StoreUnavailable(reason="Redis: TimeoutError")
        return saved

    store.save_tokens = save  # type: ignore[method-assign]
    outcome = run(rig, provider, lambda refresher: refresher.usable(record), store=store)
    assert access_token(outcome) == load(rig).tokens.access_token == "access-2"
    assert provider.redeemed == ["refresh-1"]
    assert provider.revoked == []


def test_a_store_that_stays_down_is_said_to_the_request(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """After its time the refresh gives up with a 503, and a line in the log without a token."""
    monkeypatch.setattr("bff.refresh.SAVE_SECONDS", 0.1)
    record, provider, store = aged(rig, DEAD), FakeProvider(renewing(rig.clock)), flaky(rig)
    store.down = 1_000

    async def work(refresher: Refresher) -> None:
        with pytest.raises(StoreUnavailable):
            await refresher.usable(record)

    with capture_logs() as logs:
        run(rig, provider, work, store=store)
    assert provider.redeemed == ["refresh-1"]
    assert logs == [{"event": "refresh_failed", "reason": "Redis: ConnectionError", "log_level": "error"}]


def test_a_lease_that_could_not_be_released_is_released_later(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tokens are saved, that is what counts; and the pause begins once Redis answers again."""
    monkeypatch.setattr("bff.sessions.unreleased.AGAIN_SECONDS", 0.05)
    record, provider, store = aged(rig, DEAD), FakeProvider(renewing(rig.clock)), flaky(rig)
    store.releases_down = 3

    async def work(refresher: Refresher) -> Outcome:
        outcome = await refresher.usable(record)
        assert rig.store.lease(load(rig), "me", 1) is Lease.HELD
        assert await happens(lambda: rig.store.lease(load(rig), "me", 1) is not Lease.HELD)
        assert rig.store.lease(load(rig), "me", 1) is Lease.PAUSE
        return outcome

    outcome = run(rig, provider, work, store=store)
    assert access_token(outcome) == load(rig).tokens.access_token == "access-2"
    assert store.releases_down == 0


def test_a_lease_whose_answer_was_lost_holds_nobody_up(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Redis has granted it, and nobody knows: it is given back, and any process can go on."""
    monkeypatch.setattr("bff.sessions.unreleased.AGAIN_SECONDS", 0.05)
    record, provider, store = aged(rig, DEAD), FakeProvider(renewing(rig.clock)), flaky(rig)
    store.answers_lost, store.releases_down = 1, 1

    async def work() -> Outcome:
        async with process(rig, provider, store=store) as one, process(rig, provider) as two:
            with pytest.raises(StoreUnavailable):
                await one.usable(record)
            began = Stopwatch()
            outcome = await two.usable(record)
            assert began.own < 5
            return outcome

    assert access_token(asyncio.run(work())) == "access-2"
    assert provider.redeemed == ["refresh-1"]


def test_a_lease_that_cannot_be_given_back_is_left_to_run_out(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody tries for ever: once Redis has forgotten it by itself, it is forgotten here as well."""
    monkeypatch.setattr("bff.sessions.unreleased.AGAIN_SECONDS", 0.02)
    monkeypatch.setattr("bff.refresh.LEASE_MARGIN_SECONDS", 1.9)
    record, provider, store = aged(rig, DEAD), FakeProvider(renewing(rig.clock)), flaky(rig)
    store.releases_down = 10_000

    async def work(refresher: Refresher) -> None:
        await refresher.usable(record)
        assert await happens(lambda: store.releases_down < 9_999), "it is tried again"
        assert await happens(lambda: not refresher._unreleased._open)
        left = store.releases_down
        await asyncio.sleep(0.2)
        assert store.releases_down == left

    run(rig, provider, work, deadline=0.1, store=store)


def test_a_browser_that_hangs_up_burns_no_token(rig: Rig) -> None:
    """The request is cancelled, the refresh is not: what the provider gave is saved."""
    record, provider = aged(rig, DEAD), FakeProvider(renewing(rig.clock))
    provider.go_on.clear()

    async def work(refresher: Refresher) -> Outcome:
        leaving, staying = (asyncio.create_task(refresher.usable(record)) for _ in range(2))
        assert await asyncio.to_thread(provider.began.wait, 5)
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        provider.go_on.set()
        return await staying

    assert access_token(run(rig, provider, work)) == "access-2"
    assert provider.redeemed == ["refresh-1"]
    assert load(rig).tokens.access_token == "access-2"


def test_draining_waits_for_the_save(rig: Rig) -> None:
    """A process that ends saves first what it has redeemed."""
    record, provider = aged(rig, DUE), FakeProvider(renewing(rig.clock), delay=0.2)

    async def work(refresher: Refresher) -> None:
        await refresher.usable(record)
        await refresher.drain()
        assert load(rig).tokens.access_token == "access-2"

    run(rig, provider, work)


def test_an_error_beside_the_request_is_a_line_in_the_log(rig: Rig) -> None:
    """Nobody waits for a refresh inside the leeway: what goes wrong in it must not vanish."""

    def crash(_tokens: TokenSet, _number: int) -> Refreshed:
        raise RuntimeError("with access-1 in it")

    record, provider = aged(rig, DUE), FakeProvider(crash)
    with capture_logs() as logs:
        run(rig, provider, lambda refresher: refresher.usable(record))
    assert logs == [{"event": "refresh_failed", "reason": "RuntimeError", "log_level": "error"}]


def test_no_token_is_ever_logged(rig: Rig) -> None:
    """Failures, refusals and ends are told without what they are about."""
    ends = [RefreshFailed("HTTP 500"), Unrenewable("sub differs"), GrantEnded()]
    with capture_logs() as logs:
        for end in ends:
            record = aged(rig, DUE)
            provider = FakeProvider(lambda _tokens, _number, end=end: end)  # type: ignore[misc]
            run(rig, provider, lambda refresher, record=record: refresher.usable(record))  # type: ignore[misc]
            rig.client.flushall()
    assert [entry["event"] for entry in logs] == ["refresh_failed", "refresh_refused", "session_ended"]
    assert "access-" not in str(logs)
    assert "refresh-1" not in str(logs)


def test_threads_of_a_process_end_with_it() -> None:
    """Nothing of these tests lingers."""
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("ThreadPoolExecutor")]
