"""Makes requests meet the faults that were asked for."""

import asyncio
import contextlib
import logging
from collections.abc import Iterator
from typing import Any

from authlib.oauth2.rfc6749 import InvalidClientError, OAuth2Error
from flask import Response, g, has_request_context, request

from bff.dev_idp.accounts import Account
from bff.dev_idp.browser_sessions import BrowserSession
from bff.dev_idp.codes import AuthorizationCode
from bff.dev_idp.context import server, services
from bff.dev_idp.control.fault import Claims, Drop, ErrorCode, Kind, Slow, Status
from bff.dev_idp.endpoints import challenge, json_response
from bff.dev_idp.keys import Purpose
from bff.dev_idp.pages import PageError

log = logging.getLogger(__name__)

_EXPLANATION = "A fault that was asked for at /control."
_ENDPOINTS = {
    "endpoints.token": "token",
    "discovery.jwks": "jwks",
    "discovery.configuration": "discovery",
    "endpoints.user_info": "userInfo",
    "endpoints.revoke": "revoke",
    "sign_out.logout": "logout",
}
_FOR_SERVERS = ("token", "jwks", "discovery", "userInfo", "revoke")
_CONNECTION = "bff.connection"
"""Where our server's protocol puts the connection into the ASGI scope."""


def before_view() -> Response | None:
    """Runs before every view; an answer of it takes the view's place."""
    endpoint = _ENDPOINTS.get(request.endpoint or "")
    # The authorization endpoint asks for itself: only it knows whom the request is for.
    if endpoint is None or request.method == "OPTIONS":
        return None
    refusal = _meet(endpoint, services().faults.take(endpoint, _token_user))
    if refusal is None:
        return None
    if isinstance(refusal, Response):
        return refusal
    return _error_answer(endpoint, refusal)


def at_authorize(session: BrowserSession | None, login_hint: str) -> Response | OAuth2Error | None:
    """For an authorization request that was found good: an answer that takes its place, an error for the
    client, or nothing. It is for the user of the session, else for the one that the hint names."""

    def user() -> str:
        if session is not None:
            return session.sub
        account = services().accounts.by_email(login_hint)
        return account.sub if account else ""

    return _meet("authorize", services().faults.take("authorize", user))


def at_sign_in(account: Account) -> Response | OAuth2Error | None:
    """The same when a user has just signed in: faults for this very user, who wasn't known before."""
    return _meet("authorize", services().faults.take("authorize", lambda: account.sub, for_user_only=True))


def alter_claims(purpose: Purpose, claims: dict[str, Any]) -> dict[str, Any]:
    """The claims of a token that is being made, as a fault of this request wants them."""
    fault = g.get("claims_fault") if has_request_context() else None
    if fault is None:
        return claims
    wanted = fault.id_token if purpose is Purpose.ID else fault.access_token
    return {name: value for name, value in {**claims, **wanted}.items() if value is not None}


def _meet(endpoint: str, kinds: list[Kind]) -> Response | OAuth2Error | None:
    for kind in kinds:
        log.info("fault at %s: %s", endpoint, type(kind).__name__.lower())
        match kind:
            case Slow(seconds):
                if not services().faults.wait(seconds):
                    return _status_answer(endpoint, 503)
            case Status(status):
                return _status_answer(endpoint, status)
            case Drop():
                return _drop()
            case ErrorCode(error):
                return _oauth_error(error)
            case Claims():
                g.claims_fault = kind
    return None


def _token_user() -> str:
    """Whose code or refresh token the request brings; the subject, or an empty string."""
    held = services()
    if request.endpoint != "endpoints.token":
        return ""
    if token := request.form.get("refresh_token"):
        family = held.families.find(token)
        return family.sub if family else ""
    code = held.codes.find(request.form.get("code", ""))
    return code.sub if isinstance(code, AuthorizationCode) else ""


def _status_answer(endpoint: str, status: int) -> Response:
    if endpoint in _FOR_SERVERS:
        error = "server_error" if status >= 500 else "invalid_request"
        return json_response(status, {"error": error, "error_description": _EXPLANATION})
    raise PageError(status, "A fault was asked for", _EXPLANATION)


def _oauth_error(code: str) -> OAuth2Error:
    error = OAuth2Error(description=_EXPLANATION)
    error.error = code
    return error


def _error_answer(endpoint: str, error: OAuth2Error) -> Response:
    if endpoint == "userInfo":
        status = 403 if error.error == "insufficient_scope" else 401
        return challenge(status, error.error, _EXPLANATION)
    if error.error == "invalid_client":
        error = InvalidClientError()
    response: Response = server().handle_error_response(None, error)
    return response


def _drop() -> Response:
    """Cut the connection. What is returned goes nowhere, except under a server whose connections we don't
    know: there the answer breaks off before its end."""
    connection = request.environ.get("asgi.scope", {}).get(_CONNECTION)
    if connection is None:
        return Response(_BrokenOff(), headers={"Content-Length": "1"})
    with contextlib.suppress(TimeoutError):
        asyncio.run_coroutine_threadsafe(_abort(connection), connection.loop).result(5)
    return Response(status=500)


async def _abort(connection: Any) -> None:
    connection.transport.abort()
    # The server hears of it in the loop's next round, and from then on it sends nothing.
    await asyncio.sleep(0)


class _BrokenOff:
    """A body that never comes."""

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        raise ConnectionAbortedError(_EXPLANATION)
