"""A scriptable OpenID provider on a free port: every answer can be bent, every request is recorded."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final
from urllib.parse import parse_qsl, unquote_plus, urlsplit

from joserfc import jws, jwt
from joserfc.jwk import ECKey, KeySet, OKPKey, RSAKey


class _Absent:
    """Named the same in every process, as names of tests must be."""

    def __repr__(self) -> str:
        return "<absent>"


ABSENT: Final = _Absent()
"""As the value of a member, header or claim: leave it out."""

CLIENT_ID = "web-client"
CLIENT_SECRET = "s3cret & with + signs"
SUBJECT = "5f0c8a6e-1d7b-4c1e-9f55-2b8f7d1a0c01"

Key = RSAKey | ECKey | OKPKey
ENDPOINTS = {
    "/.well-known/openid-configuration": "discovery",
    "/jwks": "jwks",
    "/token": "token",
    "/userinfo": "userinfo",
    "/revoke": "revoke",
    "/par": "par",
    "/logout": "logout",
}
ASSERTION_ALGORITHMS = ["RS256", "PS256", "ES256", "ES384", "ES512", "EdDSA"]


@cache
def rsa_key(name: str) -> RSAKey:
    """The RSA key of this name, made once in a test run; its `kid` is the name."""
    return RSAKey.generate_key(2048, {"kid": name, "use": "sig"})


@cache
def ec_key(name: str, curve: str = "P-256") -> ECKey:
    """The same for elliptic curves."""
    return ECKey.generate_key(curve, {"kid": name, "use": "sig"})


@cache
def okp_key(name: str) -> OKPKey:
    """The same for Ed25519."""
    return OKPKey.generate_key("Ed25519", {"kid": name, "use": "sig"})


def changed(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `changes`; `ABSENT` takes a member away."""
    return {name: value for name, value in {**base, **changes}.items() if value is not ABSENT}


def sign(header: Mapping[str, Any], claims: Mapping[str, Any] | bytes, key: Key) -> str:
    """A compact JWS, well signed."""
    payload = claims if isinstance(claims, bytes) else json.dumps(claims).encode()
    registry = jws.JWSRegistry(algorithms=[header["alg"]], strict_check_header=False)
    return jws.serialize_compact(dict(header), payload, key, registry=registry)


