"""What holds for every request and every answer: hosts, headers, errors."""

import logging
import time

from flask import Flask, Response, g, request
from werkzeug.exceptions import HTTPException

from bff.dev_idp import forms
from bff.dev_idp.clients import Clients
from bff.dev_idp.context import services
from bff.dev_idp.control import access, injection
from bff.dev_idp.control.problems import ControlError, problem
from bff.dev_idp.endpoints import PATHS, json_response
from bff.dev_idp.pages import PageError, error_page

log = logging.getLogger(__name__)


def install(app: Flask) -> None:
    """Register the checks, headers and error handlers."""
    app.before_request(_begin)
    app.before_request(_check_host)
    app.before_request(_check_control)
    app.before_request(injection.before_view)
    app.after_request(forms.set_cookie)
    app.after_request(_secure)
    app.after_request(_note)
    app.register_error_handler(PageError, error_page)
    app.register_error_handler(ControlError, _control_error)
    app.register_error_handler(HTTPException, _http_error)
    app.register_error_handler(Exception, _unexpected)


def content_security_policy(clients: Clients) -> str:
    """No script, no inline style, nothing from outside.

    Browsers apply `form-action` to the redirects that follow a form as well, so it names the
    origins of the clients that a sign-in returns to.
    """
    targets = clients.redirect_origins()
    return (
        "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none';"
        f" frame-ancestors 'none'; form-action 'self' {' '.join(targets)}"
    )


def _begin() -> None:
    g.began = time.perf_counter()


def _check_host() -> None:
    # DNS rebinding: a page of evil.example whose name now points to this machine sends its own
    # name as Host. Without this it could read tokens of the test users.
    host = request.headers.get("Host", "").lower()
    known = services().settings.hosts
    if host not in known and host.removesuffix(":80").removesuffix(":443") not in known:
        raise PageError(
            400,
            "Unknown host",
            "This provider answers only to the hosts that IDP_PUBLIC_URL, IDP_BACKEND_URL and"
            " IDP_ISSUER name.",
        )


def _check_control() -> None:
    if access.is_control():
        access.check()


def _control_error(error: ControlError) -> Response:
    """A page for people, RFC 9457 for programs. Without a token all control addresses are pages that don't
    exist."""
    if not services().settings.control_token or access.is_page():
        response = error_page(PageError(error.status, error.title, error.detail))
        response.headers.update(error.headers)
        return response
    return problem(error)


def _secure(response: Response) -> Response:
    headers = response.headers
    headers["Content-Security-Policy"] = content_security_policy(services().clients)
    headers["Cross-Origin-Opener-Policy"] = "same-origin"
    headers["Cross-Origin-Resource-Policy"] = "same-origin"
    headers["X-Content-Type-Options"] = "nosniff"
    headers["X-Frame-Options"] = "DENY"
    # With no-referrer, browsers would post forms with `Origin: null`.
    headers.setdefault("Referrer-Policy", "same-origin")
    if request.endpoint != "static":
        headers["Cache-Control"] = "no-store"
    return response


def _note(response: Response) -> Response:
    # Without the query: it holds codes, states and what users typed.
    milliseconds = (time.perf_counter() - g.began) * 1000
    log.debug("%s %s %d in %.1f ms", request.method, request.path, response.status_code, milliseconds)
    return response


def _http_error(error: HTTPException) -> Response:
    """A page for people, JSON for servers; `Allow` and the like stay."""
    status = error.code or 500
    if request.path in PATHS:
        response = json_response(status, {"error": "invalid_request", "error_description": error.name})
    elif access.is_control() and not access.is_page():
        response = problem(ControlError(status, error.name, error.description or error.name))
    else:
        response = error_page(PageError(status, error.name, "Check the address and try again."))
    for name, value in error.get_headers():
        if name.lower() != "content-type":
            response.headers[name] = value
    return response


def _unexpected(error: Exception) -> Response:
    log.error("unexpected error", exc_info=error)
    if request.path in PATHS:
        return json_response(500, {"error": "server_error"})
    if access.is_control() and not access.is_page():
        return problem(ControlError(500, "Something went wrong", "The log says more."))
    return error_page(PageError(500, "Something went wrong", "The log says more. Please try again."))
