"""The provider's own cookies: the session, the one that ties a form to its browser, and the one that opens
the control page."""

from typing import Literal

from flask import Response, request

from bff.dev_idp.settings import Settings

SESSION = "local_idp"
FORM = "local_idp_form"
CONTROL = "local_idp_control"

SameSite = Literal["Lax", "Strict"]


def read(settings: Settings, name: str) -> str:
    """The cookie's value, or an empty string."""
    return request.cookies.get(_full_name(settings, name), "")


def write(
    settings: Settings,
    response: Response,
    name: str,
    value: str,
    *,
    samesite: SameSite = "Lax",
    max_age: int | None = None,
) -> None:
    """Set a cookie for `max_age` seconds, or until the browser closes; the server decides when it ends.

    Lax, not Strict, unless asked for: the relying party's redirect comes from another site and must bring it.
    """
    response.set_cookie(
        _full_name(settings, name),
        value,
        max_age=max_age,
        secure=settings.secure,
        httponly=True,
        samesite=samesite,
        path="/",
    )


def delete(settings: Settings, response: Response, name: str, *, samesite: SameSite = "Lax") -> None:
    """Remove the cookie, with the attributes it was set with: browsers insist on them."""
    response.delete_cookie(
        _full_name(settings, name),
        secure=settings.secure,
        httponly=True,
        samesite=samesite,
        path="/",
    )


def _full_name(settings: Settings, name: str) -> str:
    return f"__Host-{name}" if settings.secure else name
