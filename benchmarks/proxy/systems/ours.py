"""This project's own server, with every check on and its defaults untouched."""

from __future__ import annotations

import base64
import secrets

import requests

from benchmarks.proxy.programs import Program
from benchmarks.proxy.signing_in import cookies_for, sign_in
from benchmarks.proxy.systems.system import Kind, System
from benchmarks.proxy.world import CLIENT_ID, CLIENT_SECRET, PYTHON, SCOPE, Provider, World

CALLBACK = "/bff/callback"
SLOW_ROUTE = """
[[routes]]
path = "/slow"
upstream = "http://127.0.0.1:{slow}"
"""


def serve(
    world: World, provider: Provider, port: int, workers: int, name: str, routes: str = SLOW_ROUTE
) -> Program:
    """Start `bff serve`. It runs in development mode since all of it is on plain http."""
    config = world.directory / f"{name}.toml"
    config.write_text(routes.format(slow=world.slow.port))
    environ = {
        "BFF_ENV": "development",
        "BFF_CONFIG": str(config),
        "BFF_BIND": f"127.0.0.1:{port}",
        "BFF_PUBLIC_URL": f"http://localhost:{port}",
        "BFF_WORKERS": str(workers),
        "BFF_OIDC_ISSUER": provider.issuer,
        "BFF_OIDC_CLIENT_ID": CLIENT_ID,
        "BFF_OIDC_CLIENT_SECRET": CLIENT_SECRET,
        "BFF_OIDC_SCOPE": SCOPE,
        "BFF_OIDC_PROFILE": "cognito",
        "BFF_REDIS_URL": world.redis_url,
        "BFF_REDIS_PREFIX": f"{name}:",
        "BFF_SECRET_KEYS": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode().rstrip("="),
        "BFF_API_URL": f"http://127.0.0.1:{world.upstream.port}",
    }
    return world.start(name, [world.python, "-m", "bff", "serve"], port, PYTHON | environ)


def session_cookie(port: int, name: str) -> str:
    """The Cookie header of a new session."""
    browser = sign_in(f"http://localhost:{port}/bff/login", name)
    return cookies_for(browser, f"http://localhost:{port}/weather")


def session_cookies(port: int, name: str, count: int) -> list[str]:
    """The Cookie headers of many sessions of one user, each in a browser of its own; the provider knows
    the user after the first."""
    first = sign_in(f"http://localhost:{port}/bff/login", name)
    at_provider = [cookie for cookie in first.cookies if not cookie.domain.startswith("localhost")]
    found = [cookies_for(first, f"http://localhost:{port}/weather")]
    while len(found) < count:
        browser = requests.Session()
        for cookie in at_provider:
            browser.cookies.set_cookie(cookie)
        sign_in(f"http://localhost:{port}/bff/login", name, browser)
        found.append(cookies_for(browser, f"http://localhost:{port}/weather"))
    return found


def headers(port: int, cookie: str) -> tuple[str, ...]:
    """What a front end sends with each request."""
    return (f"Host: localhost:{port}", "X-CSRF: 1", f"Cookie: {cookie}")


def _kind(workers: int) -> Kind:
    key, title = f"ours-{workers}", f"bff, {workers} worker{'s' if workers > 1 else ''}"

    def start(world: World, provider: Provider, port: int) -> System:
        program = serve(world, provider, port, workers, key)
        return System(key, title, program, headers(port, session_cookie(port, title)), refusal=401)

    return Kind(key, title, CALLBACK, start)


KINDS = (_kind(1), _kind(2))
