"""The one place that touches python-jose: verification keys, and the signature check with one.

python-jose by itself tries every key of a set, takes private keys, ignores `use` and believes the
token's `alg`. So it is handed a single public key, built beforehand for a single algorithm.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bff.resource_api.jwt.compact import MAX_KEY_ID_LENGTH, Inspected, decode_base64url
from bff.resource_api.jwt.model import Reason, TokenRefused

if TYPE_CHECKING:
    from jose.backends.base import Key

logger = logging.getLogger("bff.resource_api")

# What python-jose verifies with a public RSA key. No HMAC: with it a public key is a password.
SUPPORTED_ALGORITHMS = frozenset({"RS256", "RS384", "RS512"})

# NIST SP 800-131A's least; and a most, since verifying takes longer with every bit.
MIN_MODULUS_BITS, MAX_MODULUS_BITS = 2048, 8192
MAX_EXPONENT_BITS = 32


@dataclass(frozen=True, slots=True)
class VerificationKey:
    """A public key of the issuer, for one algorithm."""

    key_id: str
    algorithm: str
    numbers: tuple[int, int]
    """Modulus and exponent: tell two keys apart, however they are spelled."""
    key: Key = field(repr=False)


KeySet = Mapping[tuple[str, str], VerificationKey]
"""Keys by `kid` and `alg`."""


def verify_signature(token: Inspected, key: VerificationKey) -> None:
    """Check the signature with this key and no other, or raise `TokenRefused`."""
    # Here, not above: it takes a tenth of a second, and the API is to listen before that.
    from jose import jws
    from jose.exceptions import JOSEError

    if token.algorithm != key.algorithm:
        raise TokenRefused(Reason.ALGORITHM)
    try:
        jws.verify(token.compact, key.key, algorithms=[key.algorithm])
    except (JOSEError, RecursionError):
        # It parses the header once more, a frame deeper.
        raise TokenRefused(Reason.SIGNATURE) from None


def build_key_set(jwks: Iterable[object], algorithms: Collection[str]) -> KeySet:
    """The usable keys of a JWK set's `keys` (RFC 7517 §5): those that are not, are left out.

    Two different keys under one `kid` and `alg` are both left out: which one the issuer meant
    cannot be known.
    """
    found: dict[tuple[str, str], VerificationKey] = {}
    ambiguous: set[tuple[str, str]] = set()
    for jwk in jwks:
        for key in _keys_from(jwk, algorithms):
            name = (key.key_id, key.algorithm)
            if found.setdefault(name, key).numbers != key.numbers:
                ambiguous.add(name)
    if ambiguous:
        logger.warning("issuer publishes different keys under one kid; they are not used")
    return {name: key for name, key in found.items() if name not in ambiguous}


def _keys_from(jwk: object, algorithms: Collection[str]) -> list[VerificationKey]:
    if not isinstance(jwk, dict) or not _is_for_verifying(jwk):
        return []
    key_id, algorithm = jwk.get("kid"), jwk.get("alg")
    if not isinstance(key_id, str) or not 0 < len(key_id) <= MAX_KEY_ID_LENGTH:
        return []
    numbers = _public_numbers(jwk)
    if numbers is None:
        return []
    # RFC 7517 §4.4: without `alg` the key serves any algorithm of its type that is allowed here.
    wanted = [name for name in sorted(algorithms) if algorithm is None or algorithm == name]
    return [_construct(key_id, name, numbers) for name in wanted]


def _is_for_verifying(jwk: Mapping[str, Any]) -> bool:
    """RFC 7517 §4.2 and §4.3: an encryption key is no signature key, published or not."""
    operations = jwk.get("key_ops", ["verify"])
    return (
        jwk.get("kty") == "RSA"
        and jwk.get("use", "sig") == "sig"
        and isinstance(operations, list)
        and "verify" in operations
    )


def _public_numbers(jwk: Mapping[str, Any]) -> tuple[int, int] | None:
    """Modulus and exponent only, of sane sizes; a private key in the set stays where it is."""
    modulus, exponent = jwk.get("n"), jwk.get("e")
    if not isinstance(modulus, str) or not isinstance(exponent, str):
        return None
    try:
        n = int.from_bytes(decode_base64url(modulus))
        e = int.from_bytes(decode_base64url(exponent))
    except (TokenRefused, ValueError):
        return None
    if not MIN_MODULUS_BITS <= n.bit_length() <= MAX_MODULUS_BITS or n % 2 == 0:
        return None
    if e < 3 or e % 2 == 0 or e.bit_length() > MAX_EXPONENT_BITS:
        return None
    return n, e


def _construct(key_id: str, algorithm: str, numbers: tuple[int, int]) -> VerificationKey:
    from jose import jwk
    from jose.utils import long_to_base64

    n, e = (long_to_base64(number).decode() for number in numbers)
    key = jwk.construct({"kty": "RSA", "n": n, "e": e}, algorithm)
    return VerificationKey(key_id, algorithm, numbers, key)
