"""Indexes, cut-offs and the ends of many sessions, on every kind of Redis."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable

import pytest

from bff.errors import StoreUnavailable
from bff.sessions.directory import Directory, Ended, Listed, Unreadable
from bff.sessions.ending import Reason
from bff.sessions.index import EVERYBODY
from bff.sessions.record import Meta, SessionRecord, digest
from bff.tokens import TokenSet
from tests.fakes import ABSOLUTE, IDLE, KEY, OTHER_KEY, Backend, FakeClock, Rig, token_set

ALICE, BOB = "a" * 64, "b" * 64


@pytest.fixture
def rig(backend: Backend) -> Rig:
    """Sessions on that Redis, with a clock to turn."""
    return Rig(backend, FakeClock())


@pytest.fixture
def directory(rig: Rig) -> Directory:
    return Directory(rig.store, rig.store.index)


def begin(rig: Rig, name: str, user: str = ALICE, tokens: TokenSet | None = None) -> str:
    """A new session of a user; its public name."""
    now = rig.clock()
    rig.store.begin(digest(name), Meta(now, now, user), tokens or token_set(rig.clock, name), {"x": 1})
    return digest(name)


def refresh_tokens(ended: Iterable[Ended]) -> set[str | None]:
    """What was held by sessions, all of which open."""
    return {each.record.tokens.refresh_token for each in ended if each.record is not None}


def index_size(rig: Rig, user: str = ALICE) -> int:
    return int(rig.client.zcard(f"test:{{user:{user}}}"))


def test_a_users_sessions(rig: Rig, directory: Directory) -> None:
    """Exactly the user's own, the oldest first, with what a list needs."""
    names = []
    for name in ("1", "2", "3"):
        names.append(begin(rig, name))
        rig.clock.advance(1)
    begin(rig, "other", BOB)
    listed = directory.of(ALICE)
    assert [each.id for each in listed] == names
    assert listed[0].record.data == {"x": 1}
    assert [each.id for each in directory.of(BOB)] == [digest("other")]
    assert directory.of("c" * 64) == []


def test_no_ghosts(rig: Rig, directory: Directory) -> None:
    """What has ended by whatever way is not listed, and is dropped from the index when it is met."""
    ended, idle, refused, living = (begin(rig, name) for name in ("1", "2", "3", "4"))
    rig.store.end(ended)
    record = rig.store.load(refused)
    assert record is not None
    assert rig.store.end_if_current(record)
    assert index_size(rig) == 2, "a session that is ended leaves the index at once"
    rig.client.delete(rig.codec.key(idle))
    assert [each.id for each in directory.of(ALICE)] == [living]
    assert index_size(rig) == 2, "the index is written before the session, which may be about to come"
    rig.clock.advance(61)
    assert [each.id for each in directory.of(ALICE)] == [living]
    assert index_size(rig) == 1


def test_listing_makes_nobody_invisible(rig: Rig, directory: Directory) -> None:
    """A list that is read between the entry in the index and the session does not drop the entry."""
    name = digest("1")
    rig.store.index.add(ALICE, name, rig.clock() + ABSOLUTE)
    assert directory.of(ALICE) == []
    rig.store.begin(name, Meta(rig.clock(), rig.clock(), ALICE), token_set(rig.clock), {})
    assert [each.id for each in directory.end_user(ALICE)] == [name]


def test_an_index_of_yesterday(rig: Rig, directory: Directory) -> None:
    """Entries that an earlier version wrote are found, and leave with their sessions."""
    name = begin(rig, "1")
    rig.client.delete(f"test:{{user:{ALICE}}}")
    rig.client.zadd(f"test:{{user:{ALICE}}}", {name: rig.clock() + ABSOLUTE})
    assert [each.id for each in directory.of(ALICE)] == [name]
    assert [each.id for each in directory.end_user(ALICE)] == [name]
    assert index_size(rig) == 0


