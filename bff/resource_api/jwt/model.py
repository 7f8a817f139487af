"""What a verified access token is, and how a token can be refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Reason(StrEnum):
    """Why a token was refused: for the operator's log, never shown to the caller."""

    TOO_LARGE = "too_large"
    NOT_THREE_PARTS = "not_three_parts"
    BAD_ENCODING = "bad_encoding"
    BAD_HEADER = "bad_header"
    BAD_CLAIMS = "bad_claims"
    ALGORITHM = "algorithm_not_allowed"
    CRITICAL_EXTENSION = "critical_extension"
    KEY_IN_HEADER = "key_in_header"
    KEY_ID = "bad_key_id"
    UNKNOWN_KEY = "unknown_key"
    SIGNATURE = "bad_signature"
    ISSUER = "issuer_mismatch"
    TIME_CLAIM = "bad_time_claim"
    EXPIRED = "expired"
    NOT_YET_VALID = "not_yet_valid"
    NOT_AN_ACCESS_TOKEN = "not_an_access_token"
    CLIENT = "client_not_accepted"
    AUDIENCE = "audience_mismatch"
    MALFORMED_CLAIM = "malformed_claim"


class TokenRefused(Exception):
    """The token is not accepted. An exception, so that nobody can forget to look at the outcome."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason.value)
        self.reason = reason


class KeysUnavailable(Exception):
    """The issuer's keys cannot be had just now, so the token cannot be judged; try again later."""

    def __init__(self, retry_after: int) -> None:
        super().__init__("the issuer's keys are not available")
        self.retry_after = retry_after
        """Seconds until it makes sense to try again, at least 1."""


class TokenProfile(StrEnum):
    """How an issuer marks its access tokens, so that an ID token cannot pass for one."""

    COGNITO = "cognito"
    """The claim `token_use` is `access` (Amazon Cognito)."""
    RFC9068 = "rfc9068"
    """The header `typ` is `at+jwt` (RFC 9068 §2.1)."""


@dataclass(frozen=True, slots=True, repr=False)
class AccessToken:
    """An access token whose signature and claims have been verified."""

    issuer: str
    sub: str
    client_id: str | None
    scopes: frozenset[str]
    groups: frozenset[str]
    """From `cognito:groups`; empty where the issuer has none."""
    username: str | None
    expires_at: float
    """Seconds since the epoch, as issued: the clock skew is not added."""
    claims: Mapping[str, Any]
    """All claims, read-only at every depth: lists are tuples here."""

    def __repr__(self) -> str:
        """Harmless in a log: no claim that says who the user is."""
        return (
            f"AccessToken(issuer={self.issuer!r}, client_id={self.client_id!r}, "
            f"scopes={sorted(self.scopes)!r}, expires_at={self.expires_at!r})"
        )
