"""Answers of the token endpoint (RFC 6749 §5): strict where it matters, lenient where providers vary."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import requests
from authlib.integrations.requests_client import OAuth2Session, OAuthError

from bff.tokens import TokenSet


class UnusableAnswer(ValueError):
    """The token endpoint said yes and gave nothing of use: what was to be redeemed is used up."""


class NothingGranted(UnusableAnswer):
    """The answer is 200 and JSON, and there is no access token in it (a maintenance page, an error with the
    wrong status): what was to be redeemed is as good as before."""


class TokenSession(OAuth2Session):  # type: ignore[misc]  # Authlib ships no types
    """Authlib's client for one exchange, with a reader of our own for what comes back.

    Authlib's trips over an `expires_in` that is no number: a redeem that was answered would look like one
    that failed, and be sent again with a refresh token that is used up.
    """

    def parse_response_token(self, response: requests.Response) -> dict[str, Any]:
        """The answer's members. Raises OAuthError for a refusal (RFC 6749 §5.2: with a status of 4xx),
        UnusableAnswer for a grant that cannot be read, NothingGranted where there is none, ValueError for
        what did not come from a token endpoint (an error page, say)."""
        if response.status_code >= 500:
            raise ValueError("the provider has failed")
        try:
            answer = response.json()
        except (ValueError, RecursionError):
            raise _unreadable(granted=is_grant(response)) from None
        error = answer.get("error") if isinstance(answer, dict) else None
        if error is not None and 400 <= response.status_code < 500:
            raise OAuthError(error=word(error))
        if response.status_code != 200:
            raise ValueError("the answer is neither tokens nor an error")
        if not isinstance(answer, dict) or answer.get("access_token") is None:
            raise NothingGranted("the answer is 200 without an access token")
        if error is not None:  # what was to be redeemed may be used up: no second try
            raise UnusableAnswer("the answer is both tokens and an error")
        return answer


def is_grant(response: requests.Response) -> bool:
    """Whether the head of an answer says that the request was granted (RFC 6749 §5.1): what counts where the
    rest of it is not to be had."""
    kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    return response.status_code == 200 and kind == "application/json"


def _unreadable(*, granted: bool) -> ValueError:
    text = "the answer is not JSON"
    return UnusableAnswer(text) if granted else ValueError(text)


def token_set(answer: Mapping[str, Any], asked_at: float, *, keep_id_token: bool = False) -> TokenSet:
    """The tokens of an answer, aged from before it was asked for. Raises UnusableAnswer."""
    access_token, kind = _text(answer.get("access_token")), answer.get("token_type")
    if access_token is None or not isinstance(kind, str) or kind.lower() != "bearer":
        raise UnusableAnswer("the token answer has no bearer access token")
    lifetime = _seconds(answer.get("expires_in"))
    refresh_lifetime = _seconds(answer.get("refresh_expires_in"))
    never = refresh_lifetime is None or refresh_lifetime <= 0  # 0 means "never" where a provider sends it
    return TokenSet(
        access_token=access_token,
        obtained_at=asked_at,
        expires_at=None if lifetime is None else asked_at + max(0.0, lifetime),
        refresh_token=_text(answer.get("refresh_token")),
        refresh_expires_at=None if never else asked_at + (refresh_lifetime or 0.0),
        scope=_text(answer.get("scope")) or "",
        id_token=_text(answer.get("id_token")) if keep_id_token else None,
    )


def word(code: object) -> str:
    """An error code fit for a log line, whatever the provider sent."""
    text = code if isinstance(code, str) else ""
    return "".join(c for c in text[:40] if c.isascii() and (c.isalnum() or c == "_")) or "unnamed"


def _text(value: object) -> str | None:
    """Printable ASCII (RFC 6749, appendix A), or nothing: what goes into a header must not break it."""
    if not isinstance(value, str) or not value.isascii() or not value.isprintable():
        return None
    return value or None


def _seconds(value: object) -> float | None:
    """A duration as providers write it: a number, or one in a string."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        seconds = float(value)
    except (ValueError, OverflowError):
        return None
    return seconds if abs(seconds) < 10**10 else None  # also drops NaN and infinities
