"""Drives the provider as a browser and a relying party would."""

import base64
import hashlib
import json
import re
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from bff.dev_idp import Settings
from bff.dev_idp.context import _KEY
from bff.dev_idp.services import Services

ORIGIN = "http://127.0.0.1:5002"
CALLBACK = "http://localhost:5003/bff/callback"
HOME = "http://localhost:5003/"
VERIFIER = "verifier-" * 6
CHALLENGE = base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).decode()[:43]
SCOPE = "openid email profile api://weather/access"
ALICE = "alice@example.com"
ADMIN = "admin@example.com"
PASSWORD = "Passw0rd!"


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now

    def forward(self, seconds: float) -> None:
        self.now += seconds


def services(app: Flask) -> Services:
    """The parts behind an application."""
    found: Services = app.extensions[_KEY].services
    return found


def request_parameters(**changes: str | None) -> dict[str, str]:
    """A good authorization request, with members changed, added or (None) left out."""
    parameters: dict[str, str | None] = {
        "response_type": "code",
        "client_id": "local-client",
        "redirect_uri": CALLBACK,
        "scope": SCOPE,
        "state": "state-1",
        "nonce": "nonce-1",
        "code_challenge": CHALLENGE,
        "code_challenge_method": "S256",
        **changes,
    }
    return {name: value for name, value in parameters.items() if value is not None}


def query_of(url: str | None) -> dict[str, str]:
    """The parameters of a URL's query, each of which must occur once."""
    assert url is not None
    found = parse_qs(urlsplit(url).query, keep_blank_values=True, strict_parsing=True)
    assert all(len(values) == 1 for values in found.values())
    return {name: values[0] for name, values in found.items()}


def hidden(page: TestResponse, name: str) -> str:
    """The value of a hidden field."""
    found = re.search(rf'name="{name}" value="([^"]*)"', page.text)
    assert found is not None
    return found[1]


def decode(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Header and claims of a token, unverified."""
    header, payload, _ = token.split(".")
    return _part(header), _part(payload)


def _part(segment: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(segment + "=="))
    return found


@dataclass
class Browser:
    """One browser at one provider, with the relying party's calls beside it."""

    app: Flask
    settings: Settings = field(default_factory=Settings)
    origin: str = ORIGIN

    def __post_init__(self) -> None:
        self.client: FlaskClient = self.app.test_client()

    def get(self, path: str, **parameters: str) -> TestResponse:
        # Buffered: a static file is closed at once.
        return self.client.get(path, query_string=parameters, base_url=self.origin, buffered=True)

    def post(self, path: str, data: dict[str, str], **kwargs: Any) -> TestResponse:
        return self.client.post(path, data=data, base_url=self.origin, **kwargs)

    def authorize(self, **changes: str | None) -> TestResponse:
        return self.get("/oauth2/authorize", **request_parameters(**changes))

    def submit_login(
        self, username: str = ALICE, password: str = PASSWORD, **changes: str | None
    ) -> TestResponse:
        query = request_parameters(**changes)
        page = self.get("/login", **query)
        assert page.status_code == 200, page.text
        return self.post(
            f"/login?{urlencode(query)}",
            {
                "username": username,
                "password": password,
                "form_token": hidden(page, "form_token"),
            },
        )

    def sign_in(self, username: str = ALICE, **changes: str | None) -> str:
        """Sign in; gives the code."""
        response = self.submit_login(username, PASSWORD, **changes)
        assert response.status_code == 303, response.text
        return query_of(response.location)["code"]

    def token(self, **form: str) -> TestResponse:
        return self.post("/oauth2/token", form, auth=(self.settings.client_id, self.settings.client_secret))

    def redeem(self, code: str, **changes: str) -> TestResponse:
        form = {"code": code, "redirect_uri": CALLBACK, "code_verifier": VERIFIER, **changes}
        return self.token(grant_type="authorization_code", **form)

    def refresh(self, refresh_token: str, **more: str) -> TestResponse:
        return self.token(grant_type="refresh_token", refresh_token=refresh_token, **more)

    def tokens(self, username: str = ALICE, **changes: str | None) -> dict[str, Any]:
        """Sign in and redeem the code; gives the token response."""
        response = self.redeem(self.sign_in(username, **changes))
        assert response.status_code == 200, response.text
        found: dict[str, Any] = response.get_json()
        return found

    def revoke(self, token: str, **more: str) -> TestResponse:
        return self.post(
            "/oauth2/revoke",
            {"token": token, **more},
            auth=(self.settings.client_id, self.settings.client_secret),
        )

    def user_info(self, access_token: str) -> TestResponse:
        return self.client.get(
            "/oauth2/userInfo",
            headers={"Authorization": f"Bearer {access_token}"},
            base_url=self.origin,
        )
