"""Sign-in attempts in sealed cookies: bound to their name, short-lived, and limited in number and size."""

from __future__ import annotations

import base64

import pytest

from bff.attempts import (
    LIFETIME_SECONDS,
    MAX_ATTEMPTS,
    MAX_TOTAL_BYTES,
    Attempt,
    Attempts,
    cookie_attributes,
)
from bff.sealing import Keyring
from tests.fakes import KEY, OTHER_KEY, FakeClock

CLOCK = FakeClock(1_000_000)
ATTEMPTS = Attempts(Keyring([KEY]), CLOCK, prefix="__Host-bff-")


def attempt(
    state: str = "state-1",
    *,
    started_at: float = 1_000_000,
    return_url: str = "/",
    browser: str = "browser-1",
) -> Attempt:
    """An attempt with telling values."""
    return Attempt(
        state=state,
        nonce="nonce-secret",
        code_verifier="verifier-secret",
        return_url=return_url,
        started_at=started_at,
        expires_at=started_at + LIFETIME_SECONDS,
        browser=browser,
    )


def jar(*attempts: Attempt) -> dict[str, list[str]]:
    """The cookies of a browser that has begun these."""
    return {name: [value] for name, value in map(ATTEMPTS.seal, attempts)}


def test_an_attempt_comes_back() -> None:
    """What the authorization request needs remembered is there at the callback."""
    assert ATTEMPTS.find(jar(attempt()), "state-1") == attempt()


def test_cookie_and_repr_show_nothing() -> None:
    """Neither verifier nor nonce can be read from the cookie or from a log line."""
    name, value = ATTEMPTS.seal(attempt())
    raw = name.encode() + base64.urlsafe_b64decode(value + "=" * (-len(value) % 4)) + value.encode()
    for secret in (b"state-1", b"nonce-secret", b"verifier-secret"):
        assert secret not in raw
    assert repr(attempt()) == "<Attempt>"


def test_name_and_value_are_legal_in_a_cookie() -> None:
    """Browsers and proxies pass on letters, digits, - and _ unharmed, whatever the state was."""
    for state in ("state-1", "", "ü\r\n; =", "\ud800", "x" * 10_000):
        name, value = ATTEMPTS.cookie_name(state), ATTEMPTS.seal(attempt())[1]
        assert all(c.isascii() and (c.isalnum() or c in "-_") for c in name + value)
        assert len(name) < 30


def test_an_attempt_ends_with_its_time() -> None:
    """A cookie that a browser kept too long opens nothing."""
    cookies = jar(attempt())
    clock = FakeClock(1_000_000 + LIFETIME_SECONDS - 0.1)
    later = Attempts(Keyring([KEY]), clock, prefix="__Host-bff-")
    assert later.find(cookies, "state-1") is not None
    clock.advance(0.1)
    assert later.find(cookies, "state-1") is None


def test_an_attempt_under_another_name_is_none() -> None:
    """A cookie moved to another attempt's name (cookie tossing) does not open."""
    _, value = ATTEMPTS.seal(attempt("state-1"))
    moved = {ATTEMPTS.cookie_name("state-2"): [value]}
    assert ATTEMPTS.find(moved, "state-2") is None
    assert ATTEMPTS.find(moved, "state-1") is None
    assert ATTEMPTS.pending(moved) == []


def test_a_cookie_that_comes_twice_counts_as_none() -> None:
    """Which of two came from us cannot be known."""
    name, value = ATTEMPTS.seal(attempt())
    assert ATTEMPTS.find({name: [value, value]}, "state-1") is None
    assert ATTEMPTS.pending({name: [value, value]}) == []


GOOD = ATTEMPTS.seal(attempt())[1]


@pytest.mark.parametrize(
    "value",
    [
        "",
        "x",
        "====",
        "*" * 80,
        "ü" * 80,
        GOOD[:-4],
        "B" + GOOD[1:],
        GOOD + "AAAA",
        '"' + GOOD + '"',
        "A" * 5000,
    ],
)
def test_hostile_cookies_are_no_attempts(value: str) -> None:
    """Anything altered, cut, quoted or endless is none of ours, and no error."""
    assert ATTEMPTS.open(ATTEMPTS.cookie_name("state-1"), value) is None


