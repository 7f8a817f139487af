"""What checking an access token costs: microseconds, its share of a request, and the first token's wait.

    python -m benchmarks.validator

Needs Linux. Microseconds are CPU time, so that a busy machine matters less; the cold figures are time on the
clock. The tokens are shaped like Cognito's and signed with a 2,048-bit key. The issuer is on this machine: a
real one adds the round trips of two connections.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from flask import Flask
from jose import jwt as jose_jwt
from joserfc import jwt as joserfc_jwt
from joserfc.jwk import RSAKey

from bff.resource_api import JWTValidator, TokenRefused, create_app
from bff.resource_api.jwt.compact import inspect
from bff.resource_api.jwt.keys import build_key_set, verify_signature
from bff.resource_api.settings import load
from tests.forge import Forge
from tests.resource_api.issuer import LocalIssuer
from tests.resource_api.test_live import Api, running

ROUNDS, CALLS = 15, 400


def microseconds(call: Callable[[], object], calls: int = CALLS) -> float:
    """The median over rounds of one call's CPU time."""
    call()
    rounds = []
    for _ in range(ROUNDS):
        began = time.thread_time()
        for _ in range(calls):
            call()
        rounds.append((time.thread_time() - began) / calls * 1e6)
    return statistics.median(rounds)


def refused(validator: JWTValidator, token: str) -> Callable[[], object]:
    """A call that judges a bad token."""

    def call() -> None:
        try:
            validator.validate(token)
        except TokenRefused:
            return
        raise AssertionError("it was accepted")

    return call


def request(app: Flask, path: str, token: str | None = None) -> Callable[[], object]:
    """A whole request through the application (WSGI), without a server and a network."""
    environ = {
        "REQUEST_METHOD": "GET",
        "PATH_INFO": path,
        "QUERY_STRING": "",
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "5001",
        "HTTP_HOST": "localhost:5001",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "wsgi.url_scheme": "http",
        "wsgi.errors": sys.stderr,
        **({"HTTP_AUTHORIZATION": f"Bearer {token}"} if token else {}),
    }
    statuses: list[str] = []

    def start(status: str, *_: object) -> Any:
        statuses[:] = [status]

    def call() -> None:
        for _ in app({**environ, "wsgi.input": BytesIO()}, start):
            pass
        assert statuses == ["200 OK"]

    return call


@contextmanager
def an_issuer() -> Iterator[tuple[LocalIssuer, Forge]]:
    """An issuer with two keys, and its mint at this very time."""
    issuer = LocalIssuer("/pool")
    forge = Forge(issuer.issuer, now=int(time.time()))
    issuer.jwks = forge.jwks()
    yield issuer, forge
    issuer.close()


def cold(forge: Forge) -> float:
    """Milliseconds of the first token's check: discovery, JWK set, and then the check."""
    token = forge.access_token()
    times = []
    for _ in range(ROUNDS):
        validator = JWTValidator(forge.issuer, client_ids={forge.client_id})
        began = time.perf_counter()
        validator.validate(token)
        times.append((time.perf_counter() - began) * 1e3)
    return statistics.median(times)


def cpu_seconds(pid: int) -> float:
    """CPU time of a process and its children so far."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    own = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return own + sum(cpu_seconds(int(child)) for child in children)


def served(api: Api, path: str, token: str, requests: int = 4000) -> float:
    """CPU microseconds of `bff api` for one request on a kept-alive connection."""
    connection = HTTPConnection("127.0.0.1", api.port)
    headers = {"Authorization": f"Bearer {token}"}

    def ask(times: int) -> None:
        for _ in range(times):
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            answer.read()
            assert answer.status == 200

    ask(100)
    began = cpu_seconds(api.process.pid)
    ask(requests)
    used = cpu_seconds(api.process.pid) - began
    connection.close()
    return used / requests * 1e6


def main() -> None:
    """Measure, and print one figure a line."""
    with an_issuer() as (issuer, forge):
        token = forge.access_token()
        began = time.perf_counter()
        JWTValidator(forge.issuer, client_ids={forge.client_id}).validate(token)
        print(f"cold, the very first token of a process: {(time.perf_counter() - began) * 1e3:.0f} ms")
        print(f"cold JWKS, modules loaded: {cold(forge):.1f} ms (two requests to an issuer on this machine)")

        validator = JWTValidator(forge.issuer, client_ids={forge.client_id})
        validated = microseconds(lambda: validator.validate(token))
        print(f"warm JWKS, a good token of {len(token)} bytes: {validated:.0f} µs")
        algorithms = frozenset({"RS256"})
        inspected = inspect(token, algorithms)
        (key,) = build_key_set([forge.signer.jwk()], algorithms).values()
        looked = microseconds(lambda: inspect(token, algorithms))
        verified = microseconds(lambda: verify_signature(inspected, key))
        print(f"  of which looking at it before trusting: {looked:.0f} µs")
        print(f"  of which the signature: {verified:.0f} µs")
        for name, bad in {
            "another algorithm": forge.access_token(forge.header(alg="HS256")),
            "an unknown kid": forge.access_token(forge.header(kid="unknown")),
            "a bad signature": f"{token[:-8]}AAAAAAAA",
            "16 KiB of junk": "a." + "b" * 16_000 + ".c",
        }.items():
            print(f"warm JWKS, refused for {name}: {microseconds(refused(validator, bad)):.0f} µs")

        environ = {"API_ISSUER": forge.issuer, "API_CLIENT_IDS": forge.client_id}
        app = create_app(load(environ))
        health, weather = microseconds(request(app, "/health")), microseconds(request(app, "/weather", token))
        print(f"a request through the application: /health {health:.0f} µs, /weather {weather:.0f} µs")
        print(f"  the check's share of /weather: {validated / weather:.0%}")

        with TemporaryDirectory() as folder, running(Path(folder)) as api:
            fresh = api.forge.access_token()
            health, weather = served(api, "/health", fresh), served(api, "/weather", fresh)
        print(f"a request to `bff api`, whole process: /health {health:.0f} µs, /weather {weather:.0f} µs")
        print(f"  the check's share of /weather: {validated / weather:.0%}")

        jwk = RSAKey.import_key(forge.signer.jwk())
        print("for comparison, signature and JSON alone:")
        joserfc = microseconds(lambda: joserfc_jwt.decode(token, jwk, algorithms=["RS256"]))
        print(f"  joserfc, key at hand: {joserfc:.0f} µs")
        options = {"verify_aud": False}
        jose = microseconds(
            lambda: jose_jwt.decode(token, issuer.jwks, algorithms=["RS256"], options=options)
        )
        print(f"  python-jose by itself, given the JWK set: {jose:.0f} µs")


if __name__ == "__main__":
    main()
