"""The core, free of I/O: what a session holds for its user, and what may be done with it now."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

Clock = Callable[[], float]
"""Seconds since the epoch, as `time.time` gives them."""


class TokenSet(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """The tokens of one session. Never leaves the server; its repr shows no token.

    `obtained_at`, `expires_at` and `refresh_expires_at` are seconds since the epoch; `expires_at` is None
    where the provider did not say (then the token counts as good until an upstream says 401).
    """

    access_token: str
    obtained_at: float
    expires_at: float | None = None
    refresh_token: str | None = None
    refresh_expires_at: float | None = None
    id_token: str | None = None
    scope: str = ""
    nonce: bytes | None = None
    """A hash of the sign-in's nonce."""

    def __repr__(self) -> str:
        refresh = "with" if self.refresh_token else "without"
        return f"<TokenSet {refresh} refresh token, expires_at={self.expires_at}>"

    def usable(self, now: float) -> bool:
        """Whether the access token may still be sent to an upstream."""
        return self.expires_at is None or now < self.expires_at

    def ends_at(self) -> float | None:
        """When the session must end because nothing can renew its token any more, if that is known.

        RFC 10017 §6.1: the session lives no longer than the refresh token.
        """
        return self.refresh_expires_at if self.refresh_token else self.expires_at

    def refresh_due_at(self, leeway: float, jitter: float) -> float | None:
        """From when on a refresh is worth its while; None where there is nothing to refresh.

        `leeway` is in seconds before the expiry, but never more than half of the token's lifetime.
        `jitter`, from 0 to 1, moves the moment later by a tenth of that at most, so that sessions
        made together do not refresh together.
        """
        if self.refresh_token is None or self.expires_at is None:
            return None
        lifetime = self.expires_at - self.obtained_at
        ahead = min(leeway, lifetime / 2)
        return self.expires_at - ahead * (1 - 0.1 * jitter)


class Usable(msgspec.Struct, frozen=True):
    """Go on with this token set; `due` says that a refresh should run beside the request."""

    tokens: TokenSet
    due: bool = False


class LoginRequired(msgspec.Struct, frozen=True):
    """The session is over: only a new sign-in helps."""


class TryLater(msgspec.Struct, frozen=True):
    """Nothing is lost, but there is no usable token now; `retry_after` is in seconds."""

    retry_after: int = 2


Outcome = Usable | LoginRequired | TryLater


def judge(tokens: TokenSet, now: float, leeway: float, jitter: float) -> Usable | None:
    """What a request may do with `tokens` at `now`; None means: only after a refresh."""
    if not tokens.usable(now):
        return None
    due_at = tokens.refresh_due_at(leeway, jitter)
    return Usable(tokens, due=due_at is not None and now >= due_at)


def pause_after_refresh(tokens: TokenSet) -> float:
    """Seconds in which a session is not refreshed again: 5, or a quarter of a shorter lifetime, but 1 s.

    A provider whose clock is off hands out tokens that look expired; it must not be hammered for it.
    """
    if tokens.expires_at is None:
        return 5.0
    return max(1.0, min(5.0, (tokens.expires_at - tokens.obtained_at) / 4))
