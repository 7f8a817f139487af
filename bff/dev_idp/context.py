"""Gives views the parts of the application they run in."""

from dataclasses import dataclass

from flask import Flask, current_app

from bff.dev_idp.oauth import AuthorizationServer
from bff.dev_idp.services import Services

_KEY = "bff.dev_idp"


@dataclass(frozen=True)
class _Parts:
    services: Services
    server: AuthorizationServer


def attach(app: Flask, services: Services, server: AuthorizationServer) -> None:
    """Make the parts available to the application's views."""
    app.extensions[_KEY] = _Parts(services, server)


def services() -> Services:
    """The provider's parts."""
    return _parts().services


def server() -> AuthorizationServer:
    """Authlib's authorization server."""
    return _parts().server


def _parts() -> _Parts:
    parts: _Parts = current_app.extensions[_KEY]
    return parts
