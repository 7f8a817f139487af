"""Tokens that an upstream refuses although they look good: when a new one is worth asking for.

A key that was changed, a session that the provider ended, a clock that is off: one refresh may help. An
upstream that refuses everything must not send every session to the provider (RFC 6750 §3.1 says what a 401
means; it does not say whose fault it is).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

REMEMBERED = 4096
SESSION_PAUSE_SECONDS = 300.0
"""For how long a session's token is not renewed again for an upstream which refused the renewed one, too."""
IN_A_ROW = 3
UPSTREAM_PAUSE_SECONDS = 60.0
"""For how long nobody's token is renewed for an upstream that refused so many renewed tokens in a row."""


class Rejections:
    """What this process has learnt about 401s. Bounded; lives in one event loop."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._now = monotonic
        self._in_vain: OrderedDict[tuple[str, str], float] = OrderedDict()
        self._in_a_row: dict[str, int] = {}
        self._paused: dict[str, float] = {}

    def worth_renewing(self, upstream: str, holder: str) -> bool:
        """Whether a new token may help; `holder` is the session, or whoever the token belongs to."""
        now = self._now()
        if now < self._paused.get(upstream, 0.0):
            return False
        return now >= self._in_vain.get((upstream, holder), 0.0)

    def helped(self, upstream: str) -> None:
        """A renewed token was accepted."""
        self._in_a_row.pop(upstream, None)

    def in_vain(self, upstream: str, holder: str) -> bool:
        """A renewed token was refused as well; True where this upstream is given up for a while."""
        now = self._now()
        self._in_vain[upstream, holder] = now + SESSION_PAUSE_SECONDS
        self._in_vain.move_to_end((upstream, holder))
        if len(self._in_vain) > REMEMBERED:
            self._in_vain.popitem(last=False)
        count = self._in_a_row[upstream] = self._in_a_row.get(upstream, 0) + 1
        if count < IN_A_ROW:
            return False
        self._in_a_row[upstream] = 0
        self._paused[upstream] = now + UPSTREAM_PAUSE_SECONDS
        return True
