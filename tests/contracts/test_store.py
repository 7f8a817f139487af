"""What every Redis must do for sessions: one suite for the one in memory and the real one.

Both planes' views are held to the same words: the control plane's SessionStore and the data plane's
SessionReader.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable
from typing import Any, cast

import pytest

from bff.errors import StoreUnavailable
from bff.sessions import lua
from bff.sessions.record import Meta, SessionRecord, digest, new_sid
from bff.sessions.store import Lease, Saved
from bff.tokens import TokenSet
from tests.fakes import (
    ABSOLUTE,
    EMAIL,
    IDLE,
    ISSUER,
    KEY,
    OTHER_KEY,
    SUBJECT,
    Backend,
    FakeClock,
    Rig,
    meta,
    token_set,
)


@pytest.fixture
def rig(backend: Backend) -> Rig:
    """Sessions on that Redis, with a clock to turn."""
    return Rig(backend, FakeClock())


SID = "s" * 43
NAME = digest(SID)


def raw(rig: Rig, key: str) -> dict[bytes, bytes]:
    """A hash as it lies in Redis."""
    return cast("dict[bytes, bytes]", rig.client.hgetall(key))


def load(rig: Rig, sid: str = SID) -> SessionRecord:
    """The live session, which must be there."""
    record = rig.store.load(digest(sid))
    assert record is not None
    return record


def expires_in(rig: Rig, key: str) -> float:
    """Seconds until Redis itself deletes a key, as seen from the fake clock's moment."""
    for _ in range(50):
        before, left = time.time(), rig.client.pttl(key)
        if time.time() - before < 0.2:  # or this machine stood still meanwhile
            break
    return float(before + left / 1000 - rig.clock())


# -- begin and load ---------------------------------------------------------------------------------


def test_what_was_begun_is_loaded(rig: Rig) -> None:
    """The store sees everything, the reader the tokens alone; both the same session."""
    begun = rig.begin(data={"claims": [{"type": "email", "value": EMAIL}], "n": 1, "none": False})
    assert load(rig) == begun
    seen = rig.read(NAME)
    assert seen is not None
    assert seen.data == {}
    assert seen.tokens == begun.tokens
    assert (seen.key, seen.meta, seen.generation, seen.last_seen) == (begun.key, begun.meta, 1, rig.clock())


def test_an_unknown_session_is_none(rig: Rig) -> None:
    """Nothing there is not an error."""
    assert rig.store.load(NAME) is None
    assert rig.read(NAME) is None


def test_beginning_again_leaves_nothing_of_before(rig: Rig) -> None:
    """A digest that was taken, which cannot happen by chance, does not mix two sessions."""
    rig.begin(data={"old": 1})
    rig.begin(data={"new": 1})
    assert load(rig).data == {"new": 1}


def test_redis_expires_a_session_with_its_idle_time(rig: Rig) -> None:
    """Nobody has to sweep: every session has an expiry in Redis."""
    record = rig.begin()
    assert expires_in(rig, record.key) == pytest.approx(IDLE, abs=1)


@pytest.mark.parametrize(
    ("more", "seconds"),
    [
        ({"refresh_token": None}, 300),
        ({"refresh_in": 900}, 900),
        ({"refresh_in": 1e6}, IDLE),
    ],
)
def test_a_session_ends_with_what_can_renew_it(rig: Rig, more: dict[str, Any], seconds: float) -> None:
    """RFC 10017 §6.1, by our clock and by Redis's."""
    if "refresh_in" in more:
        more = {"refresh_expires_at": rig.clock() + more["refresh_in"]}
    record = rig.begin(tokens=token_set(rig.clock, **more))
    assert expires_in(rig, record.key) == pytest.approx(seconds, abs=1)
    rig.clock.advance(seconds - 0.01)
    assert rig.read(NAME) is not None
    rig.clock.advance(0.01)
    assert rig.store.load(NAME) is None
    assert rig.read(NAME) is None


