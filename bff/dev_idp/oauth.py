"""Authlib's authorization server, fitted to this provider."""

import base64
import logging
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

from authlib.integrations.flask_oauth2 import (
    AuthorizationServer as FlaskAuthorizationServer,
)
from authlib.oauth2.rfc6749 import (
    InvalidClientError,
    OAuth2Error,
    OAuth2Payload,
    OAuth2Request,
)
from flask import Response
from werkzeug.datastructures import MultiDict

from bff.dev_idp.clients import Client
from bff.dev_idp.services import Services

log = logging.getLogger(__name__)

CLIENT_AUTH_METHODS = ["client_secret_basic", "client_secret_post"]


class Parameters(OAuth2Payload):  # type: ignore[misc]
    """The protocol parameters of one request, from where the endpoint takes them and nowhere else.

    Authlib's own class merges query and form: a client secret or a grant could then come in a URL.
    """

    def __init__(self, values: MultiDict[str, str]) -> None:
        self._values = values

    @property
    def data(self) -> MultiDict[str, str]:
        """The parameters; of a doubled one the first."""
        return self._values

    @property
    def datalist(self) -> defaultdict[str, list[str]]:
        """All values of each parameter."""
        return defaultdict(list, dict(self._values.lists()))


class ProtocolRequest(OAuth2Request):  # type: ignore[misc]
    """What Authlib needs to know of a request."""

    def __init__(self, method: str, values: MultiDict[str, str], headers: Mapping[str, str]) -> None:
        # Authlib refuses plain http outside loopback by this address. Containers reach the local
        # provider by other names; which hosts it answers to is decided before any view runs.
        super().__init__(method, "https://local-provider.invalid/", headers=headers)
        self.payload = Parameters(values)

    @property
    def form(self) -> MultiDict[str, str]:
        """The same parameters: the endpoint has chosen their place."""
        values: MultiDict[str, str] = self.payload.data
        return values


class AuthorizationServer(FlaskAuthorizationServer):  # type: ignore[misc]
    """Finds clients and grants and turns protocol errors into responses.

    `services` is for the grants.
    """

    def __init__(self, services: Services) -> None:
        super().__init__(query_client=services.clients.find, save_token=_already_saved)
        self.services = services
        self.scopes_supported = None  # each client has its own
        self.register_client_auth_method("client_secret_basic", _authenticate_basic)

    def create_oauth2_request(self, request: ProtocolRequest) -> ProtocolRequest:
        """The request as it is: the views build it."""
        return request

    def handle_error_response(self, request: ProtocolRequest | None, error: OAuth2Error) -> Response:
        """An error redirect where the error knows a redirect URI, else RFC 6749 section 5.2."""
        log.info("refused: %s", error.error)
        response: Response
        if isinstance(error, InvalidClientError):
            # Always 401 with a challenge, whichever way the client tried.
            _, body, headers = InvalidClientError(description="Client authentication failed.")()
            headers.append(("WWW-Authenticate", 'Basic realm="clients", charset="UTF-8"'))
            response = self.handle_response(401, body, headers)
        else:
            response = super().handle_error_response(request, error)
        return response


def keep_tokens_out_of_logs() -> None:
    """Authlib's grants log whole token responses at DEBUG: never let that level through."""
    logging.getLogger("authlib").setLevel(logging.INFO)


def _already_saved(token: dict[str, Any], request: ProtocolRequest) -> None:
    """The grants save what must be saved in the transaction that uses the code or token up."""


def _authenticate_basic(
    find_client: Callable[[str], Client | None], request: ProtocolRequest
) -> Client | None:
    """RFC 7617, with junk of any kind refused (Authlib's own raises on bytes that aren't UTF-8)."""
    scheme, _, credentials = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        decoded = base64.b64decode(credentials.strip(), validate=True).decode("utf-8")
    except ValueError:
        return None
    client_id, colon, secret = decoded.partition(":")
    client = find_client(client_id)
    if client is not None and colon and client.check_client_secret(secret):
        return client
    return None
