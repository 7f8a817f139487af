"""The weather API put together: the only place that builds its concrete objects."""

from __future__ import annotations

import time
from collections.abc import Callable

from flask import Flask, Response
from flask.json.provider import DefaultJSONProvider

from bff.resource_api import cors, problems
from bff.resource_api.jwt.jwks import CachePolicy
from bff.resource_api.jwt.validator import JWTValidator
from bff.resource_api.routes import health_routes, weather_routes
from bff.resource_api.settings import Settings

# No address here takes a body; this much is read to look for a token in a form.
MAX_BODY_BYTES = 64 * 1024


class _JSON(DefaultJSONProvider):
    """Members in the order in which they were written, as the documentation shows them."""

    sort_keys = False


class _App(Flask):
    json_provider_class = _JSON


def create_app(
    settings: Settings,
    *,
    cache_policy: CachePolicy | None = None,
    clock: Callable[[], float] = time.time,
    monotonic: Callable[[], float] = time.monotonic,
) -> Flask:
    """Build the weather API (WSGI). It fetches nothing until a token or a readiness check comes.

    `clock` gives seconds since the epoch, `monotonic` the seconds by which the issuer's keys age.
    """
    app = _App(__name__, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY_BYTES
    app.config["PROVIDE_AUTOMATIC_OPTIONS"] = False
    validator = JWTValidator(
        settings.issuers,
        client_ids=settings.client_ids,
        audience=settings.audience,
        profile=settings.token_profile,
        clock_skew_seconds=settings.clock_skew_seconds,
        allow_http=settings.env == "development",
        ca_file=settings.issuer_ca_file,
        cache_policy=cache_policy,
        clock=clock,
        monotonic=monotonic,
    )
    problems.answer_errors_as_problems(app)
    cors.allow_origins(app, settings.cors_origins)
    app.register_blueprint(health_routes(validator.ready))
    app.register_blueprint(weather_routes(settings.scope, clock))
    validator.protect(app)
    app.after_request(_harden)
    return app


def _harden(response: Response) -> Response:
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers.setdefault("Cache-Control", "no-store")
    return response
