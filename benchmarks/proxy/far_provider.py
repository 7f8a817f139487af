"""An identity provider that works elsewhere: on a small machine it would compete with who is measured.

Browsers sign in at the local provider, through an nginx in front of it. Then nginx alone answers the token
endpoint, with an answer that the provider gave before: what is done for a refresh on this machine is ours.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import secrets
import signal
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import requests

from benchmarks.proxy.programs import CannotMeasure, Program, free_port
from benchmarks.proxy.signing_in import TIMEOUT_SECONDS, sign_in
from benchmarks.proxy.world import CLIENT_ID, CLIENT_SECRET, NGINX, SCOPE, Provider, World

TOKEN = "/oauth2/token"
RELOAD_SECONDS = 0.5
CONTENT = """
  log_format asked '$request_method $status';
  server {{
    listen 127.0.0.1:{port};
    location / {{ proxy_pass http://127.0.0.1:{near}; proxy_set_header Host $http_host; }}
    location = {token} {{ {answer} }}
  }}
"""


@dataclass
class FarProvider:
    """What stands in front of a provider, for one server of ours."""

    world: World
    name: str
    near: Provider
    program: Program
    refresh_token: str = ""

    @property
    def provider(self) -> Provider:
        """As the server of ours knows it."""
        return Provider(self.program, self.near.issuer)

    def answered(self) -> int:
        """How often the token endpoint has answered since it is nginx's."""
        log = self.world.directory / f"{self.name}.asked"
        return log.read_text().count("POST 200") if log.exists() else 0

    def prepare(self) -> None:
        """From now on give new tokens without any work: those that the provider gives just now."""
        grant = {"grant_type": "refresh_token", "refresh_token": self.refresh_token or self._sign_in()}
        answer = self._redeem(grant)
        self.refresh_token = answer.get("refresh_token", grant["refresh_token"])
        known = json.dumps({name: value for name, value in answer.items() if name != "refresh_token"})
        content = _content(
            self.program.port,
            self.near.program.port,
            f"access_log {self.name}.asked asked; default_type application/json; return 200 '{known}';",
        )
        file = self.world.directory / f"{self.name}.conf"
        file.write_text(NGINX.format(name=self.name, workers=1, content=content))
        os.kill(self.program.group, signal.SIGHUP)
        time.sleep(RELOAD_SECONDS)

    def _sign_in(self) -> str:
        """A refresh token of the benchmark's own."""
        verifier = secrets.token_urlsafe(32)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest())
        asked = {
            "response_type": "code",
            "client_id": CLIENT_ID,
            "redirect_uri": landing(self.world),
            "scope": SCOPE,
            "state": "benchmark",
            "code_challenge": challenge.rstrip(b"=").decode(),
            "code_challenge_method": "S256",
        }
        url = f"http://127.0.0.1:{self.program.port}/oauth2/authorize?{urlencode(asked)}"
        browser = sign_in(url, self.name)
        done = browser.get(url, allow_redirects=False, timeout=TIMEOUT_SECONDS)
        (code,) = parse_qs(urlsplit(done.headers["Location"]).query)["code"]
        redeem = {"grant_type": "authorization_code", "code": code, "code_verifier": verifier}
        token: str = self._redeem(redeem | {"redirect_uri": landing(self.world)})["refresh_token"]
        return token

    def _redeem(self, grant: dict[str, str]) -> dict[str, Any]:
        url = f"http://127.0.0.1:{self.near.program.port}{TOKEN}"
        answer = requests.post(
            url,
            grant,
            auth=(CLIENT_ID, CLIENT_SECRET),
            headers={"Host": f"127.0.0.1:{self.program.port}"},
            timeout=TIMEOUT_SECONDS,
        )
        if answer.status_code != 200:
            raise CannotMeasure(
                f"{self.name}: the provider answered {answer.status_code}: {answer.text[:200]}"
            )
        found: dict[str, Any] = answer.json()
        return found


def landing(world: World) -> str:
    """Where the benchmark's own sign-in ends: a page of the upstream."""
    return f"http://localhost:{world.upstream.port}/counted"


def start(world: World, callback: str, token_seconds: int, name: str) -> FarProvider:
    """Start a provider with nginx in front of it, which passes everything on at first."""
    port, callbacks = free_port(), [callback, landing(world)]
    near = world.start_provider(callbacks, token_seconds, f"{name}-provider", public_port=port)
    passing = f"proxy_pass http://127.0.0.1:{near.program.port}; proxy_set_header Host $http_host;"
    content = _content(port, near.program.port, passing)
    program = world.start_nginx(f"{name}-front", port, content, workers=1)
    return FarProvider(world, program.name, near, program)


def _content(port: int, near: int, answer: str) -> str:
    return CONTENT.format(port=port, near=near, token=TOKEN, answer=answer)