def test_an_index_entry_proves_nothing(rig: Rig, directory: Directory) -> None:
    """A name in the wrong user's index shows nobody else's session, and ends none by list."""
    name = begin(rig, "1", BOB)
    rig.store.index.add(ALICE, name, rig.clock() + 60)
    assert directory.of(ALICE) == []
    assert list(directory.end(name, user=ALICE)) == []
    assert rig.store.load(name) is not None


def test_indexes_expire_and_are_bounded(rig: Rig) -> None:
    """An index ends with its last session, and sheds what cannot live any more."""
    for number in range(20):
        begin(rig, str(number))
        rig.clock.advance(ABSOLUTE / 4 + 1)
    assert index_size(rig) == 4
    assert rig.client.pttl(f"test:{{user:{ALICE}}}") > 0


def test_index_outlives_slides(rig: Rig, directory: Directory) -> None:
    """A session that is used to its absolute end is listed to its absolute end."""
    name = begin(rig, "1", tokens=token_set(rig.clock, "1", lives=None))
    for _ in range(int(ABSOLUTE / IDLE * 1.25)):
        rig.clock.advance(IDLE * 0.75)
        record = rig.store.load(name)
        assert record is not None
        rig.store.slide(record)
    assert [each.id for each in directory.of(ALICE)] == [name]


def test_sessions_that_do_not_open_hide_no_others(rig: Rig, directory: Directory) -> None:
    """One sealed under a missing key is left out of the user's list, stays where it is, is shown to
    operators, can be ended in each of the ways, and counts."""
    old = begin(rig.with_keys(OTHER_KEY), "old")
    new = begin(rig, "new")
    assert [each.id for each in directory.of(ALICE)] == [new]
    for everything in (list(directory.everybody()), directory.all_of(ALICE)):
        assert {each.id: type(each) for each in everything} == {old: Unreadable, new: Listed}
    both = rig.with_keys(KEY, OTHER_KEY)
    assert len(Directory(both.store, both.store.index).of(ALICE)) == 2
    assert {each.id: each.record is None for each in directory.end_user(ALICE)} == {old: True, new: False}
    assert both.store.load(old) is None
    for user in (ALICE, None):
        old = begin(rig.with_keys(OTHER_KEY), "old")
        assert list(directory.end(old, user=BOB)) == []
        assert list(directory.end(old, user=user)) == [Ended(old, None)]
        assert list(directory.end(old, user=user)) == []


def test_everybody(rig: Rig, directory: Directory) -> None:
    """Operators see all sessions, and nothing that only looks like one."""
    names = {begin(rig, f"{number}", user) for number in range(60) for user in (ALICE, BOB)}
    names |= {begin(rig, f"bob-{number}", BOB) for number in range(60)}
    rig.store.claim_once("state x", 60)
    rig.client.hset("test:{" + "0" * 63 + "}", "m", "x")
    rig.client.hset("other:{" + "0" * 64 + "}", "m", "x")
    rig.client.set(rig.codec.key("f" * 64) + ":lease", "x")
    assert {each.id for each in directory.everybody()} == names
    ended = list(directory.end_everybody())
    assert len(ended) == len(names)
    assert list(directory.everybody()) == []


def test_a_prefix_with_signs_of_patterns(backend: Backend) -> None:
    """A prefix is text, whatever it means to SCAN."""
    from bff.sealing import Keyring
    from bff.sessions.record import Codec
    from bff.sessions.store import SessionStore

    rig = Rig(backend, FakeClock())
    for prefix in ("a*", "a[x]?", "a\\"):
        store = SessionStore(rig.client, Codec(Keyring([KEY]), prefix), rig.lifetime, rig.clock)
        now = rig.clock()
        store.begin(digest(prefix), Meta(now, now, ALICE), token_set(rig.clock), {})
        assert list(store.names()) == [digest(prefix)]


