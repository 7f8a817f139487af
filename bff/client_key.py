"""The private key by which this client shows the provider who it is (RFC 7523)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from joserfc.jwk import ECKey, JWKRegistry, OKPKey, RSAKey

SigningKey = RSAKey | ECKey | OKPKey
MIN_RSA_BITS = 2048
_CURVES = {"P-256": "ES256", "P-384": "ES384", "P-521": "ES512", "Ed25519": "EdDSA"}


def load_client_key(path: Path) -> SigningKey:
    """The key of a PEM or JWK file. Raises ValueError (with nothing of the key in it) or OSError."""
    text = path.read_text(encoding="utf-8")
    try:
        key = _parse(text)
    except Exception:  # noqa: BLE001  whatever the libraries say may quote the key
        raise ValueError("is neither a PEM nor a JWK with an RSA, EC or Ed25519 key") from None
    if not isinstance(key, RSAKey | ECKey | OKPKey) or algorithm_of_key(key) is None:
        raise ValueError("must be an RSA, EC (P-256, P-384, P-521) or Ed25519 key")
    if not key.is_private:
        raise ValueError("is a public key: the private one is needed")
    if isinstance(key, RSAKey) and key.raw_value.key_size < MIN_RSA_BITS:
        raise ValueError(f"is an RSA key of less than {MIN_RSA_BITS} bits")
    return key


def algorithm_of_key(key: SigningKey) -> str | None:
    """The `alg` that the key signs with: the JWK's own where it names one (RS256 or PS256, say)."""
    named = key.get("alg")
    if isinstance(key, RSAKey):
        return named if named in ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512") else "RS256"
    return _CURVES.get(str(key.get("crv")))


def key_id(key: SigningKey) -> str:
    """The JWK's own `kid`, else its RFC 7638 thumbprint."""
    return str(key.get("kid") or key.thumbprint())


def public_jwks(key: SigningKey) -> dict[str, Any]:
    """The JWK set to register at the provider: the public half alone."""
    public = key.as_dict(private=False)
    return {"keys": [{**public, "kid": key_id(key), "use": "sig", "alg": algorithm_of_key(key)}]}


def _parse(text: str) -> Any:
    if text.lstrip().startswith("{"):
        import json

        return JWKRegistry.import_key(json.loads(text))
    for kind in (RSAKey, ECKey, OKPKey):
        try:
            return kind.import_key(text)
        except Exception:  # noqa: BLE001, S112  another kind of key, perhaps
            continue
    raise ValueError
