"""A backend-for-frontend: the confidential OpenID Connect client that keeps tokens out of browsers.

`create_app(settings)` builds the whole of it as one ASGI application; it is loaded on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bff._version import __version__

if TYPE_CHECKING:
    from bff.app import create_app

__all__ = ["__version__", "create_app"]


def __getattr__(name: str) -> Any:
    if name == "create_app":
        from bff.app import create_app

        return create_app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
