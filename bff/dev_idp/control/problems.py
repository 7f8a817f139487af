"""Reads the control API's requests and writes its error answers."""

import json
from typing import Any

from flask import Response, request

from bff.dev_idp.strict_json import BadJson, parse


class ControlError(Exception):
    """A control request that is refused.

    `detail` says what is wrong with it, for the person who wrote the test; never with a secret in it.
    """

    def __init__(self, status: int, title: str, detail: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(title)
        self.status = status
        self.title = title
        self.detail = detail
        self.headers = headers or {}


def bad(detail: str) -> ControlError:
    """The refusal of a request whose content is wrong."""
    return ControlError(400, "Bad request", detail)


def problem(error: ControlError) -> Response:
    """The answer to a refused request: RFC 9457."""
    body = {"title": error.title, "status": error.status, "detail": error.detail}
    response = Response(json.dumps(body), error.status, content_type="application/problem+json")
    response.headers.update(error.headers)
    return response


def body(*members: str, optional: bool = False) -> dict[str, Any]:
    """The JSON object that the request brought, with no other members than these.

    No body at all is an empty object where the body is `optional`. Raises `ControlError`.
    """
    raw = request.get_data()
    if optional and not raw:
        return {}
    if request.mimetype != "application/json":
        raise bad("The body must be JSON, sent with 'Content-Type: application/json'.")
    try:
        found = parse(raw)
    except BadJson as error:
        raise bad(f"The body can't be read: {error}") from None
    if not isinstance(found, dict):
        raise bad("The body must be a JSON object.")
    refuse_unknown(found, members, "the body")
    return found


def refuse_unknown(given: dict[str, Any], members: tuple[str, ...], where: str) -> None:
    """Refuse members that mean nothing here: most are typing errors. Raises `ControlError`."""
    if set(given) - set(members):
        known = ", ".join(f"'{name}'" for name in members) or "no member"
        raise bad(f"There is an unknown member in {where}, which may have: {known}.")
