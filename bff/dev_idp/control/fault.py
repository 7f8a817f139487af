"""What a fault is, and how its description is read. Pure functions."""

import re
from dataclasses import dataclass
from typing import Any

from bff.dev_idp.control.problems import bad, refuse_unknown

ENDPOINTS = ("token", "jwks", "discovery", "authorize", "userInfo", "revoke", "logout")
KINDS = ("slow", "status", "drop", "error", "claims")
# Where the protocol has an error code to answer with.
ERROR_ENDPOINTS = ("token", "authorize", "userInfo", "revoke")
# Where the request says whose it is.
USER_ENDPOINTS = ("token", "authorize")
LONGEST_SECONDS = 60
MOST_TIMES = 1_000_000

_ERROR = re.compile(r"[a-z_]{1,64}")


@dataclass(frozen=True)
class Slow:
    """The answer comes late by `seconds`."""

    seconds: float


@dataclass(frozen=True)
class Status:
    """An error status in place of the answer."""

    status: int


@dataclass(frozen=True)
class Drop:
    """No answer: the connection is cut."""


@dataclass(frozen=True)
class ErrorCode:
    """The protocol's own error answer, with this code (RFC 6749 sections 4.1.2.1 and 5.2)."""

    error: str


@dataclass(frozen=True)
class Claims:
    """Tokens with other claims; None as a value removes one."""

    id_token: dict[str, Any]
    access_token: dict[str, Any]


Kind = Slow | Status | Drop | ErrorCode | Claims


@dataclass(frozen=True)
class Fault:
    """A fault that was asked for. `times` is for how many more requests (0: until it is deleted), `user` the
    subject it is meant for (empty: everybody), `email` what the user is called."""

    endpoint: str
    kind: Kind
    times: int = 1
    user: str = ""
    email: str = ""


def read_kind(endpoint: str, given: Any) -> Kind:
    """The fault's kind, from its description. Raises `ControlError`."""
    if not isinstance(given, dict):
        raise bad("'fault' must be an object with a 'kind'.")
    kind = given.get("kind")
    if kind == "slow":
        refuse_unknown(given, ("kind", "seconds"), "'fault'")
        return Slow(_seconds(given.get("seconds")))
    if kind == "status":
        refuse_unknown(given, ("kind", "status"), "'fault'")
        return Status(_whole(given.get("status"), "status", 400, 599))
    if kind == "drop":
        refuse_unknown(given, ("kind",), "'fault'")
        return Drop()
    if kind == "error":
        refuse_unknown(given, ("kind", "error"), "'fault'")
        return _error(endpoint, given.get("error"))
    if kind == "claims":
        refuse_unknown(given, ("kind", "id_token", "access_token"), "'fault'")
        return _claims(endpoint, given)
    raise bad(f"'kind' must be one of: {', '.join(KINDS)}.")


def read_endpoint(given: Any) -> str:
    """One of the endpoints that can have faults. Raises `ControlError`."""
    if isinstance(given, str) and given in ENDPOINTS:
        return given
    raise bad(f"'endpoint' must be one of: {', '.join(ENDPOINTS)}.")


def read_times(given: Any) -> int:
    """For how many requests. Raises `ControlError`."""
    return _whole(given, "times", 0, MOST_TIMES)


def describe(kind: Kind) -> dict[str, Any]:
    """The description that `read_kind` reads."""
    match kind:
        case Slow(seconds):
            return {"kind": "slow", "seconds": seconds}
        case Status(status):
            return {"kind": "status", "status": status}
        case Drop():
            return {"kind": "drop"}
        case ErrorCode(error):
            return {"kind": "error", "error": error}
        case Claims(id_token, access_token):
            return {"kind": "claims", "id_token": id_token, "access_token": access_token}


def _seconds(given: Any) -> float:
    # A bool is an int to Python, and no number to anybody else.
    if isinstance(given, int | float) and not isinstance(given, bool) and 0 < given <= LONGEST_SECONDS:
        return given
    raise bad(f"'seconds' must be a number above 0, and {LONGEST_SECONDS} at most.")


def _whole(given: Any, name: str, least: int, most: int) -> int:
    if isinstance(given, int) and not isinstance(given, bool) and least <= given <= most:
        return given
    raise bad(f"'{name}' must be a whole number from {least} to {most}.")


def _error(endpoint: str, given: Any) -> ErrorCode:
    if endpoint not in ERROR_ENDPOINTS:
        raise bad(f"The kind 'error' is for these endpoints: {', '.join(ERROR_ENDPOINTS)}.")
    if isinstance(given, str) and _ERROR.fullmatch(given):
        return ErrorCode(given)
    raise bad("'error' must be a code such as 'invalid_grant': small letters and underscores, 64 at most.")


def _claims(endpoint: str, given: dict[str, Any]) -> Claims:
    if endpoint != "token":
        raise bad("The kind 'claims' is for the endpoint 'token', which makes the tokens.")
    parts = [given.get(name, {}) for name in ("id_token", "access_token")]
    if not all(isinstance(part, dict) for part in parts) or not any(parts):
        raise bad("The kind 'claims' needs claims: an object as 'id_token', 'access_token' or both.")
    return Claims(*parts)
