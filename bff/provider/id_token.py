"""ID token validation, every rule of OpenID Connect Core §3.1.3.7 that concerns this client. No I/O."""

from __future__ import annotations

import base64
import hashlib
import hmac
import math
from collections.abc import Iterable
from typing import Any

import msgspec
from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import JWKRegistry

ALGORITHMS = frozenset(
    {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}
)
"""Asymmetric only: `none` and HMAC are never accepted, whatever the provider advertises."""

SHORTEST_RSA_BITS = 2048
LEEWAY_SECONDS = 60
MAX_BYTES = 65_536
_OF_THE_SIGN_IN = frozenset(
    ("iss", "aud", "azp", "exp", "iat", "nbf", "jti", "nonce", "at_hash", "c_hash", "auth_time", "acr", "amr")
) | {"sid", "token_use"}
_HASHES = {"256": hashlib.sha256, "384": hashlib.sha384, "512": hashlib.sha512}


class Invalid(Exception):
    """The token is refused; the argument is a reason for the log, with nothing of the token in it."""


class NotByKnownKey(Invalid):
    """No key of the JWKS fits, or the signature is not that key's: the keys may have been rotated."""


class NotAdvertised(Invalid):
    """An algorithm that we would take and the provider does not advertise, or not yet."""


class Identity(msgspec.Struct, frozen=True):
    """Who the ID token says has signed in: verified, so it has a type of its own."""

    subject: str
    claims: dict[str, Any]

    def authenticated_at(self, now: float, *, asked: bool) -> float:
        """When the person was authenticated; 0 where the provider does not say: the token's issue tells
        nothing, since a sign-in may be silent.

        `asked` says that a fresh sign-in was asked for: it is given the leeway that check_age gives, or who
        comes from a provider whose clock is behind would be sent there again, for ever.
        """
        auth_time = float(self.claims.get("auth_time", 0))
        return min(now, auth_time + LEEWAY_SECONDS) if asked and auth_time else auth_time

    def completed(self, userinfo: dict[str, Any]) -> Identity:
        """With the person's claims that UserInfo adds; about the sign-in only the ID token speaks."""
        added = {name: value for name, value in userinfo.items() if name not in _OF_THE_SIGN_IN}
        return Identity(self.subject, added | self.claims)

    def __repr__(self) -> str:
        return "<Identity>"


class _Registry(jws.JWSRegistry):
    """The whole token is bounded already; half a kilobyte is too little for a header with a certificate."""

    max_header_length = MAX_BYTES


def verify_signature(token: str, keys: Iterable[dict[str, Any]], algorithms: Iterable[str]) -> dict[str, Any]:
    """The claims of a compact JWS that one of `keys` has signed. Raises Invalid."""
    header = _header(token)
    algorithm = header.get("alg")
    if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
        raise Invalid("alg is not allowed")
    if algorithm not in algorithms:
        raise NotAdvertised("alg is not allowed")
    if "crit" in header:  # RFC 7515 §4.1.11: an extension we do not understand
        raise Invalid("crit is not understood")
    key = _choose(keys, header.get("kid"), algorithm)
    try:
        if is_short(key):
            raise Invalid("the RSA key is too short")
        verified = jws.deserialize_compact(
            token,
            JWKRegistry.import_key(key),
            registry=_Registry(algorithms=[algorithm], strict_check_header=False),
        )
    except (JoseError, ValueError, TypeError, LookupError) as error:  # LookupError: an unknown curve
        raise NotByKnownKey(f"signature: {type(error).__name__}") from None
    return read_claims(verified.payload)


def is_short(jwk: dict[str, Any]) -> bool:
    """Whether it is an RSA key of less than 2048 bits, with which nothing may be verified (RFC 7518 §3.3).
    Raises ValueError or TypeError where its modulus cannot be read."""
    if jwk.get("kty") != "RSA":
        return False
    modulus = jwk.get("n", "")
    number = int.from_bytes(base64.urlsafe_b64decode(modulus + "=" * (-len(modulus) % 4)))
    return number.bit_length() < SHORTEST_RSA_BITS


def read_claims(payload: bytes) -> dict[str, Any]:
    """The members of a JSON object that a session can hold. Raises Invalid.

    Python's own reader lets NaN, numbers of any size and halves of characters through, which then fail
    wherever they are first compared, encoded or stored.
    """
    try:
        claims = msgspec.json.decode(payload)
        msgspec.msgpack.encode(claims)
    except (ValueError, OverflowError, RecursionError):
        raise Invalid("the claims cannot be read") from None
    if not isinstance(claims, dict):
        raise Invalid("the claims are no object")
    return claims


def check_claims(
    claims: dict[str, Any], *, issuer: str, client_id: str, nonce: str | None, now: float
) -> Identity:
    """The identity that the claims of a verified token give. Raises Invalid.

    `nonce` is the attempt's; None (a refreshed token, §12.2) leaves that rule to the caller.
    """
    check_for_us(claims, issuer=issuer, client_id=client_id, now=now)
    subject = claims.get("sub")
    if not isinstance(subject, str) or not 0 < len(subject) <= 255:
        raise Invalid("sub is missing")
    if claims.get("token_use", "id") != "id":  # Cognito's mark: an access token is no ID token
        raise Invalid("token_use is not id")
    if nonce is not None and not _equal(claims.get("nonce"), nonce):
        raise Invalid("nonce is not this attempt's")
    return Identity(subject, claims)


