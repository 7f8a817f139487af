"""The grants: authorization code with PKCE, refresh token, client credentials; and revocation."""

import hmac
import re
from typing import Any

from authlib.oauth2.rfc6749 import (
    InvalidGrantError,
    InvalidRequestError,
    InvalidScopeError,
)
from authlib.oauth2.rfc6749 import grants as rfc6749
from authlib.oauth2.rfc7009 import RevocationEndpoint
from authlib.oauth2.rfc7636 import (
    CodeChallenge,
    create_s256_code_challenge,
)

from bff.dev_idp.accounts import Account
from bff.dev_idp.clients import OIDC_SCOPES, Client
from bff.dev_idp.codes import AuthorizationCode, UsedCode
from bff.dev_idp.oauth import CLIENT_AUTH_METHODS, AuthorizationServer, ProtocolRequest
from bff.dev_idp.refresh_families import Family, Refused, Rotated
from bff.dev_idp.services import Services

# A SHA-256 digest in base64url without padding: RFC 7636 section 4.2.
_S256_CHALLENGE = re.compile(r"[A-Za-z0-9_-]{43}")


def register(server: AuthorizationServer) -> None:
    """Teach the server all grants and the revocation endpoint."""
    server.register_grant(CodeGrant, [S256Only()])
    server.register_grant(RefreshGrant)
    server.register_grant(ClientCredentialsGrant)
    server.register_endpoint(Revocation)


class S256Only(CodeChallenge):  # type: ignore[misc]
    """PKCE demanded of every client, with S256 and nothing else (RFC 9700 section 2.1.1).

    Authlib demands it of public clients only, and takes `plain`.
    """

    SUPPORTED_CODE_CHALLENGE_METHOD = ["S256"]
    CODE_CHALLENGE_METHODS = {
        "S256": lambda verifier, challenge: hmac.compare_digest(
            create_s256_code_challenge(verifier), challenge
        )
    }

    def validate_code_challenge(self, grant: "CodeGrant", redirect_uri: str) -> None:
        """Refuse an authorization request without a well-formed S256 challenge."""
        super().validate_code_challenge(grant, redirect_uri)
        data = grant.request.payload.data
        if not _S256_CHALLENGE.fullmatch(data.get("code_challenge", "")):
            raise InvalidRequestError("A 'code_challenge' for S256 is required.")
        if data.get("code_challenge_method") != "S256":
            raise InvalidRequestError("Only 'code_challenge_method=S256' is supported.")


class CodeGrant(rfc6749.AuthorizationCodeGrant):  # type: ignore[misc]
    """Issues codes and redeems each once. A second use ends what the first began."""

    TOKEN_ENDPOINT_AUTH_METHODS = CLIENT_AUTH_METHODS

    @property
    def services(self) -> Services:
        """The provider's parts."""
        found: Services = self.server.services
        return found

    def save_authorization_code(self, code: str, request: ProtocolRequest) -> None:
        """Keep what the code is bound to. `request.user` is the browser's session."""
        self.services.codes.save(
            code,
            client_id=request.client.client_id,
            redirect_uri=request.payload.redirect_uri,
            scope=request.scope,
            sub=request.user.sub,
            code_challenge=request.payload.data["code_challenge"],
            nonce=request.payload.data.get("nonce", ""),
            auth_time=request.user.auth_time,
        )

    def query_authorization_code(self, code: str, client: Client) -> AuthorizationCode | None:
        """The code, if it is this client's and unused."""
        found = self.services.codes.find(code)
        if found is None or found.client_id != client.client_id:
            return None
        if isinstance(found, UsedCode):
            self._revoke(found)
            return None
        return found

    def authenticate_user(self, authorization_code: AuthorizationCode) -> Account | None:
        """The user who signed in for this code."""
        return self.services.accounts.by_sub(authorization_code.sub)

    def generate_token(self, user: Account, scope: str, **_: Any) -> dict[str, Any]:
        """Use the code up and make its tokens; only here, after every check has passed."""
        code = self.request.authorization_code
        outcome = self.services.codes.redeem(code)
        if isinstance(outcome, UsedCode):  # a twin of this request was faster
            self._revoke(outcome)
            raise InvalidGrantError("The code was used before.")
        family, refresh_token = outcome
        return self.services.tokens.for_user(
            family, user, scope=scope, refresh_token=refresh_token, nonce=code.nonce
        )

    def delete_authorization_code(self, authorization_code: AuthorizationCode) -> None:
        """Nothing left to do: a used code is kept, so that its reuse is noticed."""

    def _revoke(self, used: UsedCode) -> None:
        self.services.families.revoke(used.family)