def test_ending_the_others(rig: Rig, directory: Directory) -> None:
    """All but one, with what each held; nobody else's."""
    mine, second, third = (begin(rig, name) for name in ("1", "2", "3"))
    others = begin(rig, "other", BOB)
    assert refresh_tokens(directory.end_others(ALICE, mine)) == {"refresh-2", "refresh-3"}
    assert [rig.store.load(name) is not None for name in (mine, second, third, others)] == [
        True,
        False,
        False,
        True,
    ]


def test_a_cap(rig: Rig, directory: Directory) -> None:
    """The oldest go, the newest stay."""
    names = []
    for name in ("1", "2", "3", "4"):
        names.append(begin(rig, name))
        rig.clock.advance(1)
    assert refresh_tokens(directory.enforce(ALICE, 2)) == {"refresh-1", "refresh-2"}
    assert [each.id for each in directory.of(ALICE)] == names[2:]
    assert list(directory.enforce(ALICE, 2)) == []


def test_a_sign_in_that_failed_counts_for_nobody(rig: Rig, directory: Directory) -> None:
    """Begun and never settled: it is in no list, pushes nobody over the cap, ends with the rest, and is gone
    in a moment; once settled it is a session like any other."""
    names = [begin(rig, name) for name in ("1", "2")]
    now = rig.clock()
    pending = [
        rig.store.begin(digest(name), Meta(now, now, ALICE), token_set(rig.clock, name), {}, pending=True)
        for name in ("3", "4")
    ]
    assert list(directory.enforce(ALICE, 2)) == []
    assert (
        {each.id for each in directory.of(ALICE)} == {each.id for each in directory.everybody()} == {*names}
    )
    for record in pending:
        assert rig.read(rig.codec.session(record.key)) is None
        assert 0 < rig.client.ttl(record.key) <= 30
    assert rig.store.settle(pending[0])
    assert rig.client.ttl(pending[0].key) > IDLE - 5
    assert rig.store.load(digest("3")) == pending[0]
    assert {each.id for each in directory.of(ALICE)} == {*names, digest("3")}
    assert len(list(directory.end_user(ALICE))) == 4
    assert [rig.store.settle(record) for record in pending] == [False, False]
    assert rig.in_redis() == []


