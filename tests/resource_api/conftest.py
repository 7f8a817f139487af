"""An issuer, its forge and the weather API in front of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from bff.resource_api import create_app
from bff.resource_api.settings import load
from tests.forge import Forge
from tests.resource_api.issuer import LocalIssuer


class Clock:
    """Time that passes when told to."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture(scope="module")
def issuer() -> Iterator[LocalIssuer]:
    """An issuer that behaves, shared by a module."""
    server = LocalIssuer("/pool")
    server.jwks = Forge(server.issuer).jwks()
    yield server
    server.close()


@pytest.fixture(scope="module")
def forge(issuer: LocalIssuer) -> Forge:
    """Its mint."""
    return Forge(issuer.issuer)


def build_app(forge: Forge, environ: dict[str, str] | None = None, **options: Any) -> Flask:
    """The weather API for this forge's issuer and client, at the forge's time."""
    settings = load({"API_ISSUER": forge.issuer, "API_CLIENT_IDS": forge.client_id, **(environ or {})})
    return create_app(settings, **{"clock": Clock(forge.now), **options})


@pytest.fixture(scope="module")
def api(forge: Forge) -> FlaskClient:
    """A client of the weather API with nothing but the necessary set."""
    return build_app(forge).test_client()


def bearer(token: str) -> dict[str, str]:
    """The header that carries a token."""
    return {"Authorization": f"Bearer {token}"}
