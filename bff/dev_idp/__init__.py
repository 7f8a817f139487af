"""A local OpenID provider for development and tests, shaped like Amazon Cognito.

It speaks to the rest of the world over HTTP alone, so that moving to Cognito is a change of
configuration. Importing this package costs next to nothing: Flask and Authlib are loaded by
`create_app`.
"""

from typing import TYPE_CHECKING

from bff.dev_idp.local_users import TEST_USERS, LocalUser
from bff.dev_idp.settings import Settings, SettingsError, load

if TYPE_CHECKING:
    import flask

__all__ = ["TEST_USERS", "LocalUser", "Settings", "SettingsError", "create_app", "load"]


def create_app(settings: Settings) -> "flask.Flask":
    """Build the provider as a WSGI application.

    Raises `SettingsError` when the state file can't be used.
    """
    from bff.dev_idp.server import create_app as build

    return build(settings)
