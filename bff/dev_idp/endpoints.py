"""The endpoints that servers call: token, revocation, UserInfo."""

import json
from typing import Any

from authlib.oauth2.rfc6749 import InvalidRequestError
from flask import Blueprint, Response, request

from bff.dev_idp import claims
from bff.dev_idp.context import server, services
from bff.dev_idp.oauth import ProtocolRequest

views = Blueprint("endpoints", __name__)

# Their errors are JSON, also those that no view has seen (wrong method, body too large).
PATHS = ("/oauth2/token", "/oauth2/revoke", "/oauth2/userInfo")


@views.post("/oauth2/token")
def token() -> Response:
    """RFC 6749 section 3.2."""
    if problem := _malformed("grant_type"):
        return problem
    response: Response = server().create_token_response(_protocol_request())
    return response


@views.post("/oauth2/revoke")
def revoke() -> Response:
    """RFC 7009; the `token` itself is demanded by the endpoint behind it."""
    if problem := _malformed():
        return problem
    response: Response = server().create_endpoint_response("revocation", _protocol_request())
    return response


@views.route("/oauth2/userInfo", methods=["GET", "POST"])
def user_info() -> Response:
    """OpenID Connect Core section 5.3, for tokens in the Authorization header (RFC 6750)."""
    scheme, _, credentials = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        return challenge(401, None, "No access token was sent.")
    token = services().tokens.read_access_token(credentials.strip())
    if token is None:
        return challenge(401, "invalid_token", "The access token is not valid.")
    if "openid" not in token["scope"].split():
        return challenge(403, "insufficient_scope", "The scope 'openid' is needed.")
    account = services().accounts.by_sub(token["sub"])
    # Elsewhere a revoked access token goes on verifying until it expires; here we know better.
    if account is None or not services().families.is_live(str(token.get("origin_jti"))):
        return challenge(401, "invalid_token", "The access token was revoked.")
    return json_response(200, claims.user_info(account, token["scope"]))


def json_response(status: int, body: dict[str, Any]) -> Response:
    """A JSON answer."""
    return Response(json.dumps(body), status, content_type="application/json")


def _protocol_request() -> ProtocolRequest:
    return ProtocolRequest(request.method, request.form, dict(request.headers))


def _malformed(*needed: str) -> Response | None:
    """The `invalid_request` answer to a request whose form breaks RFC 6749 section 3.2."""
    form = request.form
    if request.mimetype != "application/x-www-form-urlencoded":
        problem = "The request must be a form: application/x-www-form-urlencoded."
    elif request.query_string:
        problem = "Parameters belong in the body, not in the URL."
    elif any(len(values) > 1 for _, values in form.lists()):
        problem = "A parameter occurs more than once."
    elif request.headers.get("Authorization") and form.get("client_secret"):
        problem = "The client must authenticate in one way only."  # RFC 6749 section 2.3
    elif missing := [name for name in needed if not form.get(name)]:
        problem = f"Missing '{missing[0]}' in request."
    else:
        return None
    return server().handle_error_response(None, InvalidRequestError(problem))


def challenge(status: int, error: str | None, text: str) -> Response:
    """RFC 6750 section 3: no error code where no credentials came."""
    body = {"error": error or "invalid_request", "error_description": text}
    response = json_response(status, body)
    response.headers["WWW-Authenticate"] = (
        f'Bearer error="{error}", error_description="{text}"' if error else "Bearer"
    )
    return response
