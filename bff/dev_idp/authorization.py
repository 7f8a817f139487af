"""Judges authorization requests and answers them."""

from http import HTTPStatus
from typing import Any
from urllib.parse import urlencode

from authlib.oauth2.rfc6749 import (
    InvalidRequestError,
    OAuth2Error,
    UnauthorizedClientError,
    UnsupportedResponseTypeError,
)
from authlib.oidc.core import errors as oidc
from flask import Response, request
from werkzeug.datastructures import MultiDict

from bff.dev_idp import cookies
from bff.dev_idp.browser_sessions import BrowserSession
from bff.dev_idp.context import server, services
from bff.dev_idp.oauth import ProtocolRequest
from bff.dev_idp.pages import PageError

Parameters = MultiDict[str, str]


def current_session() -> BrowserSession | None:
    """The session of the browser that sent this request."""
    held = services()
    return held.sessions.find(cookies.read(held.settings, cookies.SESSION))


def judge(parameters: Parameters) -> Any:
    """Authlib's grant for a good authorization request; for a bad one the error redirect.

    Raises `PageError` where the client or its redirect URI is unknown: then nobody can be trusted
    with an answer (RFC 6749 section 4.1.2.1), and a redirect would be an open one.
    """
    redirect_uri = _trusted_redirect_uri(parameters)
    try:
        _refuse_unsupported(parameters)
        return server().get_consent_grant(ProtocolRequest("GET", parameters, {}), end_user=current_session())
    except OAuth2Error as error:
        error.redirect_uri = redirect_uri
        return refuse(parameters, error)


def refuse(parameters: Parameters, error: OAuth2Error) -> Response:
    """The error redirect to the client of a request whose redirect URI was found good."""
    error.redirect_uri = parameters["redirect_uri"]
    error.state = parameters.get("state")
    return _see_other(server().handle_error_response(None, error))


def answer(grant: Any, session: BrowserSession) -> Response:
    """The redirect to the client with a code for the session's user."""
    response = server().create_authorization_response(grant.request, grant_user=session, grant=grant)
    return _see_other(response)


def max_age(parameters: Parameters) -> int | None:
    """The `max_age` of a request that `judge` found good, in seconds."""
    value = parameters.get("max_age")
    return int(value) if value else None


def query(parameters: Parameters, *, leave_out: tuple[str, ...] = ()) -> str:
    """The request as a query string, for the links and forms that carry it from page to page."""
    return urlencode([(k, v) for k, v in parameters.items(multi=True) if k not in leave_out])


def _trusted_redirect_uri(parameters: Parameters) -> str:
    client = services().clients.find(parameters.get("client_id", ""))
    if client is None or len(parameters.getlist("client_id")) > 1:
        raise PageError(
            400,
            "Unknown client",
            "The request must name, once, a client_id that is registered here: IDP_CLIENT_ID.",
        )
    redirect_uri = parameters.get("redirect_uri", "")
    if not client.check_redirect_uri(redirect_uri) or len(parameters.getlist("redirect_uri")) > 1:
        raise PageError(
            400,
            "Redirect URI mismatch",
            "The request must name, once, a redirect_uri that is registered for this client,"
            " character by character: IDP_REDIRECT_URIS.",
        )
    return redirect_uri


def _refuse_unsupported(parameters: Parameters) -> None:
    # RFC 6749 section 3.1: no parameter twice. RFC 8707 makes `resource` the exception.
    if any(len(values) > 1 for name, values in parameters.lists() if name != "resource"):
        raise InvalidRequestError("A parameter occurs more than once.")
    if not parameters.get("response_type"):
        raise InvalidRequestError("Missing 'response_type' in request.")
    if parameters["response_type"] == "token":
        # Cognito knows the implicit grant, and says that this client may not use it.
        raise UnauthorizedClientError("The client may not use 'response_type=token'.")
    if parameters["response_type"] != "code":
        raise UnsupportedResponseTypeError("", "Only 'response_type=code' is supported.")
    if parameters.get("response_mode", "query") != "query":
        raise InvalidRequestError("Only 'response_mode=query' is supported.")
    if "request" in parameters:
        raise oidc.RequestNotSupportedError
    if "request_uri" in parameters:
        raise oidc.RequestURINotSupportedError
    age = parameters.get("max_age", "")
    if age and not (age.isascii() and age.isdigit() and len(age) <= 10):
        raise InvalidRequestError("Invalid 'max_age' in request.")


def _see_other(response: Response) -> Response:
    # After a POST, 303 makes the browser come by GET: with 307 it would send the password on.
    if request.method == "POST" and response.status_code == HTTPStatus.FOUND:
        response.status_code = HTTPStatus.SEE_OTHER
    # The redirect leads away from a page whose address holds the whole request.
    response.headers["Referrer-Policy"] = "no-referrer"
    response.headers.pop("Content-Type", None)
    return response
