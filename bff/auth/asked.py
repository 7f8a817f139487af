"""What Flask knows of the request that is being answered, judged where it was sent from outside."""

from __future__ import annotations

from typing import cast

from flask import request, session

from bff.errors import BadRequest, ResponseInvalid
from bff.request import Admitted
from bff.sessions.interface import BFFSession

LONGEST_PARAMETER = 512
"""Of what is handed on to the provider, or kept of what it says."""


def this_session() -> BFFSession:
    """The session of the request, which is read when something of it is asked for."""
    return cast("BFFSession", session._get_current_object())  # type: ignore[attr-defined]  # noqa: SLF001


def this_request() -> Admitted:
    """The request as the data plane has let it in."""
    return cast("Admitted", request.environ[Admitted.KEY])


def single(name: str) -> str | None:
    """A query parameter that came at most once."""
    values = request.args.getlist(name)
    if len(values) > 1:
        raise BadRequest(f"{name} came more than once.")
    return values[0] if values else None


def parameter(name: str) -> str | None:
    """A parameter for the provider: bounded, and of its kind."""
    value = single(name)
    if value is None:
        return None
    if not 0 < len(value) <= LONGEST_PARAMETER or not value.isprintable():
        raise BadRequest(f"{name} must be printable text of at most {LONGEST_PARAMETER} characters.")
    if name == "max_age" and not (value.isascii() and value.isdigit() and len(value) < 10):
        raise BadRequest("max_age must be a number of seconds.")
    return value


def authorization_response() -> dict[str, str]:
    """The members of the provider's answer; one that comes twice is an attack (RFC 6749 §3.1)."""
    fields = request.form if request.method == "POST" else request.args
    if any(len(values) > 1 for _, values in fields.lists()):
        raise ResponseInvalid(reason="a parameter of the response came twice")
    return fields.to_dict()