# -- slide and expiry -------------------------------------------------------------------------------


def test_idle_expiry_slides(rig: Rig) -> None:
    """Each visit begins the idle time anew; without one the session ends, for both planes."""
    rig.begin()
    for _ in range(3):
        rig.clock.advance(IDLE - 1)
        end = rig.store.slide(load(rig))
        assert end == rig.clock() + IDLE
        assert expires_in(rig, load(rig).key) == pytest.approx(IDLE, abs=1)
    rig.clock.advance(IDLE)
    assert rig.store.load(NAME) is None
    assert rig.read(NAME) is None


def test_absolute_expiry_does_not_slide(rig: Rig) -> None:
    """However busy, a session ends with its absolute lifetime."""
    record = rig.begin()
    while rig.clock() + IDLE < record.meta.created + ABSOLUTE:
        rig.clock.advance(IDLE - 1)
        end = rig.store.slide(load(rig))
    assert end == record.meta.created + ABSOLUTE
    rig.clock.now = end - 0.01
    assert rig.read(NAME) is not None
    rig.clock.now = end
    assert rig.store.load(NAME) is None
    assert rig.read(NAME) is None


def test_the_data_planes_slide_is_written_seldom(rig: Rig) -> None:
    """Nothing within a minute; then the same slide as the control plane's."""
    record = rig.begin()
    rig.clock.advance(59)
    rig.slide_if_due(record)
    assert load(rig).last_seen == record.last_seen
    rig.clock.advance(1)
    rig.slide_if_due(record)
    assert load(rig).last_seen == rig.clock()
    assert expires_in(rig, record.key) == pytest.approx(IDLE, abs=1)


def test_a_late_slide_does_not_shorten_a_session(rig: Rig) -> None:
    """Of two slides that overtake each other the later moment counts, in the field and in the expiry."""
    record = rig.begin()
    early, now = rig.clock() + 10, rig.clock() + 100
    rig.clock.now = now
    rig.store.slide(record)
    rig.clock.now = early
    rig.store.slide(record)
    rig.clock.now = now
    assert load(rig).last_seen == now
    assert expires_in(rig, record.key) == pytest.approx(IDLE, abs=1)


@pytest.mark.parametrize("how", ["slide", "slide_if_due"])
def test_a_late_slide_does_not_end_a_refreshed_session(rig: Rig, how: str) -> None:
    """Who read before a refresh knows an earlier end of the refresh token: the new one counts."""
    old = rig.begin(tokens=token_set(rig.clock, refresh_expires_at=rig.clock() + 90))
    rig.store.save_tokens(old, token_set(rig.clock, "2", refresh_expires_at=rig.clock() + 900))
    rig.clock.advance(61)
    if how == "slide":
        rig.store.slide(old)
    else:
        rig.slide_if_due(old)
    assert load(rig).last_seen == rig.clock()
    assert rig.client.pttl(old.key) / 1000 == pytest.approx(900, abs=5)


def test_a_late_slide_counts_as_a_visit(rig: Rig) -> None:
    """The idle time begins anew, whichever tokens the visitor has read."""
    old = rig.begin()
    rig.store.save_tokens(old, token_set(rig.clock, "2"))
    rig.clock.advance(IDLE - 10)
    rig.store.slide(old)
    assert expires_in(rig, old.key) == pytest.approx(IDLE, abs=1)


def test_a_slide_never_rolls_tokens_back(rig: Rig) -> None:
    """A request that read before a refresh slides after it: the new tokens stay."""
    old = rig.begin()
    rig.store.save_tokens(old, token_set(rig.clock, "2"))
    rig.clock.advance(100)
    rig.store.slide(old)
    rig.slide_if_due(old)
    assert (load(rig).tokens.access_token, load(rig).generation) == ("access-2", 2)


# -- data -------------------------------------------------------------------------------------------