def test_a_cap_under_a_rush(rig: Rig, directory: Directory) -> None:
    """Sign-ins at the same instant leave as many sessions as the cap says, and never none."""
    start = threading.Barrier(8)

    def sign_in(number: int) -> None:
        start.wait()
        begin(rig, str(number))
        list(directory.enforce(ALICE, 2))

    threads = [threading.Thread(target=sign_in, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(directory.of(ALICE)) == 2


@pytest.mark.parametrize("lost", ["answer", "both answers"])
def test_a_deletion_whose_answer_was_lost(
    rig: Rig, directory: Directory, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    """It has happened, and says nothing the second time, or is not heard of at all: what the session held is
    given to be revoked all the same, and so is what had ended before."""
    names = [begin(rig, name) for name in ("1", "2", "3")]
    end, seen = rig.store.end, []

    def lossy(name: str, *reason: Reason) -> SessionRecord | None:
        seen.append(name)
        record = end(name, *reason)
        if len(seen) < 2:
            return record
        if lost == "both answers":
            raise StoreUnavailable(reason="Redis: TimeoutError")
        return end(name, *reason)

    monkeypatch.setattr(rig.store, "end", lossy)
    ended: list[Ended] = []
    try:
        ended.extend(directory.end_user(ALICE))
    except StoreUnavailable:
        assert lost == "both answers"
    expected = names[:2] if lost == "both answers" else names
    assert seen == [each.id for each in ended]
    assert len(ended) == len(expected)
    assert all(each.record is not None for each in ended)
    assert len(directory.of(ALICE)) == 3 - len(expected)


# -- the cut-off ------------------------------------------------------------------------------------


class RunningClock(FakeClock):
    """A clock that goes, as Redis's does, and may be wrong."""

    def __call__(self) -> float:
        return time.time() + self.now


@pytest.fixture
def running(backend: Backend) -> Rig:
    return Rig(backend, RunningClock(0.0))


def cut_off(rig: Rig, names: list[str], started_at: float, *, by: Rig | None = None) -> bool:
    """Whether a sign-in that began at that moment of the clock of `by` (this machine, or another) is refused
    by this one."""
    began_at = (by or rig).store.index.redis_clock.at(started_at)
    return rig.store.index.is_cut_off(names, began_at=began_at, started_at=started_at)


@pytest.mark.parametrize("user", [ALICE, EVERYBODY])
@pytest.mark.parametrize("ahead", [0.0, 900.0, -900.0])
@pytest.mark.parametrize("learnt", [True, False])
def test_sign_ins_before_the_cut_off_do_not_count(
    running: Rig, user: str, ahead: float, *, learnt: bool
) -> None:
    """What began before is refused, what begins later is not, however wrong this machine's clock is."""
    running.clock.advance(ahead)
    if learnt:
        running.store.ping()
    before = running.clock()
    time.sleep(0.02)
    assert not cut_off(running, [ALICE], before)
    running.store.index.cut_off(user, 60)
    assert cut_off(running, [ALICE], before)
    assert cut_off(running, [BOB], before) is (user == EVERYBODY)
    time.sleep(0.02)
    assert not cut_off(running, [ALICE], running.clock())


@pytest.mark.parametrize(("begins", "finishes"), [(30.0, 0.0), (-30.0, 0.0), (0.0, 30.0), (900.0, -900.0)])
def test_machines_whose_clocks_differ(backend: Backend, begins: float, finishes: float) -> None:
    """A sign-in that begins on one machine and is finished on another is judged by Redis's clock alone."""
    here, there = Rig(backend, RunningClock(begins)), Rig(backend, RunningClock(finishes))
    here.store.ping()
    before = here.clock()
    time.sleep(0.02)
    there.store.index.cut_off(ALICE, 60)
    time.sleep(0.02)
    assert cut_off(there, [ALICE], before, by=here)
    assert not cut_off(there, [ALICE], here.clock(), by=here)


def test_what_is_known_of_redis_clock(backend: Backend) -> None:
    """Nothing before Redis was asked, and nothing any more when that was long ago; it is asked seldom."""
    rig = Rig(backend, FakeClock())
    clock = rig.store.index.redis_clock
    assert clock.at(rig.clock()) is None

    def now_is_learnt() -> bool:
        """Whether it is asked, and known from then on; Redis and this process are on one machine."""
        before = time.time()
        clock.learn()
        known = clock.at(rig.clock())
        return known is not None and before - 0.1 <= known <= time.time() + 0.1

    assert now_is_learnt()
    known = clock.at(rig.clock())
    assert known is not None
    rig.clock.advance(59)
    clock.learn()
    assert clock.at(rig.clock()) == pytest.approx(known + 59, abs=0.01)
    rig.clock.advance(2)
    assert now_is_learnt()
    rig.clock.advance(601)
    assert clock.at(rig.clock()) is None


def test_a_cut_off_is_forgotten(rig: Rig) -> None:
    """It lies there no longer than a sign-in under way can take."""
    rig.store.index.cut_off(ALICE, 60)
    rig.store.index.cut_off(EVERYBODY, 60)
    for user in (ALICE, EVERYBODY):
        assert 0 < rig.client.ttl(f"test:{{user:{user}}}:cutoff") <= 60


@pytest.mark.parametrize("order", ["write, end, check", "write, check, end", "end, write, check"])
def test_no_sign_in_slips_through(running: Rig, order: str) -> None:
    """However the steps of a sign-in and of ending everything interleave, nothing is left."""
    rig, directory = running, Directory(running.store, running.store.index)
    began_at = rig.clock()
    time.sleep(0.01)
    refused = False
    for step in order.split(", "):
        if step == "write":
            begin(rig, "new")
        elif step == "end":
            list(directory.end_user(ALICE))
        else:
            refused = cut_off(rig, [ALICE], began_at)
    if refused:
        rig.store.end(digest("new"))
    assert directory.of(ALICE) == []
