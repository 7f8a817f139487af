"""Whether an authorization request can be answered from the browser's session."""

from enum import Enum, auto

from bff.dev_idp.browser_sessions import BrowserSession


class Interaction(Enum):
    """What an authorization request needs."""

    NONE = auto()  # the session answers it
    SIGN_IN = auto()
    LOGIN_REQUIRED = auto()  # needs a sign-in but forbade one
    CONTRADICTION = auto()


def needed(prompt: str, max_age: int | None, session: BrowserSession | None, now: float) -> Interaction:
    """Judge `prompt` and `max_age` (seconds) by OpenID Connect Core section 3.1.2.1.

    As at Cognito, `consent` and `select_account` have no effect on a sign-in at the provider itself: they
    are for providers behind it.
    """
    words = prompt.split()
    if "none" in words and len(words) > 1:
        return Interaction.CONTRADICTION
    fresh = session is not None and (max_age is None or now - session.auth_time <= max_age)
    if "none" in words:
        return Interaction.NONE if fresh else Interaction.LOGIN_REQUIRED
    if not fresh or "login" in words:
        return Interaction.SIGN_IN
    return Interaction.NONE