def test_data_is_changed_field_by_field(rig: Rig) -> None:
    """Set, replaced and removed keys; the others, and the tokens, stay as they are."""
    record = rig.begin(data={"a": 1, "b": 1, "c": 1})
    before = raw(rig, record.key)
    assert rig.store.save_data(record, {"a": 2, "b": None, "d": [EMAIL]})
    after = raw(rig, record.key)
    assert load(rig).data == {"a": 2, "c": 1, "d": [EMAIL]}
    assert {f: after[f] for f in (b"m", b"s", b"g", b"t", b"d:c")} == {
        f: before[f] for f in (b"m", b"s", b"g", b"t", b"d:c")
    }
    assert rig.store.save_data(record, {})


# -- tokens -----------------------------------------------------------------------------------------


def test_tokens_are_saved_by_generation(rig: Rig) -> None:
    """The first save of a generation wins; whoever comes with an old one is told so."""
    record = rig.begin()
    assert rig.store.save_tokens(record, token_set(rig.clock, "2")) is Saved.SAVED
    assert rig.store.save_tokens(record, token_set(rig.clock, "x")) is Saved.NEWER
    newer = load(rig)
    assert (newer.generation, newer.tokens.access_token) == (2, "access-2")
    assert rig.store.save_tokens(newer, token_set(rig.clock, "3")) is Saved.SAVED
    seen = rig.read(NAME)
    assert seen is not None
    assert (seen.generation, seen.tokens.access_token) == (3, "access-3")


def test_a_save_that_is_sent_twice(rig: Rig) -> None:
    """Where the answer was lost and the client asks again, it hears the same; others are told that they are
    late."""
    record = rig.begin()
    sealed = rig.codec.seal_tokens(record.key, record.head, token_set(rig.clock, "2"))
    for _ in range(2):
        args: list[str | int | bytes] = [1, sealed, repr(IDLE), repr(rig.clock() + IDLE)]
        assert lua.SAVE_TOKENS.run(rig.client, [record.key], args) == b"saved"
    assert load(rig).generation == 2
    assert rig.store.save_tokens(record, token_set(rig.clock, "x")) is Saved.NEWER


def test_generations_go_on_past_ten(rig: Rig) -> None:
    """They are numbers and not texts: 10 comes after 9."""
    record = rig.begin()
    for generation in range(2, 13):
        assert rig.store.save_tokens(load(rig), token_set(rig.clock, str(generation))) is Saved.SAVED
    assert load(rig).generation == 12
    assert raw(rig, record.key)[b"g"] == b"12"


def test_saving_tokens_changes_nothing_else(rig: Rig) -> None:
    """Neither the idle time nor the data: a refresh is nobody's visit."""
    record = rig.begin(data={"a": 1})
    rig.clock.advance(500)
    rig.store.save_tokens(record, token_set(rig.clock, "2"))
    assert load(rig).last_seen == record.last_seen
    assert load(rig).data == {"a": 1}
    assert expires_in(rig, record.key) == pytest.approx(IDLE - 500, abs=1)


