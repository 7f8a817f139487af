"""When a token is usable, due, dead, and when its session ends: pure arithmetic with sharp edges."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bff.tokens import TokenSet, Usable, judge, pause_after_refresh


def tokens(
    *,
    expires_at: float | None = 1300,
    refresh: str | None = "refresh-secret",
    refresh_expires_at: float | None = None,
) -> TokenSet:
    """A token set obtained at 1000 for 300 seconds."""
    return TokenSet(
        access_token="access-secret",
        obtained_at=1000,
        expires_at=expires_at,
        refresh_token=refresh,
        refresh_expires_at=refresh_expires_at,
        id_token="id-secret",
    )


def test_repr_shows_no_token() -> None:
    """A token set in a log line or a traceback gives nothing away."""
    for shown in (repr(tokens()), str(tokens()), repr(Usable(tokens())), f"{[tokens()]}"):
        assert "secret" not in shown


@pytest.mark.parametrize(
    ("now", "expected"),
    [(1000, "fine"), (1239.9, "fine"), (1240, "due"), (1299.9, "due"), (1300, "dead"), (9999, "dead")],
)
def test_judgement_over_time(now: float, expected: str) -> None:
    """Fine, then due inside the leeway of 60 s, then dead at the very second of the expiry."""
    verdict = judge(tokens(), now, 60, 0)
    assert ("dead" if verdict is None else "due" if verdict.due else "fine") == expected


@pytest.mark.parametrize(
    ("lifetime", "leeway", "jitter", "due_after"),
    [
        (300, 60, 0, 240),
        (300, 60, 1, 246),  # a tenth of the leeway later
        (300, 0, 0, 300),
        (60, 60, 0, 30),  # never more than half of the lifetime ahead
        (60, 600, 1, 33),
        (2, 60, 0, 1),
    ],
)
def test_refresh_is_due_late_enough(lifetime: float, leeway: float, jitter: float, due_after: float) -> None:
    """The leeway, or half of a shorter lifetime, and jitter that only makes it later."""
    at = tokens(expires_at=1000 + lifetime).refresh_due_at(leeway, jitter)
    assert at == pytest.approx(1000 + due_after)


@given(st.floats(1, 1e6), st.floats(0, 1e6), st.floats(0, 1), st.floats(0, 2e6))
def test_a_due_token_is_always_usable_and_young_ones_are_never_due(
    lifetime: float, leeway: float, jitter: float, age: float
) -> None:
    """In the first half of its life no token is due; due comes before dead, never with it."""
    verdict = judge(tokens(expires_at=1000 + lifetime), 1000 + age, leeway, jitter)
    if verdict is None:
        assert 1000 + age >= 1000 + lifetime
    elif verdict.due:
        assert age >= lifetime / 2 - 1e-6


@pytest.mark.parametrize(
    ("token_set", "now"),
    [(tokens(expires_at=None), 1e9), (tokens(refresh=None), 1299.0)],
    ids=["no expires_in", "no refresh token"],
)
def test_nothing_is_due_where_there_is_no_time_or_nothing_to_renew(token_set: TokenSet, now: float) -> None:
    """Without expires_in a token counts as good; without a refresh token nothing is worth trying."""
    assert judge(token_set, now, 60, 0) == Usable(token_set, due=False)


@pytest.mark.parametrize(
    ("token_set", "end"),
    [
        (tokens(), None),
        (tokens(refresh_expires_at=5000), 5000),
        (tokens(refresh=None), 1300),
        (tokens(refresh=None, refresh_expires_at=5000), 1300),
        (tokens(refresh=None, expires_at=None), None),
    ],
)
def test_a_session_ends_when_nothing_can_renew_its_token(token_set: TokenSet, end: float | None) -> None:
    """With the refresh token (RFC 10017 §6.1), or with the access token where there is none."""
    assert token_set.ends_at() == end


@pytest.mark.parametrize(
    ("expires_at", "pause"),
    [(None, 5), (1300, 5), (1020, 5), (1010, 2.5), (1003, 1), (1000, 1), (900, 1)],
)
def test_pause_between_refreshes(expires_at: float | None, pause: float) -> None:
    """Five seconds, or a quarter of a shorter life, and never less than one: `expires_in: 0` is hammered by
    nobody."""
    assert pause_after_refresh(tokens(expires_at=expires_at)) == pause
