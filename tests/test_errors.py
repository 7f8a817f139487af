"""The error tree: stable codes and statuses, and documents that say enough and no more."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from bff import errors
from bff.errors import (
    BadRequest,
    InternalError,
    MethodNotAllowed,
    NotSignedIn,
    PublicError,
    RateLimited,
    SessionExpired,
    StoreUnavailable,
    problem,
)

DOCUMENTED = {
    "bad_request": 400,
    "not_signed_in": 401,
    "session_expired": 401,
    "range_not_satisfiable": 416,
    "reauthentication_required": 401,
    "session_not_found": 404,
    "csrf_required": 403,
    "proxy_not_trusted": 403,
    "route_not_found": 404,
    "method_not_allowed": 405,
    "body_too_large": 413,
    "rate_limited": 429,
    "headers_too_large": 431,
    "internal_error": 500,
    "upstream_unreachable": 502,
    "store_unavailable": 503,
    "provider_unavailable": 503,
    "upstream_timeout": 504,
}


def _leaves(kind: type[PublicError] = PublicError) -> Iterator[type[PublicError]]:
    for child in kind.__subclasses__():
        yield from _leaves(child)
        # Other modules narrow an error for themselves, under the same code: which are loaded is chance.
        if child.__module__ == errors.__name__ and not _narrowed(child):
            yield child


def _narrowed(kind: type[PublicError]) -> bool:
    return any(child.__module__ == errors.__name__ for child in kind.__subclasses__())


def test_codes_and_statuses_are_those_that_are_documented() -> None:
    """Front ends decide on these codes: none may change, or mean two things."""
    outside_sign_in = [kind for kind in _leaves() if not issubclass(kind, errors.SignInFailed)]
    assert {kind.code: kind.status for kind in outside_sign_in} == DOCUMENTED
    assert len(outside_sign_in) == len(DOCUMENTED)


def test_a_failed_sign_in_is_the_callers_400() -> None:
    """Error pages of the callback never claim to be a server's error, and each has a code of its own."""
    failed = [kind for kind in _leaves() if issubclass(kind, errors.SignInFailed)]
    assert {kind.status for kind in failed} == {400}
    assert len({kind.code for kind in failed}) == len(failed)


def test_problem_document_has_the_code_and_not_the_reason() -> None:
    """The operator's reason stays in the log; the caller gets title, status, code and our sentence."""
    document = json.loads(problem(BadRequest("Too odd.", reason="internal host 10.0.0.3")))
    assert document == {"title": "Bad request", "status": 400, "code": "bad_request", "detail": "Too odd."}


@pytest.mark.parametrize("error", [NotSignedIn(), SessionExpired()])
def test_sign_in_needed_names_the_login_url(error: PublicError) -> None:
    """A front end finds out from the answer where to sign in."""
    assert json.loads(problem(error))["login_url"] == "/bff/login"


@pytest.mark.parametrize(
    ("error", "headers"),
    [
        (MethodNotAllowed(("GET", "HEAD")), [("Allow", "GET, HEAD")]),
        (RateLimited(retry_after=17), [("Retry-After", "17")]),
        (StoreUnavailable(), [("Retry-After", "2")]),
        (BadRequest(), []),
    ],
)
def test_errors_bring_the_headers_that_http_demands(
    error: PublicError, headers: list[tuple[str, str]]
) -> None:
    """405 comes with Allow, what passes comes with Retry-After."""
    assert error.headers == headers


def test_internal_error_tells_a_caller_nothing() -> None:
    """Whatever went wrong inside stays inside."""
    document = json.loads(problem(InternalError(reason="KeyError: 'access_token'")))
    assert document == {"title": "Internal error", "status": 500, "code": "internal_error"}
