"""Indexes, cut-offs and the ends of many sessions, on every kind of Redis."""

from __future__ import annotations

import threading
import time

import pytest

from bff.sessions.directory import Directory
from bff.sessions.index import EVERYBODY
from bff.sessions.record import Meta, digest
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
    assert index_size(rig) == 1


def test_an_index_entry_proves_nothing(rig: Rig, directory: Directory) -> None:
    """A name in the wrong user's index shows nobody else's session, and ends none by list."""
    name = begin(rig, "1", BOB)
    rig.store.index.add(ALICE, name, rig.clock() + 60)
    assert directory.of(ALICE) == []
    assert directory.end(name, user=ALICE) is None
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
    """One sealed under a missing key is left out of lists, stays where it is, and can be ended."""
    old = begin(rig.with_keys(OTHER_KEY), "old")
    new = begin(rig, "new")
    assert [each.id for each in directory.of(ALICE)] == [new]
    assert [each.id for each in directory.everybody()] == [new]
    both = rig.with_keys(KEY, OTHER_KEY)
    assert len(Directory(both.store, both.store.index).of(ALICE)) == 2
    directory.end_user(ALICE)
    assert both.store.load(old) is None


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
    ended = directory.end_others(ALICE, mine)
    assert {record.tokens.refresh_token for record in ended} == {"refresh-2", "refresh-3"}
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
    assert [record.tokens.access_token for record in directory.enforce(ALICE, 2)] == ["access-1", "access-2"]
    assert [each.id for each in directory.of(ALICE)] == names[2:]
    assert directory.enforce(ALICE, 2) == []


def test_a_cap_under_a_rush(rig: Rig, directory: Directory) -> None:
    """Sign-ins at the same instant leave as many sessions as the cap says, and never none."""
    start = threading.Barrier(8)

    def sign_in(number: int) -> None:
        start.wait()
        begin(rig, str(number))
        directory.enforce(ALICE, 2)

    threads = [threading.Thread(target=sign_in, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(directory.of(ALICE)) == 2


# -- the cut-off ------------------------------------------------------------------------------------


class RunningClock(FakeClock):
    """A clock that goes, as Redis's does, and may be wrong."""

    def __call__(self) -> float:
        return time.time() + self.now


@pytest.fixture
def running(backend: Backend) -> Rig:
    return Rig(backend, RunningClock(0.0))


@pytest.mark.parametrize("user", [ALICE, EVERYBODY])
@pytest.mark.parametrize("ahead", [0.0, 900.0, -900.0])
def test_sign_ins_before_the_cut_off_do_not_count(running: Rig, user: str, ahead: float) -> None:
    """What began before is refused, what begins later is not, however wrong this machine's clock is."""
    running.clock.advance(ahead)
    index, before = running.store.index, running.clock()
    time.sleep(0.02)
    assert not index.is_cut_off([ALICE], before)
    index.cut_off(user, 60)
    assert index.is_cut_off([ALICE], before)
    assert index.is_cut_off([BOB], before) is (user == EVERYBODY)
    time.sleep(0.02)
    assert not index.is_cut_off([ALICE], running.clock())


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
            directory.end_user(ALICE)
        else:
            refused = rig.store.index.is_cut_off([ALICE], began_at)
    if refused:
        rig.store.end(digest("new"))
    assert directory.of(ALICE) == []
