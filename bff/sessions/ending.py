"""Why a session ended, for those who still have a stream of it open. Pure."""

from __future__ import annotations

import enum

NOTE_SECONDS = 60
"""How long the reason of an end is kept: longer than any process waits for a Redis that is out of reach."""


class Reason(enum.StrEnum):
    """As browsers are told it."""

    SIGNED_OUT = "signed_out"
    REVOKED = "revoked"
    """By its user from elsewhere, by an operator, by the cap, or by a new sign-in that replaced it."""
    EXPIRED = "expired"
    PROVIDER = "provider"
    """The provider said so: by a back-channel logout, or as it refused to renew the tokens."""


def note(key: str) -> str:
    """Where the reason lies once the session's own key is gone; in the same slot."""
    return key + ":ended"
