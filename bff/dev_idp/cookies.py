"""The provider's own cookies: the session, and the one that ties a form to its browser."""

from flask import Response, request

from bff.dev_idp.settings import Settings

SESSION = "local_idp"
FORM = "local_idp_form"


def read(settings: Settings, name: str) -> str:
    """The cookie's value, or an empty string."""
    return request.cookies.get(_full_name(settings, name), "")


def write(settings: Settings, response: Response, name: str, value: str) -> None:
    """Set a cookie that lasts until the browser closes; the server decides when it ends.

    Lax, not Strict: the relying party's redirect comes from another site and must bring it.
    """
    response.set_cookie(
        _full_name(settings, name),
        value,
        secure=settings.secure,
        httponly=True,
        samesite="Lax",
        path="/",
    )


def delete(settings: Settings, response: Response, name: str) -> None:
    """Remove the cookie, with the attributes it was set with: browsers insist on them."""
    response.delete_cookie(
        _full_name(settings, name),
        secure=settings.secure,
        httponly=True,
        samesite="Lax",
        path="/",
    )


def _full_name(settings: Settings, name: str) -> str:
    return f"__Host-{name}" if settings.secure else name
