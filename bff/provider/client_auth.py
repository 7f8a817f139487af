"""How this client shows the provider who it is (RFC 6749 §2.3.1, RFC 7523 §2.2)."""

from __future__ import annotations

import base64
import secrets
import time
import warnings
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl, quote_plus, urlencode

from joserfc import jwt
from joserfc.errors import SecurityWarning

from bff.client_key import SigningKey, algorithm_of_key, key_id, load_client_key
from bff.settings import Settings

_ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_ASSERTION_SECONDS = 60

# RFC 9864 has EdDSA called Ed25519; providers do not yet.
warnings.filterwarnings("ignore", "EdDSA is deprecated", SecurityWarning)

Method = Callable[[Any, str, str, dict[str, str], str], tuple[str, Any, str]]


def client_auth(settings: Settings, audience: Callable[[], str]) -> Method:
    """The configured method, as a function that Authlib calls.

    `audience` gives the token endpoint, for which an assertion is made wherever it is shown (OpenID Connect
    Core §9, RFC 9126 §2).
    """
    if settings.oidc_client_auth == "private_key_jwt" and settings.oidc_client_key_file is not None:
        return _private_key_jwt(load_client_key(settings.oidc_client_key_file), audience)
    return service_auth(settings)


def service_auth(settings: Settings) -> Method:
    """The same for a client that has a secret."""
    return _post if settings.oidc_client_auth == "client_secret_post" else _basic


def with_parameters(method: Method, parameters: list[tuple[str, str]]) -> Method:
    """`method`, and more parameters in the body: Authlib would keep one of each name."""

    def add(client: Any, verb: str, uri: str, headers: dict[str, str], body: str) -> tuple[str, Any, str]:
        return method(client, verb, uri, headers, _appended(body, parameters, headers))

    return add


def _appended(body: str, parameters: list[tuple[str, str]], headers: dict[str, str]) -> str:
    body = "&".join(part for part in (body, urlencode(parameters)) if part)
    if "Content-Length" in headers:
        headers["Content-Length"] = str(len(body))
    return body


def _post(client: Any, _method: str, uri: str, headers: dict[str, str], body: str) -> tuple[str, Any, str]:
    pair = [*_named(client, body), ("client_secret", client.client_secret)]
    return uri, headers, _appended(body, pair, headers)


def _named(client: Any, body: str) -> list[tuple[str, str]]:
    """Who asks, where the body does not say so yet, as that of a pushed request does: no parameter may come
    twice (RFC 6749 §3.2)."""
    named = any(name == "client_id" for name, _ in parse_qsl(body))
    return [] if named else [("client_id", client.client_id)]


def _basic(client: Any, _method: str, uri: str, headers: dict[str, str], body: str) -> tuple[str, Any, str]:
    """Authlib's own puts id and secret in as they are; the standard has both form-encoded first, or a `:`
    in the id, a `%` or a `+` in the secret would be read as something else."""
    pair = f"{quote_plus(client.client_id)}:{quote_plus(client.client_secret)}"
    headers["Authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
    return uri, headers, body


def _private_key_jwt(key: SigningKey, audience: Callable[[], str]) -> Method:
    """A new assertion for each request, good for a minute (RFC 7523 §3)."""
    header = {"alg": algorithm_of_key(key), "kid": key_id(key), "typ": "JWT"}

    def sign(client: Any, _method: str, uri: str, headers: dict[str, str], body: str) -> tuple[str, Any, str]:
        now = int(time.time())
        claims = {
            "iss": client.client_id,
            "sub": client.client_id,
            "aud": audience(),
            "jti": secrets.token_urlsafe(24),
            "iat": now,
            "exp": now + _ASSERTION_SECONDS,
        }
        assertion = jwt.encode(header, claims, key, algorithms=[str(header["alg"])])
        added = [
            *_named(client, body),
            ("client_assertion_type", _ASSERTION),
            ("client_assertion", assertion),
        ]
        return uri, headers, _appended(body, added, headers)

    return sign
