"""Errors as the caller sees them: problem details (RFC 9457) and Bearer challenges (RFC 6750 §3)."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from http import HTTPStatus

from flask import Flask, Response
from werkzeug.exceptions import HTTPException, MethodNotAllowed

logger = logging.getLogger("bff.resource_api")

# The stable code of each status that has no other.
_CODES = {
    400: "bad_request",
    404: "route_not_found",
    405: "method_not_allowed",
    413: "body_too_large",
    500: "internal_error",
}


def problem(status: int, code: str, detail: str) -> Response:
    """An `application/problem+json` answer; `code` is stable, `detail` is for people."""
    body = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "code": code,
    }
    return Response(json.dumps(body), status, content_type="application/problem+json")


def no_credentials() -> Response:
    """401 without an error attribute: the request carried no credentials (RFC 6750 §3.1)."""
    return _challenge(401, "no_credentials", "This needs an access token.", "Bearer")


def invalid_request() -> Response:
    """400: credentials came in two ways or twice, and which one counts is anybody's guess."""
    return _challenge(
        400,
        "invalid_request",
        "Send one access token, in one Authorization header.",
        'Bearer error="invalid_request"',
    )


def invalid_token() -> Response:
    """401: the token is not accepted. Why is in the operator's log alone."""
    return _challenge(
        401,
        "invalid_token",
        "The access token is not valid here.",
        'Bearer error="invalid_token"',
    )


def insufficient_scope(scopes: Iterable[str]) -> Response:
    """403: the token is valid and does not reach as far as this."""
    wanted = " ".join(scopes)
    attributes = f', scope="{wanted}"' if wanted else ""
    return _challenge(
        403,
        "insufficient_scope",
        "The access token does not allow this.",
        f'Bearer error="insufficient_scope"{attributes}',
    )


def not_declared() -> Response:
    """403: the view says neither `@requires` nor `@public`, and is therefore nobody's."""
    return problem(403, "access_not_declared", "This address is not open to anybody.")


def keys_unavailable(retry_after: int) -> Response:
    """503: tokens cannot be judged just now; `retry_after` is in seconds."""
    answer = problem(503, "provider_unavailable", "Access tokens cannot be checked just now. Try again soon.")
    answer.headers["Retry-After"] = str(retry_after)
    return answer


def answer_errors_as_problems(app: Flask) -> None:
    """Make every error of `app` a problem answer, the unexpected ones included."""
    app.register_error_handler(HTTPException, _from_http_exception)
    app.register_error_handler(Exception, _from_unexpected)


def _challenge(status: int, code: str, detail: str, challenge: str) -> Response:
    answer = problem(status, code, detail)
    answer.headers["WWW-Authenticate"] = challenge
    return answer


def _from_http_exception(error: HTTPException) -> Response:
    status = error.code or 500
    phrase = HTTPStatus(status).phrase
    answer = problem(status, _CODES.get(status, phrase.lower().replace(" ", "_")), f"{phrase}.")
    if isinstance(error, MethodNotAllowed) and error.valid_methods:
        # RFC 9110 §15.5.6
        answer.headers["Allow"] = ", ".join(sorted(error.valid_methods))
    return answer


def _from_unexpected(error: Exception) -> Response:
    logger.error("a request failed unexpectedly", exc_info=error)
    return problem(500, _CODES[500], "Something went wrong here.")
