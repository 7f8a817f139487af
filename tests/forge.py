"""A small token forge: tokens shaped like Amazon Cognito's, and broken ones of every kind.

It signs with `cryptography` alone, so that no library under test has a say in what it makes.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from cryptography.hazmat.primitives import hashes, hmac, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa


class _Absent:
    """Named the same in every process, as names of tests must be."""

    def __repr__(self) -> str:
        return "<absent>"


ABSENT: Final = _Absent()
"""As the value of a header or claim: leave it out."""

Part = Mapping[str, Any] | bytes
Sign = Callable[[bytes], bytes]


def b64(raw: bytes) -> str:
    """Base64url without padding."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def number(value: int) -> str:
    """A Base64urlUInt (RFC 7518 §2)."""
    return b64(value.to_bytes((value.bit_length() + 7) // 8))


def part(content: Part) -> str:
    """A header or a claims set as a part of a compact token; bytes go in as they are."""
    raw = content if isinstance(content, bytes) else json.dumps(content).encode()
    return b64(raw)


def compact(header: Part, claims: Part, sign: Sign) -> str:
    """A compact JWS with whatever signature `sign` makes of the signing input."""
    signing_input = f"{part(header)}.{part(claims)}"
    return f"{signing_input}.{b64(sign(signing_input.encode()))}"


def changed(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `changes`; `ABSENT` takes a member away."""
    return {name: value for name, value in {**base, **changes}.items() if value is not ABSENT}


def hmac_sha256(key: bytes) -> Sign:
    """HS256 with any key, the empty one too."""

    def sign(data: bytes) -> bytes:
        mac = hmac.HMAC(key, hashes.SHA256())
        mac.update(data)
        return mac.finalize()

    return sign


@dataclass(frozen=True)
class Signer:
    """An RSA key pair with a name."""

    key_id: str
    key: rsa.RSAPrivateKey

    def sign(self, data: bytes) -> bytes:
        """RS256."""
        return self.key.sign(data, padding.PKCS1v15(), hashes.SHA256())

    def sign_sha512(self, data: bytes) -> bytes:
        """RS512."""
        return self.key.sign(data, padding.PKCS1v15(), hashes.SHA512())

    def sign_pss(self, data: bytes) -> bytes:
        """PS256."""
        pss = padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.DIGEST_LENGTH)
        return self.key.sign(data, pss, hashes.SHA256())

    def jwk(self, **changes: Any) -> dict[str, Any]:
        """The public key as Cognito publishes it."""
        numbers = self.key.public_key().public_numbers()
        return changed(
            {
                "alg": "RS256",
                "e": number(numbers.e),
                "kid": self.key_id,
                "kty": "RSA",
                "n": number(numbers.n),
                "use": "sig",
            },
            changes,
        )

    def public_bytes(self, encoding: serialization.Encoding) -> bytes:
        """The public key as PEM or DER: what a confused verifier would take for an HMAC key."""
        return self.key.public_key().public_bytes(encoding, serialization.PublicFormat.SubjectPublicKeyInfo)


@cache
def signer(key_id: str, bits: int = 2048) -> Signer:
    """The key pair of this name, made once in a test run."""
    return Signer(key_id, rsa.generate_private_key(public_exponent=65537, key_size=bits))


@dataclass(frozen=True)
class Forge:
    """An issuer's mint: access tokens and ID tokens are signed with different keys, as Cognito's.

    `now` is in seconds since the epoch; tokens are a minute old and good for an hour.
    """

    issuer: str
    client_id: str = "web-client"
    scope: str = "openid api://weather/access"
    now: int = 1_800_000_000
    access_signer: Signer | None = None

    @property
    def signer(self) -> Signer:
        """Signs access tokens."""
        return self.access_signer or signer("access-1")

    @property
    def id_signer(self) -> Signer:
        """Signs ID tokens and logout tokens."""
        return signer("id-1")

    def jwks(self) -> dict[str, Any]:
        """What the issuer publishes."""
        return {"keys": [self.id_signer.jwk(), self.signer.jwk()]}

    def header(self, **changes: Any) -> dict[str, Any]:
        """An access token's header."""
        return changed({"kid": self.signer.key_id, "alg": "RS256"}, changes)

    def access_claims(self, **changes: Any) -> dict[str, Any]:
        """An access token's claims."""
        claims = {
            "sub": "5f0c8a6e-1d7b-4c1e-9f55-2b8f7d1a0c01",
            "cognito:groups": ["readers"],
            "iss": self.issuer,
            "version": 2,
            "client_id": self.client_id,
            "origin_jti": "origin-1",
            "token_use": "access",
            "scope": self.scope,
            "auth_time": self.now - 60,
            "exp": self.now + 3600,
            "iat": self.now - 60,
            "jti": "jti-1",
            "username": "alice",
        }
        return changed(claims, changes)

    def access_token(self, header: Part | None = None, /, **changes: Any) -> str:
        """A well-signed access token with these claims changed."""
        return self.signed(self.access_claims(**changes), header)

    def signed(self, claims: Part, header: Part | None = None) -> str:
        """Any claims, well signed with the access token's key."""
        return compact(self.header() if header is None else header, claims, self.signer.sign)

    def id_token(self, **changes: Any) -> str:
        """An ID token for the same client."""
        claims = {
            "sub": "5f0c8a6e-1d7b-4c1e-9f55-2b8f7d1a0c01",
            "iss": self.issuer,
            "aud": self.client_id,
            "token_use": "id",
            "nonce": "n-1",
            "at_hash": "h-1",
            "auth_time": self.now - 60,
            "exp": self.now + 3600,
            "iat": self.now - 60,
            "email": "alice@example.com",
        }
        header = self.header(kid=self.id_signer.key_id)
        return compact(header, changed(claims, changes), self.id_signer.sign)

    def logout_token(self, **changes: Any) -> str:
        """A logout token (OpenID Connect Back-Channel Logout 1.0 §2.4)."""
        claims = {
            "iss": self.issuer,
            "sub": "5f0c8a6e-1d7b-4c1e-9f55-2b8f7d1a0c01",
            "aud": self.client_id,
            "iat": self.now - 60,
            "exp": self.now + 60,
            "jti": "logout-1",
            "events": {"http://schemas.openid.net/event/backchannel-logout": {}},
        }
        header = self.header(kid=self.id_signer.key_id, typ="logout+jwt")
        return compact(header, changed(claims, changes), self.id_signer.sign)
