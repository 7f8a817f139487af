"""OpenID Connect Discovery 1.0 §4: where the provider's endpoints are, and whether to believe it."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit

import msgspec
import requests
import structlog

from bff.errors import ProviderUnavailable
from bff.provider.transport import BoundedAdapter, get_json

log = structlog.get_logger("bff.provider")

_DISPENSABLE = ("userinfo_endpoint", "revocation_endpoint", "end_session_endpoint")
"""Done without where they are no addresses. Not so the endpoint for pushed requests: nothing that may have
to be pushed is sent in the open."""
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:\d{1,5})?")
_JWK_MEMBERS = ("kty", "use", "alg", "kid", "key_ops", "n", "e", "crv", "x", "y")


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
    except (requests.RequestException, ValueError, msgspec.ValidationError) as error:
        raise _unusable("discovery document cannot be used", error) from error
    if metadata.issuer != issuer:  # §4.3: exactly equal, or another issuer could answer for this one
        raise _unusable("discovery document names another issuer than BFF_OIDC_ISSUER")
    for member, url in metadata.endpoints().items():
        if not is_address(url):
            if member not in _DISPENSABLE:
                raise _unusable(f"discovery document has a {member} that is no address")
            log.warning("endpoint_left_out", member=member, reason="it is no address")
            metadata = msgspec.structs.replace(metadata, **{member: None})
        elif not is_safe(url, require_https=require_https):
            raise _unusable(f"discovery document has a {member} that is not https")
    return metadata


def is_address(url: str) -> bool:
    """Whether an endpoint is an absolute URL that can be asked, put into a header and named in a policy.

    Discovery is input like any other: a line break, half a character, a `;` in the host or a port that
    there cannot be would break, or change, whatever we write it into.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    plain = url.isascii() and url.isprintable() and " " not in url and "#" not in url
    return plain and bool(parts.scheme) and _HOST.fullmatch(parts.netloc) is not None and port != 0


def is_safe(url: str, *, require_https: bool) -> bool:
    """Whether an address has a scheme that a secret may travel by."""
    scheme = urlsplit(url).scheme
    return scheme == "https" or (scheme == "http" and not require_https)


def fetch_jwks(adapter: BoundedAdapter, uri: str) -> list[dict[str, Any]]:
    """The provider's signing keys as JWKs (RFC 7517 §5). Raises ProviderUnavailable."""
    try:
        keys = get_json(adapter, uri).get("keys")
    except (requests.RequestException, ValueError) as error:
        raise _unusable("JWKS cannot be used", error) from error
    if not isinstance(keys, list):
        raise _unusable("JWKS has no list of keys")
    return sorted((_read(key) for key in keys if isinstance(key, dict)), key=repr)  # their order says nothing


def _read(key: dict[str, Any]) -> dict[str, Any]:
    """The members that we look at; none of a key that has one of an odd type. `"alg": null`, as some
    providers write it, is no `alg`."""
    found = {name: key[name] for name in _JWK_MEMBERS if key.get(name) is not None}
    return found if all(_is_text(value) for value in found.values()) else {}


def _is_text(value: object) -> bool:
    return isinstance(value, str) or (isinstance(value, list) and all(isinstance(v, str) for v in value))


def _unusable(what: str, error: Exception | None = None) -> ProviderUnavailable:
    cause = f": {type(error).__name__}" if error is not None else ""
    return ProviderUnavailable(
        "Signing in is not possible at the moment. Please try again shortly.",
        reason=f"the {what}{cause}",
    )