def half_hash(access_token: str, algorithm: str = "sha256") -> str:
    """`at_hash` of an access token (OpenID Connect Core §3.1.3.6)."""
    digest = hashlib.new(algorithm, access_token.encode()).digest()
    return base64.urlsafe_b64encode(digest[: len(digest) // 2]).rstrip(b"=").decode()


@dataclass
class Reply:
    """What an endpoint answers; `body` is bytes, or something to be written as JSON."""

    status: int = 200
    body: Any = b""
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0
    """Seconds before the answer begins."""
    drip: float = 0
    """Seconds between any two bytes of the body."""
    head_drip: float = 0
    """Seconds between any two bytes of a header without end, sent instead of the answer."""
    drop: bool = False
    """Close the connection instead of answering."""

    def raw(self) -> bytes:
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


HTML = Reply(200, b"<!doctype html><p>Down for maintenance", {"Content-Type": "text/html"})


@dataclass(frozen=True)
class Seen:
    """A request that reached the provider."""

    endpoint: str
    method: str
    query: str
    headers: dict[str, str]
    form: dict[str, str]
    basic: tuple[str, str] | None
    """Client id and secret of an Authorization header, decoded as RFC 6749 §2.3.1 says."""
    body: str = ""


Scripted = Reply | Callable[[Seen], Reply]


@dataclass
class Grant:
    """What an authorization code or a refresh token stands for."""

    nonce: str | None
    challenge: str
    redirect_uri: str


class ScriptedProvider:
    """An honest provider until a test bends it."""

    def __init__(self, clock: Callable[[], float] = time.time, path: str = "") -> None:
        """`path` is the issuer's, a trailing slash included."""
        self._server = _Server(self)
        self.base = f"http://127.0.0.1:{self._server.server_address[1]}"
        self.issuer = self.base + path
        self.clock = clock
        self.discovery: dict[str, Any] = {}
        self.replies: dict[str, Scripted] = {}
        self.seen: list[Seen] = []
        self.keys: list[Key] = [rsa_key("rsa-1")]
        self.header: dict[str, Any] = {}
        self.claims: dict[str, Any] = {}
        self.forge: Callable[[dict[str, Any]], str] | None = None
        """Makes the ID token of its claims, in place of the honest signature."""
        self.token_members: dict[str, Any] = {}
        self.userinfo: dict[str, Any] = {}
        self.lifetime = 300
        self.pushed: dict[str, dict[str, str]] = {}
        self.client_keys: Any = None
        """The JWK set that the client has registered for private_key_jwt."""
        self.service_client: tuple[str, str] | None = None
        self.assertions: set[str] = set()
        self.grants: dict[str, Grant] = {}
        self.secrets: set[str] = {CLIENT_SECRET}
        """Everything that nobody but the client may ever see: tokens, codes, verifiers."""

    def reset(self) -> None:
        """Be honest again, and forget what was asked; what has been published stays."""
        for bent in (self.replies, self.header, self.claims, self.token_members, self.userinfo, self.seen):
            bent.clear()
        self.forge = None
        self.lifetime = 300

    # -- what it publishes --------------------------------------------------------------------------

    def metadata(self) -> dict[str, Any]:
        base = {
            "issuer": self.issuer,
            "authorization_endpoint": self.base + "/authorize",
            "token_endpoint": self.base + "/token",
            "jwks_uri": self.base + "/jwks",
            "userinfo_endpoint": self.base + "/userinfo",
            "revocation_endpoint": self.base + "/revoke",
            "end_session_endpoint": self.base + "/logout",
            "id_token_signing_alg_values_supported": ["RS256"],
        }
        return changed(base, self.discovery)

    def jwks(self) -> dict[str, Any]:
        return {"keys": [key.as_dict(private=False) for key in self.keys]}

    # -- what a browser would do there --------------------------------------------------------------

    def authorize(self, url: str, **changes: Any) -> dict[str, str]:
        """Sign in at the authorization request `url`: the members of the response, bent by `changes`."""
        asked = dict(parse_qsl(urlsplit(url).query, keep_blank_values=True))
        if "request_uri" in asked:
            asked = self.pushed.pop(asked["request_uri"])
        code = self.new_secret("code")
        self.grants[code] = Grant(asked.get("nonce"), asked["code_challenge"], asked["redirect_uri"])
        return changed({"code": code, "state": asked["state"]}, changes)

    # -- tokens -------------------------------------------------------------------------------------

    def new_secret(self, kind: str) -> str:
        """A token or code that can be told from everything else."""
        value = f"{kind}-{secrets.token_urlsafe(24)}"
        self.secrets.add(value)
        return value

    def id_claims(self, nonce: str | None, access_token: str) -> dict[str, Any]:
        now = int(self.clock())
        base = {
            "iss": self.issuer,
            "sub": SUBJECT,
            "aud": CLIENT_ID,
            "exp": now + 300,
            "iat": now,
            "auth_time": now - 5,
            "nonce": ABSENT if nonce is None else nonce,
            "at_hash": half_hash(access_token),
            "jti": secrets.token_hex(4),
            "email": "alice@example.com",
            "name": "Alice Example",
            "groups": ["readers", "writers"],
        }
        return changed(base, self.claims)

    def id_token(self, nonce: str | None, access_token: str) -> str:
        key = self.keys[0]
        header = changed({"alg": "RS256", "kid": key.kid}, self.header)
        claims = self.id_claims(nonce, access_token)
        token = self.forge(claims) if self.forge else sign(header, claims, key)
        if len(token) > 20:
            self.secrets.add(token)
        return token

    def token_answer(self, grant: Grant) -> dict[str, Any]:
        access_token, refresh_token = self.new_secret("access"), self.new_secret("refresh")
        self.grants[refresh_token] = replace(grant, nonce=None)
        base = {
            "access_token": access_token,
            "token_type": "Bearer",
            "expires_in": self.lifetime,
            "refresh_token": refresh_token,
            "id_token": self.id_token(grant.nonce, access_token),
            "scope": "openid email profile",
        }
        return changed(base, self.token_members)

    # -- the server ---------------------------------------------------------------------------------

    def count(self, endpoint: str) -> int:
        """How often an endpoint was called."""
        return sum(seen.endpoint == endpoint for seen in self.seen)

    def last(self, endpoint: str) -> Seen:
        """The newest request to an endpoint."""
        return [seen for seen in self.seen if seen.endpoint == endpoint][-1]

    def answer(self, seen: Seen) -> Reply:
        self.seen.append(seen)
        if "code_verifier" in seen.form:
            self.secrets.add(seen.form["code_verifier"])
        script = self.replies.get(seen.endpoint)
        if script is not None:
            return script(seen) if callable(script) else script
        honest: dict[str, Callable[[], Reply]] = {
            "par": lambda: self._pushed(seen),
            "discovery": lambda: Reply(body=self.metadata()),
            "jwks": lambda: Reply(body=self.jwks()),
            "token": lambda: self._token(seen),
            "userinfo": lambda: Reply(body=changed({"sub": SUBJECT}, self.userinfo)),
            "revoke": lambda: Reply(),
        }
        return honest.get(seen.endpoint, lambda: Reply(404))()

    def _pushed(self, seen: Seen) -> Reply:
        """RFC 9126 §2.2."""
        if not self._is_our_client(seen):
            return Reply(401, {"error": "invalid_client"})
        request_uri = "urn:ietf:params:oauth:request_uri:" + secrets.token_urlsafe(12)
        self.pushed[request_uri] = seen.form
        return Reply(201, {"request_uri": request_uri, "expires_in": 60})

    def _is_our_client(self, seen: Seen) -> bool:
        """By secret, or by an assertion that one of the registered keys has signed (RFC 7523 §3)."""
        assertion = seen.form.get("client_assertion")
        if assertion is not None and self.client_keys:
            self.secrets.add(assertion)
            return self._asserted(assertion)
        given = seen.basic or (seen.form.get("client_id"), seen.form.get("client_secret"))
        return given in ((CLIENT_ID, CLIENT_SECRET), self.service_client)

    def _asserted(self, assertion: str) -> bool:
        token = jwt.decode(
            assertion, KeySet.import_key_set(self.client_keys), algorithms=ASSERTION_ALGORITHMS
        )
        claims, now = token.claims, time.time()
        fresh = claims["jti"] not in self.assertions and now < claims["exp"] <= now + 300
        self.assertions.add(claims["jti"])
        named = (claims["iss"], claims["sub"], claims["aud"]) == (CLIENT_ID, CLIENT_ID, self.base + "/token")
        return fresh and named and "kid" in token.header

    def logout_token(self, **changes: Any) -> str:
        """A logout token (Back-Channel Logout 1.0 §2.4), bent by `changes`; `header` is its header's."""
        now = int(self.clock())
        base = {
            "iss": self.issuer,
            "aud": CLIENT_ID,
            "iat": now,
            "exp": now + 120,
            "jti": secrets.token_hex(8),
            "sub": SUBJECT,
            "events": {"http://schemas.openid.net/event/backchannel-logout": {}},
        }
        key = self.keys[0]
        header = changed({"alg": "RS256", "kid": key.kid, "typ": "logout+jwt"}, changes.pop("header", {}))
        return sign(header, changed(base, changes), key)

    def _client_token(self, seen: Seen) -> Reply:
        token = self.new_secret("client-access")
        body = {"access_token": token, "token_type": "Bearer", "expires_in": self.lifetime}
        return Reply(body=changed(body, self.token_members))

    def _token(self, seen: Seen) -> Reply:
        if not self._is_our_client(seen):
            return Reply(401, {"error": "invalid_client"})
        if seen.form.get("grant_type") == "client_credentials":
            return self._client_token(seen)
        grant = self.grants.pop(seen.form.get("code") or seen.form.get("refresh_token") or "", None)
        if grant is None:
            return Reply(400, {"error": "invalid_grant"})
        if seen.form["grant_type"] == "authorization_code":
            digest = hashlib.sha256(seen.form["code_verifier"].encode()).digest()
            challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
            if (challenge, seen.form["redirect_uri"]) != (grant.challenge, grant.redirect_uri):
                return Reply(400, {"error": "invalid_grant"})
        return Reply(body=self.token_answer(grant), headers={"Cache-Control": "no-store"})

    def start(self) -> None:
        threading.Thread(target=self._server.serve_forever, args=(0.004,), daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def scripted_provider(clock: Callable[[], float] = time.time, path: str = "") -> Iterator[ScriptedProvider]:
    """A provider for the length of a block."""
    provider = ScriptedProvider(clock, path)
    provider.start()
    try:
        yield provider
    finally:
        provider.stop()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, provider: ScriptedProvider) -> None:
        self.provider = provider
        super().__init__(("127.0.0.1", 0), _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has gone is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def do_GET(self) -> None:
        self._answer(self.server.provider.answer(self._seen()))

    do_POST = do_GET

    def log_message(self, *_args: Any) -> None:
        """Tests read `seen`."""

    def _seen(self) -> Seen:
        parts = urlsplit(self.path)
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length).decode()
        form = dict(parse_qsl(body, keep_blank_values=True))
        endpoint = next((name for path, name in ENDPOINTS.items() if parts.path.endswith(path)), parts.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        return Seen(endpoint, self.command, parts.query, headers, form, _basic(headers), body)

    def _answer(self, reply: Reply) -> None:
        time.sleep(reply.delay)
        if reply.drop:
            self.close_connection = True
            return
        if reply.head_drip:
            self._drip_for_ever(reply)
            return
        body = reply.raw()
        self.send_response(reply.status)
        headers = {"Content-Type": "application/json", "Content-Length": str(len(body)), **reply.headers}
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        pieces = [body[i : i + 1] for i in range(len(body))] if reply.drip else [body]
        for piece in pieces:
            time.sleep(reply.drip)
            self.wfile.write(piece)

    def _drip_for_ever(self, reply: Reply) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Drip: ")
        self.close_connection = True
        with suppress(OSError):
            while True:
                self.wfile.write(b"x")
                time.sleep(reply.head_drip)


def _basic(headers: Mapping[str, str]) -> tuple[str, str] | None:
    scheme, _, value = headers.get("authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return None
    user, _, password = base64.b64decode(value).decode().partition(":")
    return unquote_plus(user), unquote_plus(password)
