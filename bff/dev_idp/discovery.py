"""Discovery and keys, below the issuer's path."""

from typing import Any

from flask import Blueprint, Response

from bff.dev_idp.clients import OIDC_SCOPES
from bff.dev_idp.context import services
from bff.dev_idp.endpoints import json_response
from bff.dev_idp.settings import Settings

views = Blueprint("discovery", __name__)


@views.get("/.well-known/openid-configuration")
def configuration() -> Response:
    """The provider's metadata (OpenID Connect Discovery section 3)."""
    return json_response(200, metadata(services().settings))


@views.get("/.well-known/jwks.json")
def jwks() -> Response:
    """The public signing keys."""
    return json_response(200, services().keys.jwks())


def metadata(settings: Settings) -> dict[str, Any]:
    """The members that Cognito's document has and no other.

    PKCE methods are missing there too, though PKCE is demanded: clients must cope.
    """
    front, back = settings.public_url, settings.backend_url
    return {
        "authorization_endpoint": f"{front}/oauth2/authorize",
        "end_session_endpoint": f"{front}/logout",
        "id_token_signing_alg_values_supported": ["RS256"],
        "issuer": settings.issuer,
        "jwks_uri": f"{settings.issuer.rstrip('/')}/.well-known/jwks.json",
        "response_types_supported": ["code"],
        "revocation_endpoint": f"{back}/oauth2/revoke",
        "scopes_supported": list(OIDC_SCOPES),
        "subject_types_supported": ["public"],
        "token_endpoint": f"{back}/oauth2/token",
        "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
        "userinfo_endpoint": f"{back}/oauth2/userInfo",
    }
