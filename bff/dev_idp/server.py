"""Puts the provider's Flask application together."""

import time
from collections.abc import Callable

from flask import Blueprint, Flask, Response

from bff.dev_idp import (
    context,
    discovery,
    endpoints,
    forgot_password,
    grants,
    oauth,
    services,
    sign_in,
    sign_out,
    sign_up,
    web,
)
from bff.dev_idp.control import api, injection
from bff.dev_idp.control import page as control_page
from bff.dev_idp.local_users import TEST_USERS
from bff.dev_idp.pages import page
from bff.dev_idp.settings import Settings
from bff.dev_idp.storage import open_storage

# Forms here are small; more would only fill memory.
_LARGEST_BODY = 64 * 1024

home = Blueprint("home", __name__)


def create_app(settings: Settings, clock: Callable[[], float] = time.time) -> Flask:
    """The provider as a WSGI application for one process and any number of threads.

    `clock` gives seconds since 1970. Raises `SettingsError` when the state file can't be used.
    """
    oauth.keep_tokens_out_of_logs()
    app = Flask("bff.dev_idp")
    app.config["MAX_CONTENT_LENGTH"] = _LARGEST_BODY
    held = services.build(settings, open_storage(settings.state_file), clock, injection.alter_claims)
    authorization_server = oauth.AuthorizationServer(held)
    grants.register(authorization_server)
    context.attach(app, held, authorization_server)
    web.install(app)
    app.register_blueprint(home)
    for part in (sign_in, sign_up, forgot_password, sign_out, endpoints, api, control_page):
        app.register_blueprint(part.views)
    app.register_blueprint(discovery.views, url_prefix=settings.issuer_path or None)
    return app


@home.get("/")
def welcome() -> Response:
    """What this is, for a person who comes across it."""
    settings = context.services().settings
    return page("home.html", issuer=settings.issuer, test_users=TEST_USERS)


@home.get("/health")
def health() -> Response:
    """Whether the provider is up."""
    return endpoints.json_response(200, {"status": "ok"})
