"""Where instruments can be fitted: the seams at which measuring and tracing wrap the parts.

The parts know nothing of it, and without instruments nothing is in their way.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from bff.asgi import Receive, Scope, Send
from bff.dataplane import DataPlane
from bff.exchange import Exchange
from bff.metrics import Metrics, NoMetrics
from bff.provider.transport import BoundedAdapter
from bff.proxy import Proxy
from bff.refresh import RefreshingProvider
from bff.sessions.reader import Asks


class Plane(Protocol):
    """The whole program as the server sees it."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Its life."""

    async def exchange(self, exchange: Exchange) -> None:
        """One request."""

    async def forward_auth(self, exchange: Exchange) -> None:
        """One question of a proxy."""

    def drain(self) -> None:
        """It is about to end."""


class Instruments:
    """None at all: everything is as it was. Others fit some."""

    metrics: Metrics = NoMetrics()

    def adapter(self, deadline_seconds: float, authorities: Path | None) -> BoundedAdapter:
        """What calls the provider."""
        return BoundedAdapter(deadline_seconds, authorities)

    def wire(self, wire: Asks) -> Asks:
        """The connection that each proxied request asks."""
        return wire

    def provider(self, provider: RefreshingProvider) -> RefreshingProvider:
        """The provider as refreshes see it."""
        return provider

    def proxy(self, **parts: Any) -> Proxy:
        """Makes the proxy of its parts."""
        return Proxy(**parts)

    def plane(self, plane: DataPlane) -> Plane:
        """Everything."""
        return plane
