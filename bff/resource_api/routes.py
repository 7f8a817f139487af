"""The addresses of the weather API. All but the health checks need an access token."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from flask import Blueprint, Response, jsonify, request

from bff.resource_api import problems
from bff.resource_api.guard import public, requires
from bff.resource_api.weather import DEFAULT_DAYS, MAX_DAYS, STATION, forecast

ADMIN_GROUP = "admins"

_DAYS = re.compile(r"[1-9][0-9]?")


def health_routes(is_ready: Callable[[], bool]) -> Blueprint:
    """`/health`: this process answers. `/health/ready`: it can also judge tokens."""
    blueprint = Blueprint("health", __name__)

    @blueprint.get("/health")
    @blueprint.get("/health/live")
    @public
    def live() -> Response:
        return jsonify(status="ok")

    @blueprint.get("/health/ready")
    @public
    def ready() -> Response:
        if is_ready():
            return jsonify(status="ok")
        return problems.keys_unavailable(1)

    return blueprint


def weather_routes(scope: str, clock: Callable[[], float]) -> Blueprint:
    """`/weather` for every token with `scope`, `/weather/admin` for administrators among them."""
    blueprint = Blueprint("weather", __name__)

    @blueprint.get("/weather")
    @requires(scope=scope)
    def weather() -> Response:
        days = _days()
        if isinstance(days, Response):
            return days
        return jsonify([day.brief() for day in forecast(_now(clock).date(), days)])

    @blueprint.get("/weather/admin")
    @requires(scope=scope, groups=[ADMIN_GROUP])
    def weather_admin() -> Response:
        days = _days()
        if isinstance(days, Response):
            return days
        return jsonify(_admin_report(_now(clock), days))

    return blueprint


def _now(clock: Callable[[], float]) -> datetime:
    return datetime.fromtimestamp(clock(), UTC)


def _days() -> int | Response:
    """How many days the caller asks for; `int()` alone would take blanks and other digits."""
    given = request.args.getlist("days")
    if not given:
        return DEFAULT_DAYS
    if len(given) == 1 and _DAYS.fullmatch(given[0]) and int(given[0]) <= MAX_DAYS:
        return int(given[0])
    return problems.problem(
        400, "bad_request", f"days must be given once, as a whole number from 1 to {MAX_DAYS}."
    )


def _admin_report(now: datetime, days: int) -> dict[str, Any]:
    return {
        "generatedAt": now.isoformat(timespec="seconds").replace("+00:00", "Z"),
        "station": STATION,
        "forecast": [day.full() for day in forecast(now.date(), days)],
    }