class LiveToken:
    """A refresh token that opens a family, in the form Authlib asks for."""

    def __init__(self, refresh_token: str, family: Family) -> None:
        self.refresh_token = refresh_token
        self.family = family

    def check_client(self, client: Client) -> bool:
        """Whether the token was issued to this client."""
        return self.family.client_id == client.client_id

    def get_scope(self) -> str:
        """The scope that was granted at sign-in."""
        return self.family.scope


class RefreshGrant(rfc6749.RefreshTokenGrant):  # type: ignore[misc]
    """Refreshes access and ID token, with or without rotation."""

    TOKEN_ENDPOINT_AUTH_METHODS = CLIENT_AUTH_METHODS

    def authenticate_refresh_token(self, refresh_token: str) -> LiveToken | None:
        """Look the token up. Whether it was used before is asked later, once the client is known
        to be the right one: another client must not be able to end the family."""
        family = self.server.services.families.find(refresh_token)
        return LiveToken(refresh_token, family) if family else None

    def authenticate_user(self, refresh_token: LiveToken) -> Account | None:
        """The user of the family, with today's groups."""
        account: Account | None = self.server.services.accounts.by_sub(refresh_token.family.sub)
        return account

    def issue_token(self, user: Account, refresh_token: LiveToken) -> dict[str, Any]:
        """Redeem the refresh token and make new tokens."""
        services: Services = self.server.services
        outcome = services.families.use(refresh_token.refresh_token)
        if isinstance(outcome, Refused):
            raise InvalidGrantError("The refresh token is no longer valid.")
        return services.tokens.for_user(
            refresh_token.family,
            user,
            scope=" ".join(dict.fromkeys((self.request.payload.scope or "").split()))
            or refresh_token.family.scope,
            refresh_token=outcome.refresh_token if isinstance(outcome, Rotated) else None,
        )

    def revoke_old_credential(self, refresh_token: LiveToken) -> None:
        """Nothing left to do: `issue_token` rotated it."""


class ClientCredentialsGrant(rfc6749.ClientCredentialsGrant):  # type: ignore[misc]
    """A token for the client itself, for API scopes only, as at Cognito."""

    TOKEN_ENDPOINT_AUTH_METHODS = CLIENT_AUTH_METHODS

    def generate_token(self, scope: str | None, **_: Any) -> dict[str, Any]:
        """Grant the scopes asked for, or all of the client's API scopes."""
        services: Services = self.server.services
        allowed = [name for name in self.client.scopes if name not in OIDC_SCOPES]
        asked = list(dict.fromkeys((scope or "").split())) or allowed
        if not set(asked) <= set(allowed):
            raise InvalidScopeError
        return services.tokens.for_client(self.client.client_id, " ".join(asked))


class UnsupportedTokenTypeError(InvalidRequestError):  # type: ignore[misc]
    """RFC 7009 section 2.2.1."""

    error = "unsupported_token_type"


class Revocation(RevocationEndpoint):  # type: ignore[misc]
    """RFC 7009 for refresh tokens: ends the whole family. Access tokens can't be revoked."""

    CLIENT_AUTH_METHODS = CLIENT_AUTH_METHODS

    def check_params(self, request: ProtocolRequest, client: Client) -> None:  # noqa: ARG002 -- Authlib's signature
        """A token must be there. A hint is only a hint: RFC 7009 section 2.1."""
        if not request.form.get("token"):
            raise InvalidRequestError("Missing 'token' in request.")

    def query_token(self, token_string: str, token_type_hint: str | None) -> LiveToken | None:  # noqa: ARG002 -- Authlib's signature
        """The refresh token if it is live; None, answered with success, if it is unknown."""
        services: Services = self.server.services
        if services.tokens.read_access_token(token_string) is not None:
            raise UnsupportedTokenTypeError("Only refresh tokens can be revoked.")
        family = services.families.find(token_string)
        return LiveToken(token_string, family) if family else None

    def revoke_token(self, token: LiveToken, request: ProtocolRequest) -> None:  # noqa: ARG002 -- Authlib's signature
        """End the family."""
        self.server.services.families.revoke(token.family.id)