def check_for_us(claims: dict[str, Any], *, issuer: str, client_id: str, now: float) -> None:
    """What every token of the provider for this client must say: issuer, audience, times. Raises Invalid."""
    if claims.get("iss") != issuer:
        raise Invalid("iss is another issuer")
    _check_audience(claims, client_id)
    _check_times(claims, now)


def check_same_nonce(claims: dict[str, Any], known: bytes | None) -> None:
    """The nonce of a refreshed ID token, where it has one, is the sign-in's (§12.2). Raises Invalid."""
    if "nonce" not in claims or known is None:
        return
    nonce = claims["nonce"]
    if not isinstance(nonce, str) or not hmac.compare_digest(nonce_hash(nonce), known):
        raise Invalid("nonce is another sign-in's")


def nonce_hash(nonce: str) -> bytes:
    """What is kept of a nonce, to know it again in a refreshed ID token."""
    return hashlib.sha256(nonce.encode()).digest()[:8]


def check_age(claims: dict[str, Any], max_age: int | None, now: float) -> None:
    """What was asked with `max_age` (in seconds) must have been obeyed (§3.1.3.7, 13). Raises Invalid."""
    if max_age is not None and now - _number(claims, "auth_time") > max_age + LEEWAY_SECONDS:
        raise Invalid("auth_time is longer ago than max_age allows")


def check_acr(claims: dict[str, Any], acr_values: str | None) -> None:
    """An `acr` that is told must be one of those asked for (RFC 9470 §5); the provider need not tell it
    (Core §5.5.1.1). Raises Invalid."""
    if acr_values is not None and "acr" in claims and claims["acr"] not in acr_values.split():
        raise Invalid("acr is none of those asked for")


def check_access_token_hash(claims: dict[str, Any], algorithm: str, access_token: str) -> None:
    """`at_hash`, where it is there, binds the access token to this ID token (§3.1.3.8). Raises Invalid."""
    if "at_hash" not in claims:
        return
    digest = _HASHES.get(algorithm[-3:], hashlib.sha512)(access_token.encode()).digest()
    half = base64.urlsafe_b64encode(digest[: len(digest) // 2]).rstrip(b"=").decode()
    if not _equal(claims["at_hash"], half):
        raise Invalid("at_hash belongs to another access token")


def algorithm_of(token: str) -> str:
    """The `alg` of a token whose signature has been verified."""
    return str(_header(token)["alg"])


def _header(token: str) -> dict[str, Any]:
    if len(token) > MAX_BYTES or token.count(".") != 2:
        raise Invalid("not a compact JWS")
    try:
        first = token.split(".", 1)[0]
        header = msgspec.json.decode(base64.urlsafe_b64decode(first + "=" * (-len(first) % 4)))
    except (ValueError, RecursionError):
        raise Invalid("the header is not JSON") from None
    if not isinstance(header, dict):
        raise Invalid("the header is no object")
    return header


def _choose(keys: Iterable[dict[str, Any]], kid: object, algorithm: str) -> dict[str, Any]:
    """The one key that fits: never one from the token's own header (jwk, jku, x5u are not obeyed)."""
    kinds = {"R": "RSA", "P": "RSA", "E": "OKP" if algorithm == "EdDSA" else "EC"}
    fitting = [
        key
        for key in keys
        if key.get("kty") == kinds[algorithm[0]]
        and key.get("use", "sig") == "sig"
        and key.get("alg", algorithm) == algorithm
        and (kid is None or key.get("kid") == kid)
    ]
    if not fitting:
        raise NotByKnownKey("no key fits")
    if len(fitting) > 1:
        raise Invalid("several keys fit and the token names none")
    return fitting[0]


def _check_audience(claims: dict[str, Any], client_id: str) -> None:
    """We and nobody else: another audience is one we have no reason to trust (§3.1.3.7, 3 to 5)."""
    if not is_for(claims, client_id):
        raise Invalid("aud is not this client alone")
    if claims.get("azp", client_id) != client_id:
        raise Invalid("azp is another client")


def is_for(claims: dict[str, Any], client_id: str) -> bool:
    """Whether `aud` names this client alone."""
    return claims.get("aud") in (client_id, [client_id])


def _check_times(claims: dict[str, Any], now: float) -> None:
    expires, issued = _number(claims, "exp"), _number(claims, "iat")
    if now >= expires + LEEWAY_SECONDS:
        raise Invalid("exp is past")
    if issued > now + LEEWAY_SECONDS:
        raise Invalid("iat lies ahead")
    for name in ("nbf", "auth_time"):
        if name in claims and _number(claims, name) > now + LEEWAY_SECONDS:
            raise Invalid(f"{name} lies ahead")


def _number(claims: dict[str, Any], name: str) -> float:
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise Invalid(f"{name} is not a time")
    return value


def _equal(value: object, expected: str) -> bool:
    return isinstance(value, str) and hmac.compare_digest(value.encode(), expected.encode())
