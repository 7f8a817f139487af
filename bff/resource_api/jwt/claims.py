"""The claims of a token whose signature holds, judged by type and by value (RFC 7519, RFC 9068)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from bff.resource_api.jwt.model import AccessToken, Reason, TokenProfile, TokenRefused

# The year 9999: a NumericDate beyond it is a mistake (milliseconds) or an attempt at something.
MAX_NUMERIC_DATE = 253_402_300_799

# RFC 9068 §4: with or without the "application/" prefix, in any case (RFC 7515 §4.1.9).
_ACCESS_TOKEN_TYPES = frozenset({"at+jwt", "application/at+jwt"})


@dataclass(frozen=True, slots=True)
class ClaimRules:
    """What must hold for a token to be accepted here."""

    profile: TokenProfile
    client_ids: frozenset[str]
    audience: str | None
    clock_skew: float
    """Seconds of leeway for exp, nbf and iat."""


def judge(
    header: Mapping[str, Any], claims: Mapping[str, Any], rules: ClaimRules, issuer: str, now: float
) -> AccessToken:
    """Turn verified claims into an `AccessToken`, or raise `TokenRefused`.

    `issuer` is the one whose key verified the signature; `now` is in seconds since the epoch.
    """
    if claims.get("iss") != issuer:
        raise TokenRefused(Reason.ISSUER)
    expires_at = _check_times(claims, rules, now)
    _check_kind(header, claims, rules.profile)
    client_id = _check_client(claims, rules)
    _check_audience(claims, rules)
    subject = _optional_text(claims, "sub")
    if not subject:
        raise TokenRefused(Reason.MALFORMED_CLAIM)
    return AccessToken(
        issuer=issuer,
        sub=subject,
        client_id=client_id,
        scopes=_scopes(claims),
        groups=_groups(claims),
        username=_optional_text(claims, "username"),
        expires_at=expires_at,
        claims=frozen(dict(claims)),
    )


def frozen(value: Any) -> Any:
    """A copy that cannot be changed at any depth: read-only mappings, and tuples for lists."""
    if isinstance(value, dict):
        return MappingProxyType({name: frozen(inner) for name, inner in value.items()})
    return tuple(map(frozen, value)) if isinstance(value, list) else value


def _check_times(claims: Mapping[str, Any], rules: ClaimRules, now: float) -> float:
    expires_at = _numeric_date(claims, "exp")
    issued_at = _numeric_date(claims, "iat")
    not_before = _numeric_date(claims, "nbf")
    if expires_at is None or (rules.profile is TokenProfile.RFC9068 and issued_at is None):
        raise TokenRefused(Reason.TIME_CLAIM)
    if issued_at is not None and issued_at >= expires_at:
        raise TokenRefused(Reason.TIME_CLAIM)
    if now >= expires_at + rules.clock_skew:
        raise TokenRefused(Reason.EXPIRED)
    if max(issued_at or 0, not_before or 0) > now + rules.clock_skew:
        raise TokenRefused(Reason.NOT_YET_VALID)
    return expires_at


def _numeric_date(claims: Mapping[str, Any], name: str) -> float | None:
    """A NumericDate (RFC 7519 §2). `True` is an int to Python, `1e999` is infinite: neither is.

    The comparison also refuses NaN, which is in no range.
    """
    value = claims.get(name)
    if value is None and name not in claims:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TokenRefused(Reason.TIME_CLAIM)
    if not 0 <= value <= MAX_NUMERIC_DATE:
        raise TokenRefused(Reason.TIME_CLAIM)
    return value


def _check_kind(header: Mapping[str, Any], claims: Mapping[str, Any], profile: TokenProfile) -> None:
    """An ID token or a logout token must never pass (RFC 8725 §3.11 and §3.12)."""
    typ = str(header.get("typ", "JWT")).lower()
    if profile is TokenProfile.RFC9068:
        if typ not in _ACCESS_TOKEN_TYPES or claims.get("token_use", "access") != "access":
            raise TokenRefused(Reason.NOT_AN_ACCESS_TOKEN)
    elif claims.get("token_use") != "access" or typ not in _ACCESS_TOKEN_TYPES | {"jwt"}:
        raise TokenRefused(Reason.NOT_AN_ACCESS_TOKEN)


def _check_client(claims: Mapping[str, Any], rules: ClaimRules) -> str | None:
    client_id = claims.get("client_id")
    if rules.client_ids and (not isinstance(client_id, str) or client_id not in rules.client_ids):
        raise TokenRefused(Reason.CLIENT)
    return _optional_text(claims, "client_id")


def _check_audience(claims: Mapping[str, Any], rules: ClaimRules) -> None:
    """`aud` is one string or a list of them (RFC 7519 §4.1.3); its type is judged in any case."""
    audience = claims.get("aud", [])
    audiences = [audience] if isinstance(audience, str) else audience
    if not isinstance(audiences, list) or not all(isinstance(one, str) for one in audiences):
        raise TokenRefused(Reason.AUDIENCE)
    if rules.audience is not None and rules.audience not in audiences:
        raise TokenRefused(Reason.AUDIENCE)


def _scopes(claims: Mapping[str, Any]) -> frozenset[str]:
    """Exact members, separated by the space character and nothing else (RFC 6749 §3.3)."""
    scope = claims.get("scope", "")
    if not isinstance(scope, str):
        raise TokenRefused(Reason.MALFORMED_CLAIM)
    return frozenset(scope.split(" ")) - {""}


def _groups(claims: Mapping[str, Any]) -> frozenset[str]:
    groups = claims.get("cognito:groups", [])
    if not isinstance(groups, list) or not all(isinstance(group, str) for group in groups):
        raise TokenRefused(Reason.MALFORMED_CLAIM)
    return frozenset(groups)


def _optional_text(claims: Mapping[str, Any], name: str) -> str | None:
    value = claims.get(name)
    if value is None and name not in claims:
        return None
    if not isinstance(value, str):
        raise TokenRefused(Reason.MALFORMED_CLAIM)
    return value