def test_a_save_that_reaches_redis_twice_says_the_same(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client repeats what went unanswered: the tokens have been saved, and by nobody else."""
    record, run = rig.begin(), rig.store.lasting.run

    def twice(*arguments: Any) -> Any:
        run(*arguments)
        return run(*arguments)

    monkeypatch.setattr(rig.store.lasting, "run", twice)
    assert rig.store.save_tokens(record, token_set(rig.clock, "2")) is Saved.SAVED
    assert load(rig).generation == 2


# -- end --------------------------------------------------------------------------------------------

Write = Callable[[Rig, SessionRecord], object]
WRITES: dict[str, tuple[Write, object]] = {
    "save_data": (lambda rig, record: rig.store.save_data(record, {"a": 2}), False),
    "save_nothing": (lambda rig, record: rig.store.save_data(record, {}), False),
    "save_tokens": (lambda rig, record: rig.store.save_tokens(record, record.tokens), Saved.GONE),
    "slide": (lambda rig, record: rig.store.slide(record) and None, None),
    "slide_if_due": (lambda rig, record: rig.slide_if_due(record), None),
    "lease": (lambda rig, record: rig.store.lease(record, "me", 10), Lease.GONE),
    "release": (lambda rig, record: rig.store.release(record, "me", 10), None),
    "end_if_current": (lambda rig, record: rig.store.end_if_current(record), False),
}


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("how", ["end", "end_if_current", "expired"])
def test_nothing_brings_an_ended_session_back(rig: Rig, write: str, how: str) -> None:
    """A slow request, a late slide, a refresh that comes home: nothing is written where the hash is gone."""
    record = rig.begin(data={"a": 1})
    rig.store.lease(record, "me", 10)
    if how == "end":
        rig.store.end(NAME)
    elif how == "end_if_current":
        assert rig.store.end_if_current(record)
    else:
        rig.client.delete(record.key, record.key + ":lease")
    rig.clock.advance(100)
    call, answer = WRITES[write]
    assert call(rig, record) == answer
    assert rig.in_redis() == []


def test_ending_gives_back_what_was_held(rig: Rig) -> None:
    """The tokens, for revocation; the second time there is nothing, and that is no error."""
    record = rig.begin(data={"a": 1})
    assert rig.store.end(NAME) == record
    assert rig.store.end(NAME) is None
    assert rig.store.load(NAME) is None
    assert rig.read(NAME) is None


def test_an_expired_session_is_still_given_back_for_revocation(rig: Rig) -> None:
    """Over by our clock, not yet deleted by Redis: signing out can still revoke its tokens."""
    record = rig.begin()
    rig.clock.advance(IDLE)
    assert rig.store.load(NAME) is None
    assert rig.store.end(NAME) == record


def test_a_refresh_ends_only_the_generation_that_was_refused(rig: Rig) -> None:
    """`invalid_grant` for tokens that have been replaced meanwhile ends nothing."""
    old = rig.begin()
    rig.store.save_tokens(old, token_set(rig.clock, "2"))
    assert not rig.store.end_if_current(old)
    assert rig.store.end_if_current(load(rig))
    assert rig.in_redis() == []


def test_one_session_ends_and_the_others_live_on(rig: Rig) -> None:
    """Each is an island."""
    rig.begin(SID)
    other = rig.begin("o" * 43)
    rig.store.end(NAME)
    assert load(rig, "o" * 43) == other


# -- lease ------------------------------------------------------------------------------------------


def test_one_owner_at_a_time(rig: Rig) -> None:
    """The first gets the lease, asks again and still has it; the others are told that it is held."""
    record = rig.begin()
    assert rig.store.lease(record, "me", 10) is Lease.YOURS
    assert rig.store.lease(record, "me", 10) is Lease.YOURS
    assert rig.store.lease(record, "you", 10) is Lease.HELD
    rig.store.release(record, "me")
    assert rig.store.lease(record, "you", 10) is Lease.YOURS


def test_a_lease_that_is_asked_for_again_lasts_from_then_on(rig: Rig) -> None:
    """Its owner relies on the time that it asked for."""
    record = rig.begin()
    rig.store.lease(record, "me", 1)
    rig.store.lease(record, "me", 60)
    assert 50 < rig.client.pttl(record.key + ":lease") / 1000 <= 60


def test_only_its_owner_releases_a_lease(rig: Rig) -> None:
    """A late process whose lease ran out does not release the next one's."""
    record = rig.begin()
    rig.store.lease(record, "you", 10)
    rig.store.release(record, "me", 10)
    assert rig.store.lease(record, "you", 10) is Lease.YOURS
    assert rig.store.lease(record, "me", 10) is Lease.HELD


def run_out(rig: Rig, record: SessionRecord, seconds: float) -> None:
    """As if what Redis holds of a lease, for so many seconds, were over by itself."""
    assert seconds - 10 < rig.client.pttl(record.key + ":lease") / 1000 <= seconds
    rig.client.delete(record.key + ":lease")


def test_after_a_release_there_can_be_a_pause(rig: Rig) -> None:
    """Nobody gets the lease, the former owner neither; then the next one does."""
    record = rig.begin()
    rig.store.lease(record, "me", 10)
    rig.store.release(record, "me", 30)
    assert rig.store.lease(record, "you", 10) is Lease.PAUSE
    assert rig.store.lease(record, "me", 10) is Lease.PAUSE
    rig.store.release(record, "you")
    assert rig.store.lease(record, "you", 10) is Lease.PAUSE
    run_out(rig, record, 30)
    assert rig.store.lease(record, "you", 10) is Lease.YOURS


def test_nobody_is_called_pause(rig: Rig) -> None:
    """A pause has no owner that could release it."""
    record = rig.begin()
    rig.store.lease(record, "me", 10)
    rig.store.release(record, "me", 30)
    assert 20 < rig.client.pttl(record.key + ":lease") / 1000 <= 30


def test_a_lease_runs_out(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that died does not hold it for ever; one that is only cut off gets a moment to save."""
    monkeypatch.setattr("bff.sessions.store.ANSWERED_SECONDS", 15)
    record = rig.begin()
    assert rig.store.lease(record, "dead", 30) is Lease.YOURS
    assert rig.store.lease(record, "me", 10) is Lease.HELD
    run_out(rig, record, 30)
    assert rig.store.lease(record, "me", 10) is Lease.HELD, "its redeem may have been answered"
    assert rig.store.lease(record, "you", 10) is Lease.HELD
    run_out(rig, record, 15)
    assert rig.store.lease(record, "me", 10) is Lease.YOURS
    assert rig.store.lease(record, "you", 10) is Lease.HELD


def test_a_lease_that_was_given_back_is_free_at_once(rig: Rig) -> None:
    """Who knows that its redeem has failed says so: nobody waits for an answer that will not come."""
    record = rig.begin()
    rig.store.lease(record, "one", 10)
    rig.store.release(record, "one")
    assert rig.store.lease(record, "two", 10) is Lease.YOURS


def test_a_late_save_counts(rig: Rig) -> None:
    """What a process that was cut off saves in its moment is what the others go on with."""
    record = rig.begin()
    rig.store.lease(record, "cut off", 30)
    run_out(rig, record, 30)
    assert rig.store.lease(record, "me", 10) is Lease.HELD
    assert rig.store.save_tokens(record, token_set(rig.clock, "2")) is Saved.SAVED
    assert rig.store.lease(record, "me", 10) is Lease.NEWER


def test_a_lease_is_kept_by_its_owner(rig: Rig) -> None:
    """The owner may prolong it, and nobody else; one that is gone is not taken anew in this way."""
    record = rig.begin()

    def renew(owner: str) -> float:
        async def ask() -> None:
            reader = rig.reader()
            try:
                await reader.renew(record.key, owner, 60)
            finally:
                await reader.close()

        asyncio.run(ask())
        return float(rig.client.pttl(record.key + ":lease")) / 1000

    rig.store.lease(record, "me", 10)
    assert renew("you") <= 10
    assert 59 < renew("me") <= 60
    rig.store.release(record, "me")
    assert renew("me") < 0


def test_a_lease_is_for_one_generation(rig: Rig) -> None:
    """Who comes with replaced tokens learns that there are newer ones, even while a lease is held."""
    old = rig.begin()
    rig.store.lease(old, "me", 10)
    rig.store.save_tokens(old, token_set(rig.clock, "2"))
    assert rig.store.lease(old, "you", 10) is Lease.NEWER
    assert rig.store.lease(load(rig), "you", 10) is Lease.HELD


def test_leases_of_two_sessions_are_two(rig: Rig) -> None:
    """One user's slow refresh holds nobody else up."""
    one, two = rig.begin(SID), rig.begin("o" * 43)
    assert rig.store.lease(one, "me", 10) is Lease.YOURS
    assert rig.store.lease(two, "you", 10) is Lease.YOURS


# -- claims -----------------------------------------------------------------------------------------


def test_a_name_is_claimed_once(rig: Rig) -> None:
    """The first caller gets it, nobody after it, and another name is free."""
    assert rig.store.claim_once("state x", 60)
    assert not rig.store.claim_once("state x", 60)
    assert rig.store.claim_once("state y", 60)
    keys = rig.in_redis()
    assert len(keys) == 2
    assert all(0 < rig.client.ttl(key) <= 60 for key in keys)


def test_of_overlapping_sign_ins_one_is_last(rig: Rig) -> None:
    """Each session learns of those before it in any of its lines; asked again, it learns the same."""
    lines = {"a", "b"}
    assert rig.store.overtake("one", lines, 60) == set()
    assert rig.store.overtake("two", {"b", "c"}, 60) == {"one"}
    assert rig.store.overtake("three", {"c"}, 60) == {"two"}
    assert rig.store.overtake("one", lines, 60) == set()
    assert rig.store.overtake("two", {"b", "c"}, 60) == {"one"}
    assert rig.store.overtake("four", lines, 60) == {"one", "two"}
    assert rig.store.overtake("five", {"another"}, 60) == set()
    keys = rig.in_redis()
    assert all(0 < rig.client.ttl(key) <= 60 for key in keys)


def test_a_line_is_bounded(rig: Rig) -> None:
    """However often a browser signs in, its line keeps the last hundred; those before have been ended."""
    for number in range(150):
        earlier = rig.store.overtake(str(number), {"x"}, 60)
        assert len(earlier) == min(number, 100)
        assert number == 0 or str(number - 1) in earlier
    assert rig.client.llen(rig.codec.key("overlaps") + ":x") == 100


def test_sign_ins_at_the_same_instant_leave_one(rig: Rig) -> None:
    """Of many threads that end whom they overtake, exactly one session is left."""
    names = [digest(f"{number}") for number in range(12)]
    for name in names:
        rig.store.begin(name, meta(rig.clock), token_set(rig.clock), {})
    start = threading.Barrier(len(names))

    def finish(name: str) -> None:
        start.wait()
        for earlier in rig.store.overtake(name, {"x", f"own-{name}"}, 60):
            rig.store.end(earlier)

    threads = [threading.Thread(target=finish, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert sum(rig.store.load(name) is not None for name in names) == 1


# -- trouble ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", [b"t", b"d:a"])
@pytest.mark.parametrize("source", ["other session", "other field", "rolled back metadata"])
def test_swapped_ciphertexts_do_not_open(rig: Rig, field: bytes, source: str) -> None:
    """Moved between sessions or fields, or under other metadata, a seal opens for nobody."""
    mine, other = rig.begin(SID, data={"a": 1, "b": 1}), rig.begin("o" * 43, data={"a": 1})
    if source == "other session":
        rig.client.hset(mine.key, field, raw(rig, other.key)[field])
    elif source == "other field":
        rig.client.hset(mine.key, field, raw(rig, mine.key)[b"d:b"])
    else:
        forged = json.dumps({"created": rig.clock() + 1e6, "auth_time": 0, "user": mine.meta.user})
        rig.client.hset(mine.key, "m", forged)
    with pytest.raises(StoreUnavailable):
        rig.store.load(NAME)
    if field == b"t" or source == "rolled back metadata":
        with pytest.raises(StoreUnavailable):
            rig.read(NAME)
    assert load(rig, "o" * 43) == other


def test_keys_rotate(rig: Rig) -> None:
    """With a new key in front, old sessions open and what is written is sealed by the new one."""
    rig.begin(data={"a": 1})
    rotated = rig.with_keys(OTHER_KEY, KEY)
    record = load(rotated)
    rotated.store.save_tokens(record, token_set(rig.clock, "2"))
    rotated.store.save_data(record, {"a": 2})
    later = load(rig.with_keys(OTHER_KEY))
    assert (later.tokens.access_token, later.data) == ("access-2", {"a": 2})


def test_a_missing_key_is_unavailable_and_heals(rig: Rig) -> None:
    """503 and not a sign-out: nothing is deleted, and putting the key back is all it takes."""
    record = rig.begin(data={"a": 1})
    before = raw(rig, record.key)
    without = rig.with_keys(OTHER_KEY)
    with pytest.raises(StoreUnavailable):
        without.store.load(NAME)
    with pytest.raises(StoreUnavailable):
        without.read(NAME)
    assert raw(rig, record.key) == before
    assert load(rig) == record


def test_signing_out_works_without_the_key(rig: Rig) -> None:
    """The tokens cannot be read for revocation, but the session ends."""
    rig.begin()
    assert rig.with_keys(OTHER_KEY).store.end(NAME) is None
    assert rig.in_redis() == []


WRONG: list[tuple[str, Callable[[Rig, str], object]]] = [
    ("string", lambda rig, key: rig.client.set(key, "x")),
    ("list", lambda rig, key: rig.client.lpush(key, "x")),
    ("set", lambda rig, key: rig.client.sadd(key, "x")),
]


@pytest.mark.parametrize("put", [put for _, put in WRONG], ids=[name for name, _ in WRONG])
def test_a_key_of_another_type_is_unavailable(rig: Rig, put: Callable[[Rig, str], object]) -> None:
    """Somebody else's key under our prefix is a 503 and a line in the log, not a crash."""
    record = rig.begin()
    rig.client.delete(record.key)
    put(rig, record.key)
    rig.clock.advance(100)
    calls: list[Callable[[], object]] = [
        lambda: rig.store.load(NAME),
        lambda: rig.read(NAME),
        lambda: rig.store.end(NAME),
        lambda: rig.store.slide(record),
        lambda: rig.slide_if_due(record),
        lambda: rig.store.save_data(record, {"a": 1}),
        lambda: rig.store.save_tokens(record, record.tokens),
        lambda: rig.store.lease(record, "me", 1),
        lambda: rig.store.end_if_current(record),
    ]
    for call in calls:
        with pytest.raises(StoreUnavailable) as caught:
            call()
        assert caught.value.reason.startswith("Redis: ")
    assert rig.client.exists(record.key)


def test_a_hash_that_is_not_ours_is_none_or_unavailable(rig: Rig) -> None:
    """A hash without our fields opens nothing."""
    record = rig.begin()
    rig.client.delete(record.key)
    rig.client.hset(record.key, "name", "x")
    assert rig.store.load(NAME) is None
    assert rig.read(NAME) is None


def test_ping_takes_a_write(rig: Rig) -> None:
    """Readiness means that sessions can be written, and its key goes by itself."""
    rig.store.ping()
    (key,) = rig.in_redis()
    assert 0 < rig.client.ttl(key) <= 60


# -- what a thief of the dump sees ------------------------------------------------------------------


def test_nothing_is_readable_in_redis(rig: Rig) -> None:
    """No token, cookie, e-mail, subject or issuer in any key or value, after a session's whole life."""
    sid = new_sid()
    tokens = token_set(rig.clock, id_token="id-token-1", scope="api://weather/access")
    record = rig.begin(sid, tokens, {"claims": [{"type": "email", "value": EMAIL}], "hint": SUBJECT})
    rig.store.lease(record, "me", 10)
    rig.store.save_tokens(record, token_set(rig.clock, "2"))
    rig.store.save_data(record, {"hint": EMAIL})
    rig.clock.advance(100)
    rig.store.slide(record)
    rig.store.claim_once("state x", 60)
    dump = b""
    for key in rig.in_redis():
        dump += key
        if rig.client.type(key) == b"hash":
            dump += b"".join(name + value for name, value in raw(rig, key.decode()).items())
        else:
            dump += cast("bytes", rig.client.get(key))
    assert record.key.encode() in dump
    secrets = [sid, EMAIL, "alice", SUBJECT, ISSUER, "access-", "refresh-", "id-token", "api://weather"]
    for secret in [*secrets, KEY.hex()]:
        assert secret.encode() not in dump
    assert KEY not in dump


# -- yesterday's records ----------------------------------------------------------------------------

GOLDEN = {
    "m": (
        "94cb41dad27480000000cb41dad2747d800000d92b757575757575757575757575757575757575757575757575757575"
        "7575757575757575757575757575757591d9406364636463646364636463646364636463646364636463646364636463"
        "6463646364636463646364636463646364636463646364636463646364636463646364"
    ),
    "s": "313830303030303030302e30",
    "g": "37",
    "t": (
        "010c93b8b434ffc0c89325e7de83e4a9ca766bd81f871b98e7c144c17ed136f3fa2ca30abbdfed6ec76f302ad2dacb14"
        "0f907546baa29b45cd8a5d94162277e647460e7ddfc1a2d0d698cd239b38cbb133985c1ade7d765adc46ad73a4791ae4"
        "ea8596f44007cd304de75f671f56a7b63f360181a6364b0b6767ed50ad"
    ),
    "d:who": (
        "010c93b8b4f8971b565968d5c7655b411410c2b0ab10ca52ee27d64af364ac27317f6e1c07cb07d69ac67c937c9f9763"
        "7b4bee8b48bed481be64ea2fa939291a1ff310a396c160fc62fb83e0ced59f4585be14fb276a3c"
    ),
}


def test_a_record_of_the_first_version_still_opens(rig: Rig) -> None:
    """A change of format, fields or key derivation would sign everybody out: it must not go unseen."""
    key = rig.codec.key(NAME)
    for field, value in GOLDEN.items():
        rig.client.hset(key, field, bytes.fromhex(value))
    rig.clock.now = 1_800_000_100.0
    assert load(rig) == SessionRecord(
        key=key,
        head=bytes.fromhex(GOLDEN["m"]),
        meta=Meta(1_800_000_000.0, 1_799_999_990.0, "u" * 43, ("cd" * 32,)),
        last_seen=1_800_000_000.0,
        generation=7,
        tokens=TokenSet(
            access_token="Z29s.ZGVu.YWNjZXNz",
            obtained_at=1_800_000_000.0,
            expires_at=1_800_000_300.0,
            refresh_token="golden-refresh!",
            refresh_expires_at=1_800_086_400.0,
            id_token="Z29sZGVu.aWQ.eA",
            scope="openid email",
        ),
        data={"who": {"claims": [{"type": "sub", "value": "golden"}], "hint": "golden@example.com"}},
    )


def test_saved_tokens_move_the_end(rig: Rig) -> None:
    """A refresh token that is renewed lets the session live on, in Redis as well; a shorter one does not."""
    record = rig.begin(tokens=token_set(rig.clock, refresh_expires_at=rig.clock() + 30))
    longer = token_set(rig.clock, refresh_expires_at=rig.clock() + 900)
    assert rig.store.save_tokens(record, longer) is Saved.SAVED
    assert expires_in(rig, record.key) == pytest.approx(900, abs=1)
    shorter = token_set(rig.clock, refresh_expires_at=rig.clock() + 60)
    assert rig.store.save_tokens(load(rig), shorter) is Saved.SAVED
    assert expires_in(rig, record.key) == pytest.approx(60, abs=1)
