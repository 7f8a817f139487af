"""A tutorial's Flask application on gunicorn's threads."""

from __future__ import annotations

import secrets
import sys

from benchmarks.proxy.signing_in import cookies_for, sign_in
from benchmarks.proxy.systems.system import Kind, System
from benchmarks.proxy.world import CLIENT_ID, CLIENT_SECRET, PYTHON, SCOPE, Provider, World

MODULE = "benchmarks.proxy.systems.tutorial_app"
SERVER = ("--worker-class=gthread", "--workers=2", "--threads=8", "--no-control-socket")


def start(world: World, provider: Provider, port: int) -> System:
    """Two workers with eight threads each."""
    environ = {
        "TUTORIAL_SECRET": secrets.token_urlsafe(32),
        "TUTORIAL_REDIS_URL": world.redis_url,
        "TUTORIAL_CLIENT_ID": CLIENT_ID,
        "TUTORIAL_CLIENT_SECRET": CLIENT_SECRET,
        "TUTORIAL_ISSUER": provider.issuer,
        "TUTORIAL_SCOPE": SCOPE,
        "TUTORIAL_FAST": f"http://127.0.0.1:{world.upstream.port}",
        "TUTORIAL_SLOW": f"http://127.0.0.1:{world.slow.port}",
    }
    argv = [sys.executable, "-m", "gunicorn", *SERVER, "--bind", f"127.0.0.1:{port}", f"{MODULE}:app"]
    program = world.start("tutorial", argv, port, PYTHON | environ)
    browser = sign_in(f"http://localhost:{port}/login", KIND.title)
    cookie = cookies_for(browser, f"http://localhost:{port}/weather")
    headers = (f"Host: localhost:{port}", f"Cookie: {cookie}")
    return System("tutorial", KIND.title, program, headers, refusal=401)


KIND = Kind("tutorial", "a tutorial's Flask BFF, gthread 2×8", "/callback", start)
