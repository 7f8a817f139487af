"""Claims as `/bff/user` tells them: what the provider says about the person."""

from __future__ import annotations

from typing import Any

# Claims that speak to the protocol, not about the person.
_COGNITO_CLAIMS = ("origin_jti", "event_id", "token_use")
PROTOCOL_CLAIMS = frozenset(
    (
        "iss",
        "aud",
        "exp",
        "iat",
        "nbf",
        "nonce",
        "at_hash",
        "c_hash",
        "s_hash",
        "azp",
        "jti",
        *_COGNITO_CLAIMS,
    )
)


def public(claims: dict[str, Any]) -> list[dict[str, Any]]:
    """Claims as `/bff/user` gives them: an array is one entry for each member."""
    return [
        claim(name, member)
        for name, value in claims.items()
        if name not in PROTOCOL_CLAIMS and not name.startswith("bff:")  # our own word, not the provider's
        for member in (value if isinstance(value, list) else [value])
    ]


def claim(kind: str, value: Any) -> dict[str, Any]:
    """One entry of the array."""
    return {"type": kind, "value": value}
