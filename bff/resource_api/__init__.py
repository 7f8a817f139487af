"""The resource API: validates every access token again.

`JWTValidator` and `requires` are made to be put in front of Flask APIs of your own;
`create_app` builds the small weather API that shows them at work. The names are resolved on first
use, so that importing this package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bff.resource_api.app import create_app
    from bff.resource_api.guard import current_token, protect, public, requires
    from bff.resource_api.jwt.model import AccessToken, KeysUnavailable, TokenProfile, TokenRefused
    from bff.resource_api.jwt.validator import JWTValidator

__all__ = [
    "AccessToken",
    "JWTValidator",
    "KeysUnavailable",
    "TokenProfile",
    "TokenRefused",
    "create_app",
    "current_token",
    "protect",
    "public",
    "requires",
]

_HOMES = {
    "AccessToken": "jwt.model",
    "JWTValidator": "jwt.validator",
    "KeysUnavailable": "jwt.model",
    "TokenProfile": "jwt.model",
    "TokenRefused": "jwt.model",
    "create_app": "app",
    "current_token": "guard",
    "protect": "guard",
    "public": "guard",
    "requires": "guard",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
