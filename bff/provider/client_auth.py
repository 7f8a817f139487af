"""How this client shows the provider who it is (RFC 6749 §2.3.1)."""

from __future__ import annotations

import base64
from typing import Any
from urllib.parse import quote_plus

from bff.settings import Settings


def client_auth(settings: Settings) -> Any:
    """The configured method, as Authlib takes it: a name it knows, or a function."""
    return _basic if settings.oidc_client_auth == "client_secret_basic" else settings.oidc_client_auth


def _basic(client: Any, _method: str, uri: str, headers: dict[str, str], body: str) -> tuple[str, Any, str]:
    """Authlib's own puts id and secret in as they are; the standard has both form-encoded first, or a `:`
    in the id, a `%` or a `+` in the secret would be read as something else."""
    pair = f"{quote_plus(client.client_id)}:{quote_plus(client.client_secret)}"
    headers["Authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
    return uri, headers, body
