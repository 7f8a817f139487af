"""OpenID Connect Discovery 1.0 §4: where the provider's endpoints are, and whether to believe it."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import msgspec
import requests

from bff.errors import ProviderUnavailable
from bff.provider.transport import BoundedAdapter, get_json


class Metadata(msgspec.Struct, frozen=True):
    """The members of a discovery document that we use, checked for type."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    userinfo_endpoint: str | None = None
    revocation_endpoint: str | None = None
    end_session_endpoint: str | None = None
    pushed_authorization_request_endpoint: str | None = None
    id_token_signing_alg_values_supported: tuple[str, ...] = ("RS256",)
    authorization_response_iss_parameter_supported: bool = False

    def endpoints(self) -> dict[str, str]:
        """All addresses by the name of their member."""
        members = msgspec.structs.asdict(self)
        return {k: v for k, v in members.items() if v is not None and k.endswith(("_endpoint", "_uri"))}


def discovery_url(issuer: str) -> str:
    """Where the document lies: below the issuer, whose trailing slash is not doubled (§4.1)."""
    return issuer.removesuffix("/") + "/.well-known/openid-configuration"


def fetch_metadata(adapter: BoundedAdapter, issuer: str, *, require_https: bool) -> Metadata:
    """The issuer's metadata. Raises ProviderUnavailable, with the cause for the operator."""
    try:
        document = get_json(adapter, discovery_url(issuer))
        metadata = msgspec.convert(document, Metadata)
        schemes = {member: urlsplit(url).scheme for member, url in metadata.endpoints().items()}
    except (requests.RequestException, ValueError, msgspec.ValidationError) as error:
        raise _unusable("discovery document cannot be used", error) from error
    if metadata.issuer != issuer:  # §4.3: exactly equal, or another issuer could answer for this one
        raise _unusable("discovery document names another issuer than BFF_OIDC_ISSUER")
    for member, scheme in schemes.items():
        if scheme != "https" and (require_https or scheme != "http"):
            raise _unusable(f"discovery document has a {member} that is not https")
    return metadata


def fetch_jwks(adapter: BoundedAdapter, uri: str) -> list[dict[str, Any]]:
    """The provider's signing keys as JWKs (RFC 7517 §5). Raises ProviderUnavailable."""
    try:
        keys = get_json(adapter, uri).get("keys")
    except (requests.RequestException, ValueError) as error:
        raise _unusable("JWKS cannot be used", error) from error
    if not isinstance(keys, list):
        raise _unusable("JWKS has no list of keys")
    return [key for key in keys if isinstance(key, dict)]


def _unusable(what: str, error: Exception | None = None) -> ProviderUnavailable:
    cause = f": {type(error).__name__}" if error is not None else ""
    return ProviderUnavailable(
        "Signing in is not possible at the moment. Please try again shortly.",
        reason=f"the {what}{cause}",
    )
