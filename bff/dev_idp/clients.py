"""The registered clients."""

import hmac
import threading
from dataclasses import dataclass, field, replace
from urllib.parse import unquote_plus

from authlib.oauth2.rfc6749 import ClientMixin

from bff.dev_idp.environment import origin_of
from bff.dev_idp.settings import Settings

MOST = 50
OIDC_SCOPES = ("openid", "email", "phone", "profile")


@dataclass(frozen=True)
class Client(ClientMixin):  # type: ignore[misc]
    """A confidential client. The methods are the questions that Authlib asks."""

    client_id: str
    secret: str = field(repr=False)
    grant_types: tuple[str, ...]
    scopes: tuple[str, ...]
    redirect_uris: tuple[str, ...] = ()
    logout_uris: tuple[str, ...] = ()

    def get_client_id(self) -> str:
        """The client identifier."""
        return self.client_id

    def get_allowed_scope(self, scope: str | None) -> str | None:
        """The scope to grant: what was asked for, each once, or everything if nothing was.

        None (Authlib: `invalid_scope`) where a scope isn't registered for this client.
        """
        asked = tuple(dict.fromkeys((scope or "").split())) or self.scopes
        return " ".join(asked) if set(asked) <= set(self.scopes) else None

    def check_redirect_uri(self, redirect_uri: str) -> bool:
        """Whether it is registered, compared byte by byte (RFC 9700 section 2.1)."""
        return redirect_uri in self.redirect_uris

    def check_client_secret(self, client_secret: str) -> bool:
        """Whether it is this client's secret, as it stands or form-encoded.

        RFC 6749 section 2.3.1 wants the parts of the Basic scheme form-encoded, and many
        libraries forget it; both are accepted, each compared in constant time.
        """
        raw = _same(client_secret, self.secret)
        decoded = _same(unquote_plus(client_secret), self.secret)
        return raw or decoded

    def check_endpoint_auth_method(self, method: str, endpoint: str) -> bool:  # noqa: ARG002 -- Authlib's signature
        """Whether the client may authenticate this way."""
        return method in ("client_secret_basic", "client_secret_post")

    def check_response_type(self, response_type: str) -> bool:
        """Whether the client may ask for this response type."""
        return response_type == "code" and "authorization_code" in self.grant_types

    def check_grant_type(self, grant_type: str) -> bool:
        """Whether the client may use this grant."""
        return grant_type in self.grant_types


class Clients:
    """Looks up clients by their identifier."""

    def __init__(self, clients: tuple[Client, ...]) -> None:
        self._lock = threading.Lock()
        self._clients = {client.client_id: client for client in clients}

    def find(self, client_id: str) -> Client | None:
        """The client, or None."""
        return self._clients.get(client_id)

    def add(self, client: Client) -> bool:
        """Register one more until the process ends; False where the identifier or every place is taken."""
        with self._lock:
            if client.client_id in self._clients or len(self._clients) >= MOST:
                return False
            # A new dict, since others may be walking through the old one.
            self._clients = {**self._clients, client.client_id: client}
            return True

    def all(self) -> list[Client]:
        """All of them, the settings' first."""
        return list(self._clients.values())

    def accept_logout(self, uri: str) -> bool:
        """Whether some client registered this sign-out URI."""
        return any(uri in client.logout_uris for client in self.all())

    def redirect_origins(self) -> list[str]:
        """The origins that a sign-in can lead to."""
        return sorted({origin_of(uri) for client in self.all() for uri in client.redirect_uris})


def code_client(
    settings: Settings,
    client_id: str,
    secret: str,
    redirect_uris: tuple[str, ...],
    logout_uris: tuple[str, ...],
) -> Client:
    """A client for the code grant, with all scopes."""
    grants, scopes = ("authorization_code", "refresh_token"), (*OIDC_SCOPES, settings.scope_api)
    return Client(client_id, secret, grants, scopes, redirect_uris, logout_uris)


def registered(settings: Settings) -> Clients:
    """The clients that the settings name.

    Cognito refuses `client_credentials` to a client that has the code grant: so does this
    provider as soon as a service client is registered. Without one the main client may use both,
    so that the local stack works with one client.
    """
    service = settings.service_client_id
    main = code_client(
        settings,
        settings.client_id,
        settings.client_secret,
        settings.redirect_uris,
        settings.logout_uris,
    )
    if not service:
        return Clients((replace(main, grant_types=(*main.grant_types, "client_credentials")),))
    helper = Client(service, settings.service_client_secret, ("client_credentials",), (settings.scope_api,))
    return Clients((main, helper))


def _same(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), expected.encode())
