"""Two certified providers and a BFF for each way to be their client, all started when first asked for."""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from benchmarks.proxy.programs import free_port
from bff.client_key import load_client_key, public_jwks
from bff.sealing import new_key
from tests.certified.provider import CertifiedProvider
from tests.support.process import ServeProcess
from tests.support.upstream import Request, ScriptedUpstream, Wire, ok
from tests.support.wire import until

SHORT_SECONDS, LONG_SECONDS = 4, 300
SECRET = "a secret: with %2B, + and / in it, long enough"
"""With characters that read differently where a client does not form-encode them (RFC 6749 §2.3.1)."""


@dataclass(frozen=True)
class Way:
    """A registered client and the settings of its BFF."""

    client_id: str
    method: str
    demanding: bool
    """Whether it is a client of the provider that takes pushed requests alone and has short tokens."""
    settings: dict[str, str] = field(default_factory=dict)


WAYS = {
    "basic": Way("bff:basic", "client_secret_basic", demanding=True),
    "form": Way(
        "bff-form", "client_secret_post", demanding=True, settings={"oidc_response_mode": "form_post"}
    ),
    "key": Way("bff-key", "private_key_jwt", demanding=True),
    "plain": Way("bff-plain", "client_secret_basic", demanding=False, settings={"oidc_id_token_hint": "on"}),
}


@dataclass(frozen=True)
class Served:
    """A running BFF, its provider and the API behind it."""

    url: str
    way: Way
    provider: CertifiedProvider
    upstream: ScriptedUpstream


class Stage:
    """Everything that the tests need; `close` ends it."""

    def __init__(self, folder: Path, store_url: str) -> None:
        self._folder = folder
        self._store_url = store_url
        self._ports = {name: free_port() for name in WAYS}
        self._served: dict[str, Served] = {}
        self._stack = ExitStack()
        self._key_file = folder / "client.pem"
        self._key_file.write_bytes(
            ec.generate_private_key(ec.SECP256R1()).private_bytes(
                Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
            )
        )

    def close(self) -> None:
        self._stack.close()

    def bff(self, name: str) -> Served:
        """The BFF of that way, running and ready."""
        if name not in self._served:
            self._served[name] = self._start(name)
        return self._served[name]

    @cached_property
    def demanding(self) -> CertifiedProvider:
        """Takes pushed requests alone; its access tokens live for seconds."""
        return self._provider(demanding=True, par="required", access_token_seconds=SHORT_SECONDS)

    @cached_property
    def plain(self) -> CertifiedProvider:
        """Knows no pushed requests; its logout tokens name no session."""
        return self._provider(demanding=False, par="off", access_token_seconds=LONG_SECONDS)

    @cached_property
    def upstream(self) -> ScriptedUpstream:
        """Answers with the `Authorization` that came."""
        upstream = ScriptedUpstream()
        self._stack.callback(upstream.close)
        upstream.script = _tell_authorization
        return upstream

    def _provider(self, *, demanding: bool, par: str, access_token_seconds: int) -> CertifiedProvider:
        clients = [self._client(name) for name, way in WAYS.items() if way.demanding == demanding]
        provider = CertifiedProvider(
            self._folder, par=par, access_token_seconds=access_token_seconds, clients=clients
        )
        self._stack.callback(provider.stop)
        provider.wait()
        return provider

    def _client(self, name: str) -> dict[str, Any]:
        way, url = WAYS[name], self._url(name)
        client = {
            "client_id": way.client_id,
            "token_endpoint_auth_method": way.method,
            "redirect_uris": [f"{url}/bff/callback"],
            "post_logout_redirect_uris": [f"{url}/"],
            "grant_types": ["authorization_code", "refresh_token"],
            "response_types": ["code"],
            "backchannel_logout_uri": f"{url}/bff/backchannel",
            "backchannel_logout_session_required": way.demanding,
        }
        if way.method == "private_key_jwt":
            return client | {"jwks": public_jwks(load_client_key(self._key_file))}
        return client | {"client_secret": SECRET}

    def _url(self, name: str) -> str:
        """Another site than the provider's 127.0.0.1, as in the world."""
        return f"http://localhost:{self._ports[name]}"

    def _start(self, name: str) -> Served:
        way = WAYS[name]
        provider = self.demanding if way.demanding else self.plain
        process = ServeProcess(
            self._ports[name], self._environment(name, provider), self._folder / f"bff-{name}"
        )
        self._stack.callback(process.kill)
        assert until(process.ready, within=40), (self._folder / f"bff-{name}").read_text()
        return Served(self._url(name), way, provider, self.upstream)

    def _environment(self, name: str, provider: CertifiedProvider) -> dict[str, str]:
        way, port = WAYS[name], self._ports[name]
        by_key = way.method == "private_key_jwt"
        proof = ("KEY_FILE", str(self._key_file)) if by_key else ("SECRET", SECRET)
        settings = {f"BFF_{setting.upper()}": value for setting, value in way.settings.items()}
        return settings | {
            "BFF_ENV": "development",
            "BFF_WORKERS": "1",
            "BFF_BIND": f"127.0.0.1:{port}",
            "BFF_PUBLIC_URL": self._url(name),
            "BFF_OIDC_ISSUER": provider.issuer,
            "BFF_OIDC_CLIENT_ID": way.client_id,
            "BFF_OIDC_CLIENT_AUTH": way.method,
            f"BFF_OIDC_CLIENT_{proof[0]}": proof[1],
            "BFF_REDIS_URL": self._store_url,
            "BFF_REDIS_PREFIX": f"certified-{name}:",
            "BFF_SECRET_KEYS": new_key(),
            "BFF_API_URL": self.upstream.url,
            "BFF_LOG_FORMAT": "json",
        }


def _tell_authorization(wire: Wire, request: Request) -> object:
    wire.body(request)
    wire.send(ok(json.dumps(request.all("authorization")).encode(), b"content-type: application/json"))
    return True
