"""A compact JWS looked at before anything in it is trusted (RFC 7515, RFC 8725).

Nothing here verifies; it decides whether the token has a shape worth verifying, and reads the three
things the key is chosen by: `alg`, `kid` and `iss`.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Never

from bff.resource_api.jwt.model import Reason, TokenRefused

MAX_TOKEN_BYTES = 16 * 1024
MAX_KEY_ID_LENGTH = 256
MAX_NESTING = 32

# Three parts, none of them empty: no JWE (five parts), no JSON serialisation, no unsigned token.
_COMPACT = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)")

# Headers that bring a key along or say where to fetch one (RFC 8725 §3.10: forged tokens name
# the attacker's). Keys come from the configured issuer alone.
_KEY_HEADERS = frozenset({"jku", "jwk", "x5u", "x5c"})

# RFC 7515 §4.1: strings wherever they are present, though nothing here goes by the last three.
_TEXT_HEADERS = ("typ", "cty", "x5t", "x5t#S256")


@dataclass(frozen=True, slots=True)
class Inspected:
    """A token of sound shape, not verified yet: everything in it may be a lie."""

    compact: str = field(repr=False)
    header: Mapping[str, Any] = field(repr=False)
    claims: Mapping[str, Any] = field(repr=False)
    algorithm: str
    key_id: str = field(repr=False)


def inspect(token: str, algorithms: Collection[str]) -> Inspected:
    """Take the token apart, or raise `TokenRefused`; `algorithms` is the allow-list for `alg`."""
    if len(token) > MAX_TOKEN_BYTES:
        raise TokenRefused(Reason.TOO_LARGE)
    parts = _COMPACT.fullmatch(token)
    if parts is None:
        raise TokenRefused(Reason.NOT_THREE_PARTS)
    header_bytes, claims_bytes, _ = (decode_base64url(part) for part in parts.groups())
    header = parse_object(header_bytes, Reason.BAD_HEADER)
    algorithm, key_id = _check_header(header, algorithms)
    claims = parse_object(claims_bytes, Reason.BAD_CLAIMS)
    return Inspected(token, header, claims, algorithm, key_id)


def decode_base64url(part: str) -> bytes:
    """Base64url without padding (RFC 7515 §2), in its one canonical spelling.

    Python ignores stray bits at the end, so that one signature could be spelled in several ways.
    """
    if len(part) % 4 == 1:
        raise TokenRefused(Reason.BAD_ENCODING)
    raw = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    if base64.urlsafe_b64encode(raw).rstrip(b"=").decode() != part:
        raise TokenRefused(Reason.BAD_ENCODING)
    return raw


def parse_object(raw: bytes, reason: Reason) -> dict[str, Any]:
    """One JSON object in UTF-8 without duplicate members, NaN, Infinity, lone surrogates or great depth."""
    try:
        value = json.loads(raw.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant)
        if raw.count(b"[") + raw.count(b"{") > MAX_NESTING:
            _check_nesting(value)
        if b"\\u" in raw:
            # Half of a surrogate pair parses, and then breaks whatever writes it out again.
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError):
        raise TokenRefused(reason) from None
    if not isinstance(value, dict):
        raise TokenRefused(reason)
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        # RFC 8725 §2.4 in spirit: two readers may pick different ones.
        raise ValueError("duplicate member")
    return members


def _check_nesting(value: object) -> None:
    """What the parser gets through just below Python's recursion limit breaks whoever reads it next."""
    level: list[object] = [value]
    for _ in range(MAX_NESTING):
        level = [inner for outer in level for inner in _members(outer) if isinstance(inner, dict | list)]
    if level:
        raise ValueError("nested too deeply")


def _members(value: object) -> Iterable[object]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _no_constant(_: str) -> Never:
    raise ValueError("not JSON")


def _check_header(header: Mapping[str, Any], algorithms: Collection[str]) -> tuple[str, str]:
    algorithm, key_id = header.get("alg"), header.get("kid")
    if not isinstance(algorithm, str) or algorithm not in algorithms:
        raise TokenRefused(Reason.ALGORITHM)
    if "crit" in header or "b64" in header:
        # RFC 7515 §4.1.11: an extension that is not understood must be refused; none is.
        raise TokenRefused(Reason.CRITICAL_EXTENSION)
    if not _KEY_HEADERS.isdisjoint(header):
        raise TokenRefused(Reason.KEY_IN_HEADER)
    if not isinstance(key_id, str) or not 0 < len(key_id) <= MAX_KEY_ID_LENGTH:
        raise TokenRefused(Reason.KEY_ID)
    if not all(isinstance(header.get(name, ""), str) for name in _TEXT_HEADERS):
        raise TokenRefused(Reason.BAD_HEADER)
    return algorithm, key_id
