"""oauth2-proxy with sessions in Redis."""

from __future__ import annotations

import secrets

from benchmarks.proxy.signing_in import cookies_for, sign_in
from benchmarks.proxy.systems.system import Kind, System
from benchmarks.proxy.world import CLIENT_ID, CLIENT_SECRET, SCOPE, Provider, World, require

HINT = "take the binary of a release from https://github.com/oauth2-proxy/oauth2-proxy and put it on PATH"
CALLBACK = "/oauth2/callback"


def start(world: World, provider: Provider, port: int) -> System:
    """One process, as it comes; its request log, which the others do not have, is off."""
    binary = require("oauth2-proxy", HINT)
    options = {
        "provider": "oidc",
        "oidc-issuer-url": provider.issuer,
        "client-id": CLIENT_ID,
        "client-secret": CLIENT_SECRET,
        "redirect-url": f"http://localhost:{port}{CALLBACK}",
        "scope": SCOPE,
        "code-challenge-method": "S256",
        "http-address": f"127.0.0.1:{port}",
        "session-store-type": "redis",
        "redis-connection-url": world.redis_url,
        "cookie-secret": secrets.token_hex(16),
        "cookie-secure": "false",
        "email-domain": "*",
        "pass-access-token": "true",
        "skip-provider-button": "true",
        "request-logging": "false",
    }
    upstreams = (
        f"http://127.0.0.1:{world.upstream.port}/weather",
        f"http://127.0.0.1:{world.slow.port}/slow",
    )
    argv = [binary, *(f"--{name}={value}" for name, value in options.items())]
    argv += [f"--upstream={upstream}" for upstream in upstreams]
    program = world.start("oauth2-proxy", argv, port)
    page = f"http://localhost:{port}/weather"
    cookie = cookies_for(sign_in(page, KIND.title), page)
    return System("oauth2-proxy", KIND.title, program, (f"Host: localhost:{port}", f"Cookie: {cookie}"))


KIND = Kind("oauth2-proxy", "oauth2-proxy", CALLBACK, start)
