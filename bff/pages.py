"""The page, the error page and health: what can be seen without a session."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from flask import Blueprint, Flask, Response, jsonify, render_template

from bff._version import __version__
from bff.errors import (
    CSRFRequired,
    IDTokenInvalid,
    PublicError,
    ResponseInvalid,
    RetryLater,
    SignInCutOff,
    SignInFailed,
    StateUnknown,
    StateUsed,
    StoreUnavailable,
)
from bff.guard import page_policy

_PACKAGED = Path(__file__).parent / "_web"
WEB = _PACKAGED if _PACKAGED.is_dir() else Path(__file__).parent.parent
"""Where `templates/` and `static/` are: inside the wheel, or beside the package in a checkout."""

_MESSAGES: dict[type[PublicError], str] = {
    StateUnknown: (
        "This sign-in was not begun in this browser, or it was begun too long ago. "
        "Nothing has been lost: go back to the start page."
    ),
    StateUsed: (
        "This sign-in has been finished already, perhaps in another tab or before you went back. "
        "Go back to the start page to see whether you are signed in."
    ),
    ResponseInvalid: "The identity provider's answer was not as it should be, so nobody is signed in.",
    IDTokenInvalid: "What the identity provider said about you cannot be verified, so nobody is signed in.",
    SignInCutOff: "All your sessions were ended while you were signing in, so this one was not begun.",
    CSRFRequired: "This address answers only to pages of this site.",
}


class ErrorPages:
    """Renders errors for people: what happened, the code, and a way on. Quotes nothing from outside."""

    def __init__(self, app: Flask) -> None:
        self._app = app

    def __call__(self, error: PublicError) -> bytes:
        again = isinstance(error, SignInFailed) and not isinstance(error, StateUnknown | StateUsed)
        way_on = ("/bff/login", "Sign in again") if again else ("/", "Go to the start page")
        page = self._app.jinja_env.get_template("error.html").render(
            title=error.title,
            message=_MESSAGES.get(type(error), error.detail),
            code=error.code,
            status=error.status,
            way_on={"href": way_on[0], "label": way_on[1]},
            retry_after=error.retry_after if isinstance(error, RetryLater) else None,
        )
        return page.encode()


def page_headers(response: Response, *, form_action: str = "'self'") -> Response:
    """Headers of our own pages. With a form, same-origin: with none, browsers post `Origin: null`."""
    response.headers["Content-Security-Policy"] = page_policy(form_action)
    response.headers["Referrer-Policy"] = "same-origin"
    response.headers.setdefault("Cache-Control", "no-store")
    return response


def blueprint(
    *,
    public_url: str,
    development: bool,
    check_store: Callable[[], None],
    provider_known: Callable[[], bool],
    sign_out_origin: Callable[[], str | None],
) -> Blueprint:
    """`/` and `/health/*`. `check_store` raises StoreUnavailable; `sign_out_origin` is where the
    sign-out form's redirect leads."""
    pages = Blueprint("pages", __name__)

    @pages.get("/")
    def page() -> Response:
        html = render_template(
            "page.html", public_url=public_url, version=__version__, development=development
        )
        origin = sign_out_origin()
        return page_headers(Response(html), form_action=f"'self' {origin}" if origin else "'self'")

    @pages.get("/health/ready")
    def ready() -> Response:
        try:
            check_store()
        except StoreUnavailable:
            return _no_store(jsonify(status="unavailable"), 503)
        if not provider_known():
            return _no_store(jsonify(status="unavailable"), 503)
        return _no_store(jsonify(status="ok"))

    return pages


def _no_store(response: Response, status: int = 200) -> Response:
    response.status_code = status
    response.headers["Cache-Control"] = "no-store"
    return response