def test_an_attempt_of_a_removed_key_is_none() -> None:
    """A rotation with the old key gone costs a sign-in under way, not an error."""
    others = Attempts(Keyring([OTHER_KEY]), CLOCK, prefix="__Host-bff-")
    assert others.find(jar(attempt()), "state-1") is None


def test_pending_is_oldest_first() -> None:
    """Attempts come in the order in which they began, other cookies aside."""
    begun = [attempt(f"state-{n}", started_at=1_000_000 - n) for n in (3, 1, 2)]
    cookies = jar(*begun) | {"other": ["x"], "__Host-bff": ["y"]}
    assert [found.state for found in ATTEMPTS.pending(cookies)] == ["state-3", "state-2", "state-1"]


def test_the_thirteenth_attempt_pushes_out_the_oldest() -> None:
    """Twelve at most, so that the browser's Cookie header stays small."""
    begun = [attempt(f"state-{n:02}", started_at=1_000_000 - 100 + n) for n in range(MAX_ATTEMPTS)]
    assert ATTEMPTS.surplus(jar(*begun[1:]), attempt("new")) == []
    assert ATTEMPTS.surplus(jar(*begun), attempt("new")) == [ATTEMPTS.cookie_name("state-00")]


def test_long_return_urls_push_out_more() -> None:
    """All attempts together stay under the limit of bytes, the new one included."""
    begun = [
        attempt(f"state-{n}", started_at=1_000_000 - 10 + n, return_url="/" + "r" * 1500) for n in range(6)
    ]
    cookies, new = jar(*begun), attempt("new", return_url="/" + "r" * 1500)
    dropped = ATTEMPTS.surplus(cookies, new)
    kept = {name: values for name, values in (cookies | jar(new)).items() if name not in dropped}
    assert sum(len(name) + len(values[0]) for name, values in kept.items()) <= MAX_TOTAL_BYTES
    states = [found.state for found in ATTEMPTS.pending(kept)]
    assert len(states) > 1, "there is room for more than the new one"
    assert states == [f"state-{n}" for n in range(7 - len(states), 6)] + ["new"]


def test_unreadable_cookies_of_ours_are_dropped_and_others_left() -> None:
    """Junk under our names does not pile up; what is not ours is not touched."""
    junk = {"__Host-bff-junk": ["x"], "__Host-bff": ["session"], "theirs": ["y"]}
    name, value = ATTEMPTS.seal(attempt())
    cookies = junk | {name: [value, value]}
    assert sorted(ATTEMPTS.surplus(cookies, attempt("new"))) == sorted(["__Host-bff-junk", name])


def test_attempts_that_overlap_share_a_name() -> None:
    """A new attempt takes the name of the newest open one, and a random one where none is open."""
    old, new = attempt("1", browser="old"), attempt("2", started_at=1_000_001, browser="new")
    assert ATTEMPTS.browser(jar(new, old)) == "new"
    names = {ATTEMPTS.browser({}) for _ in range(2)}
    assert len(names) == 2
    assert all(len(name) >= 22 for name in names)


def test_attempts_that_began_at_once_are_found() -> None:
    """Where several began before any had a cookie, all of their names overlap, the finished one's too."""
    first, second = attempt("1", browser="first"), attempt("2", browser="second")
    assert ATTEMPTS.overlapping(jar(first, second), first) == {"first", "second"}
    assert ATTEMPTS.overlapping({}, first) == {"first"}


def test_cookies_are_lax_and_as_secure_as_the_site() -> None:
    """Strict would be withheld from the callback; scripts never see them."""
    assert cookie_attributes(secure=True) == {
        "httponly": True,
        "secure": True,
        "samesite": "Lax",
        "path": "/",
    }
    assert cookie_attributes(secure=False)["secure"] is False
