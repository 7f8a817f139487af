"""Calls from pages of other origins: from the configured ones, and from no other (Fetch §3.2)."""

from __future__ import annotations

from collections.abc import Collection

from flask import Flask, Response, request
from werkzeug.exceptions import MethodNotAllowed

PREFLIGHT_SECONDS = 600


def allow_origins(app: Flask, origins: Collection[str]) -> None:
    """Answer preflights of these origins and let their pages read the answers.

    Never with credentials: this API knows no cookies, and none are to be invited.
    """
    allowed = frozenset(origins)
    if not allowed:
        return

    @app.before_request
    def answer_preflight() -> Response | None:
        asked_for = request.headers.get("Access-Control-Request-Method")
        routing = request.routing_exception
        if request.method != "OPTIONS" or asked_for is None or _origin() not in allowed:
            return None
        if not isinstance(routing, MethodNotAllowed):
            return None
        return _preflight(list(routing.valid_methods or ()))

    @app.after_request
    def add_headers(response: Response) -> Response:
        # With the header or without, a cache must tell the origins apart.
        response.vary.add("Origin")
        if (origin := _origin()) in allowed:
            response.headers["Access-Control-Allow-Origin"] = origin
            response.headers["Access-Control-Expose-Headers"] = "WWW-Authenticate, Retry-After"
        return response


def _origin() -> str:
    return request.headers.get("Origin", "")


def _preflight(methods: Collection[str]) -> Response:
    answer = Response(status=204)
    answer.headers["Access-Control-Allow-Methods"] = ", ".join(sorted(methods))
    answer.headers["Access-Control-Allow-Headers"] = "Authorization"
    answer.headers["Access-Control-Max-Age"] = str(PREFLIGHT_SECONDS)
    answer.vary.update(("Access-Control-Request-Method", "Access-Control-Request-Headers"))
    return answer
