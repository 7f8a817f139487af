"""Sign-out, with Cognito's parameters and with those of OpenID Connect RP-Initiated Logout."""

import logging
from http import HTTPStatus
from urllib.parse import urlencode, urlsplit, urlunsplit

from flask import Blueprint, Response, request

from bff.dev_idp import authorization, cookies
from bff.dev_idp.authorization import Parameters
from bff.dev_idp.clients import Client
from bff.dev_idp.context import services
from bff.dev_idp.pages import PageError, page, redirect_to

log = logging.getLogger(__name__)

views = Blueprint("sign_out", __name__)


@views.route("/logout", methods=["GET", "POST"])
def logout() -> Response:
    """End the provider's session and go on to where the request says.

    A request with anything wrong in it ends nothing: it gets an error page.
    """
    parameters = request.args if request.method == "GET" else request.form
    if any(len(values) > 1 for _, values in parameters.lists()):
        raise _refused("A parameter occurs more than once.")
    client = _client(parameters)
    location = _location(parameters, client)
    if request.method == "POST" and not _session_cookie():
        # A form of another site comes without our Lax cookie, the redirect to a GET brings it.
        # The hint has done its work, and a token has no business in an address.
        return redirect_to(f"/logout?{authorization.query(_without_hint(parameters, client))}")
    response = redirect_to(location, HTTPStatus.FOUND) if location else page("signed_out.html")
    services().sessions.end(_session_cookie())
    cookies.delete(services().settings, response, cookies.SESSION)
    log.info("signed out")
    return response


def _client(parameters: Parameters) -> Client | None:
    """The client that the request names by its identifier or by an ID token of ours; None if it
    names none."""
    named = parameters.get("client_id")
    if hint := parameters.get("id_token_hint"):
        claims = services().tokens.read_id_token_hint(hint)
        if claims is None or named not in (None, claims["aud"]):
            raise _refused("The id_token_hint is no ID token that was issued here to this client.")
        named = claims["aud"]
    if named is None:
        return None
    client = services().clients.find(named)
    if client is None:
        raise _refused("The client_id is not registered here: IDP_CLIENT_ID.")
    return client


def _location(parameters: Parameters, client: Client | None) -> str | None:
    """Where to go afterwards: a registered URI, the sign-in page, or None for a page of ours."""
    if "logout_uri" in parameters:
        if client is None or parameters["logout_uri"] not in client.logout_uris:
            raise _refused(
                "The logout_uri must be registered for the client_id, character by character:"
                " IDP_LOGOUT_URIS."
            )
        return parameters["logout_uri"]
    if "post_logout_redirect_uri" in parameters:
        return _post_logout(parameters, client)
    if "redirect_uri" in parameters:
        return _sign_in_again(parameters, client)
    return None


def _post_logout(parameters: Parameters, client: Client | None) -> str:
    uri = parameters["post_logout_redirect_uri"]
    clients = services().clients
    # Without a client named, being registered is what makes the URI legitimate (section 3).
    if uri not in client.logout_uris if client else not clients.accept_logout(uri):
        raise _refused(
            "The post_logout_redirect_uri must be registered, character by character: IDP_LOGOUT_URIS."
        )
    state = parameters.get("state")
    if not state:
        return uri
    parts = urlsplit(uri)
    query = "&".join(filter(None, (parts.query, urlencode({"state": state}))))
    return urlunsplit(parts._replace(query=query))


def _sign_in_again(parameters: Parameters, client: Client | None) -> str:
    """Cognito's second form: sign out, then show the sign-in page for another user."""
    if client is None or not client.check_redirect_uri(parameters["redirect_uri"]):
        raise _refused(
            "The redirect_uri must be registered for the client_id, character by character:"
            " IDP_REDIRECT_URIS."
        )
    query = authorization.query(parameters, leave_out=("id_token_hint",))
    return f"/oauth2/authorize?{query}"


def _without_hint(parameters: Parameters, client: Client | None) -> Parameters:
    kept = Parameters([(k, v) for k, v in parameters.items() if k != "id_token_hint"])
    if client is not None:
        kept["client_id"] = client.client_id
    return kept


def _session_cookie() -> str:
    return cookies.read(services().settings, cookies.SESSION)


def _refused(text: str) -> PageError:
    return PageError(HTTPStatus.BAD_REQUEST, "Sign-out was refused", text)
