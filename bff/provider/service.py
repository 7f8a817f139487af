"""The client's own access token (RFC 6749 §4.4), for routes on which nobody needs to be signed in."""

from __future__ import annotations

import requests
from authlib.common.errors import AuthlibBaseError
from authlib.integrations.requests_client import OAuthError

from bff.errors import ProviderUnavailable
from bff.provider.client_auth import service_auth
from bff.provider.peer import Peer
from bff.provider.token_answer import TokenSession, token_set, word
from bff.provider.transport import mount
from bff.tokens import TokenSet


class ClientCredentials(Peer):
    """Client credentials."""

    def client_token(self, scope: str | None, resource: str | None) -> TokenSet:
        """A token of the service client (of this one, where there is no other) for that scope and resource
        (RFC 8707). Raises ProviderUnavailable."""
        asked_at = self._clock()
        wanted = {name: value for name, value in (("scope", scope), ("resource", resource)) if value}
        try:
            with self._service_session() as session:
                answer = session.fetch_token(
                    self.metadata.get().token_endpoint,
                    grant_type="client_credentials",
                    allow_redirects=False,
                    **wanted,
                )
            return token_set(answer, asked_at)
        except OAuthError as error:
            raise _no_token(word(error.error)) from None
        except (requests.RequestException, ValueError, AuthlibBaseError) as error:
            raise _no_token(type(error).__name__) from error

    def _service_session(self) -> TokenSession:
        settings = self._settings
        own = settings.service_client_id is None or settings.service_client_secret is None
        client_id = settings.oidc_client_id if own else settings.service_client_id
        secret = settings.oidc_client_secret if own else settings.service_client_secret
        session = TokenSession(
            client_id=client_id,
            client_secret=None if secret is None else secret.get_secret_value(),
            token_endpoint_auth_method=self._auth if own else service_auth(settings),
        )
        mount(session, self._adapter)
        return session


def _no_token(reason: str) -> ProviderUnavailable:
    return ProviderUnavailable(
        "The service behind this address cannot be asked at the moment. Please try again.",
        reason=f"client credentials: {reason}",
    )
