"""The access token of a request, sent in the one way that is accepted (RFC 6750 §2.1)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum, auto

from flask import Request

# RFC 6750 §2.1: b64token.
_B64TOKEN = re.compile(r"[A-Za-z0-9\-._~+/]+=*")
_BEARER = re.compile(r"bearer(?=[ ,]|\Z)", re.IGNORECASE)
_BEARER_AGAIN = re.compile(r",\s*bearer(?:[\s,]|\Z)", re.IGNORECASE)
# A comma behind a whole token, or behind none: the next header begins there, whatever it says. Or further on
# the scheme of further credentials, or nothing. No token contains a comma, so that one with anything else
# behind it (a JWS in its JSON serialisation) is simply a bad one.
_MORE_CREDENTIALS = re.compile(
    r"\A[A-Za-z0-9\-._~+/]*+=*+[ \t]*+,|,[ \t]*+[A-Za-z0-9!#$%&'*+.^_`|~-]*+(?:[ \t,]|\Z)"
)
# RFC 9110 §9.3: a body of these means nothing, so that it carries no token either (RFC 6750 §2.2).
_BODILESS_METHODS = frozenset({"GET", "HEAD", "DELETE", "OPTIONS", "TRACE", "CONNECT"})

# No larger form is read to look for a token.
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
    """The one token of this request's head, or what is wrong with it.

    A token in the query is never accepted (it would end up in logs and histories); beside a header it
    makes the request ambiguous (RFC 6750 §2: one method only). A form is looked at by `sends_form_token`.
    """
    header = request.headers.get("Authorization", "").strip(" \t")
    scheme = _BEARER.match(header)
    if scheme is None:
        return Missing.AMBIGUOUS if _BEARER_AGAIN.search(header) else Missing.NONE
    token = header[scheme.end() :].strip(" \t")
    # A server joins repeated headers with a comma.
    if _MORE_CREDENTIALS.search(token) or "access_token" in request.args:
        return Missing.AMBIGUOUS
    if not _B64TOKEN.fullmatch(token):
        return Missing.MALFORMED
    return Credentials(token)


def sends_form_token(request: Request) -> bool:
    """Whether the request sends a token in a form: beside a header that is one method too many.

    To be asked only once the header's token opens the view. It reads the body, and a stranger who sends one
    at a crawl would keep a thread waiting for it; who may call the view could keep the view itself waiting.
    """
    length = request.content_length
    if request.method in _BODILESS_METHODS or request.mimetype != "application/x-www-form-urlencoded":
        return False
    if length is None or length > MAX_FORM_BYTES:
        return False
    # Kept, so that the view still finds the body whichever way it reads it.
    request.get_data(cache=True)
    return "access_token" in request.form
