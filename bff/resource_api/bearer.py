"""The access token of a request, sent in the one way that is accepted (RFC 6750 §2.1)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum, auto

from flask import Request

# RFC 6750 §2.1: b64token.
_B64TOKEN = re.compile(r"[A-Za-z0-9\-._~+/]+=*")
_BEARER_AGAIN = re.compile(r",\s*bearer\s", re.IGNORECASE)

# No larger form is read to look for a token: nobody has been let in yet.
MAX_FORM_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Credentials:
    """A token as it was sent; nothing is known about it yet."""

    token: str

    def __repr__(self) -> str:
        return "Credentials(…)"


class Missing(Enum):
    """What a request can hold in place of credentials."""

    NONE = auto()
    """No Bearer credentials at all."""
    AMBIGUOUS = auto()
    """More than one: two headers or two methods."""
    MALFORMED = auto()
    """Bearer, and then something that is no token."""


def read_credentials(request: Request) -> Credentials | Missing:
    """The one token of this request, or what is wrong.

    A token in the query or in a form is never accepted (it would end up in logs and histories);
    beside a header it makes the request ambiguous (RFC 6750 §2: one method only).
    """
    header = request.headers.get("Authorization", "")
    scheme, _, rest = header.strip(" \t").partition(" ")
    token = rest.strip(" \t")
    if scheme.lower() != "bearer":
        return Missing.AMBIGUOUS if _BEARER_AGAIN.search(header) else Missing.NONE
    # A server joins repeated headers with a comma, which no token contains.
    if "," in token or _token_elsewhere(request):
        return Missing.AMBIGUOUS
    if not _B64TOKEN.fullmatch(token):
        return Missing.MALFORMED
    return Credentials(token)


def _token_elsewhere(request: Request) -> bool:
    if "access_token" in request.args:
        return True
    length = request.content_length
    if request.mimetype != "application/x-www-form-urlencoded":
        return False
    if length is None or length > MAX_FORM_BYTES:
        return False
    # Kept, so that the view still finds the body whichever way it reads it.
    request.get_data(cache=True)
    return "access_token" in request.form
