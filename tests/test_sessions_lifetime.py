"""How long a session lives: idle, absolute, and no longer than its tokens can be renewed."""

from __future__ import annotations

import pytest

from bff.sessions.lifetime import Lifetime
from bff.sessions.record import Meta, SessionRecord
from bff.tokens import TokenSet

LIFETIME = Lifetime(idle=1800, absolute=28800)


def session(
    *, last_seen: float = 0, refresh: bool = True, refresh_expires_at: float | None = None
) -> SessionRecord:
    """A session that began at 0 with an access token for 300 s."""
    tokens = TokenSet(
        access_token="a",
        obtained_at=0,
        expires_at=300,
        refresh_token="r" if refresh else None,
        refresh_expires_at=refresh_expires_at,
    )
    return SessionRecord("key", b"", Meta(created=0, auth_time=0, user="u"), last_seen, 1, tokens)


@pytest.mark.parametrize(
    ("record", "end"),
    [
        (session(), 1800),
        (session(last_seen=1000), 2800),
        (session(last_seen=28000), 28800),
        (session(refresh_expires_at=600), 600),
        (session(last_seen=1000, refresh_expires_at=9999), 2800),
        (session(refresh=False), 300),
        (session(refresh=False, refresh_expires_at=9999), 300),
    ],
)
def test_the_earliest_end_counts(record: SessionRecord, end: float) -> None:
    """Idle time, absolute lifetime, the refresh token's end, or the access token's without one."""
    assert LIFETIME.ends_at(record, record.last_seen) == end
    assert LIFETIME.live(record, end - 0.001)
    assert not LIFETIME.live(record, end)


@pytest.mark.parametrize(("idle", "every"), [(1800, 60), (600, 60), (100, 10), (1, 0.1)])
def test_a_slide_is_written_seldom(idle: float, every: float) -> None:
    """After a tenth of the idle time, or a minute where that is less."""
    lifetime = Lifetime(idle=idle, absolute=28800)
    assert lifetime.slide_every == pytest.approx(every)
    assert not lifetime.slide_due(session(last_seen=1000), 1000 + every * 0.99)
    assert lifetime.slide_due(session(last_seen=1000), 1000 + every * 1.01)
