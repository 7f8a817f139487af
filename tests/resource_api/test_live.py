"""`bff api` as it runs: several processes, a real issuer, and bytes that no client library sends."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.forge import Forge
from tests.resource_api.issuer import LocalIssuer
from tests.support.stopwatch import Stopwatch
from tests.support.wire import until

pytestmark = pytest.mark.e2e

WORKERS = 2


class Api:
    """The running command, and its issuer."""

    def __init__(self, issuer: LocalIssuer, output: Path, workers: int) -> None:
        self.issuer = issuer
        self.forge = Forge(issuer.issuer, now=int(time.time()))
        issuer.jwks = self.forge.jwks()
        self.output = output
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = int(probe.getsockname()[1])
        environ = {
            "PATH": os.environ["PATH"],
            "API_BIND": f"127.0.0.1:{self.port}",
            "API_ISSUER": issuer.issuer,
            "API_CLIENT_IDS": self.forge.client_id,
            "API_WORKERS": str(workers),
        }
        with output.open("wb") as file:
            command = [sys.executable, "-m", "bff", "api"]
            self.process = subprocess.Popen(command, env=environ, stdout=file, stderr=file)

    def send(self, data: bytes) -> socket.socket:
        """A connection on which this has been sent."""
        connection = socket.create_connection(("127.0.0.1", self.port), 10)
        connection.sendall(data)
        return connection

    def get(self, path: str, *lines: str) -> tuple[int, dict[str, str], str]:
        """Status, headers (names in lower case) and body of a GET with these header lines."""
        head = [f"GET {path} HTTP/1.1", "Host: localhost", "Connection: close", *lines, "", ""]
        with self.send("\r\n".join(head).encode("latin-1")) as connection, connection.makefile("rb") as file:
            top, _, body = file.read().partition(b"\r\n\r\n")
        first, *rest = top.decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in rest)}
        return int(first.split(" ")[1]), headers, body.decode()

    def status(self, token: str) -> int:
        """The status of the weather for a token."""
        return self.get("/weather", f"Authorization: Bearer {token}")[0]

    def answers(self) -> bool:
        """Whether it listens."""
        try:
            return self.get("/health")[0] == 200
        except (OSError, IndexError):
            return False


@contextmanager
def running(folder: Path, *, down: bool = False, workers: int = WORKERS) -> Iterator[Api]:
    """`bff api` for the length of a block."""
    issuer = LocalIssuer("/pool")
    issuer.down = down
    api = Api(issuer, folder / "output", workers)
    try:
        assert until(lambda: api.answers() or api.process.poll() is not None, within=20), "it does not answer"
        assert api.process.poll() is None, api.output.read_text()
        yield api
    finally:
        # Asked to end, so that it ends its workers; killed, it would leave them behind for a while.
        api.process.terminate()
        try:
            api.process.wait(20)
        except subprocess.TimeoutExpired:
            api.process.kill()
            api.process.wait()
        issuer.close()


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """One for all tests that do no harm to it."""
    with running(tmp_path_factory.mktemp("api")) as api:
        yield api


def test_a_crowd_is_one_fetch_for_each_process(live: Api) -> None:
    """Good tokens and unknown kids all at once: nobody is let down, and the issuer hardly notices."""
    good = live.forge.access_token()
    unknown = [live.forge.access_token(live.forge.header(kid=f"unknown-{n}")) for n in range(60)]
    with ThreadPoolExecutor(24) as pool:
        assert list(pool.map(live.status, [good] * 60)) == [200] * 60
        began = time.monotonic()
        # 503 where the fetch takes longer than most of them wait; when it is over, nothing is left open.
        assert set(pool.map(live.status, unknown)) <= {401, 503}
        assert until(lambda: {live.status(token) for token in unknown[:8]} == {401}, within=10)
        assert list(pool.map(live.status, unknown)) == [401] * 60
        rounds = 1 + int(time.monotonic() - began) // 5
    assert live.issuer.fetches <= WORKERS * (1 + rounds)


@pytest.mark.parametrize(
    "lines",
    [
        ["Authorization: Bearer TOKEN", "Authorization: Bearer TOKEN"],
        ["Authorization: Bearer TOKEN", "authorization: Basic eDp5"],
        ["AUTHORIZATION: Basic eDp5", "Authorization: Bearer TOKEN"],
        ["Authorization: Bearer TOKEN", "Authorization:"],
        ["Authorization:", "Authorization: Bearer TOKEN"],
        ["Authorization: Bearer TOKEN", "Authorization: Bearer junk"],
        ["Authorization: Bearer TOKEN", "Authorization: a=b"],
        ['Authorization: "x"', "Authorization: Bearer TOKEN"],
        ["Authorization: Basic eDp5", "Authorization: Bearer"],
        ["Authorization: Bearer", "Authorization: Basic eDp5"],
    ],
)
def test_two_headers_on_the_wire(live: Api, lines: list[str]) -> None:
    """However the server joins them, two are two."""
    token = live.forge.access_token()
    status, headers, body = live.get("/weather", *(line.replace("TOKEN", token) for line in lines))
    assert (status, headers["www-authenticate"]) == (400, 'Bearer error="invalid_request"')
    assert json.loads(body)["code"] == "invalid_request"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("Authorization: Bearer\r\n TOKEN", {400}),
        ("Authorization : Bearer TOKEN", {400}),
        ("Author_ization: Bearer TOKEN", {401}),
        ("HTTP_AUTHORIZATION: Bearer TOKEN", {401}),
        ("X-Forwarded-Authorization: Bearer TOKEN", {401}),
        ("Cookie: access_token=TOKEN", {401}),
        ("Authorization: Bearer TOKEN\x00", {400, 401}),
        ("Authorization: Bearer \xff", {401}),
        ("Authorization: Bearer " + "a" * 60_000, {401}),
        ("Authorization: Bearer " + "a" * 100_000, {431}),
    ],
)
def test_odd_lines_on_the_wire(live: Api, line: str, expected: set[int]) -> None:
    """What is no plain header is no way in, and breaks nothing."""
    assert live.get("/weather", line.replace("TOKEN", live.forge.access_token()))[0] in expected


def test_who_sends_a_body_at_a_crawl_holds_nothing(live: Api) -> None:
    """A form is announced and never sent, by more clients than there are threads, good tokens included."""
    head = (
        "POST /weather HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer JUNK\r\n"
        "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 1000\r\n\r\n"
    )
    held = []
    strange = ["junk", live.forge.access_token(exp=1, iat=0), live.forge.id_token()]
    for token in (*strange, live.forge.access_token(scope="other"), live.forge.access_token()):
        for method in ("POST", "GET"):
            data = head.replace("JUNK", token).replace("POST", method).encode()
            held += [live.send(data) for _ in range(20)]
    began = Stopwatch()
    for _ in range(10):
        assert live.get("/health")[0] == 200
        assert live.status(live.forge.access_token()) == 200
    assert began.own < 3
    for connection in held:
        connection.close()


def test_invented_kids_stall_nobody_behind_a_slow_issuer(tmp_path: Path) -> None:
    """More strangers than threads, an issuer that takes seconds: health and known keys go on."""
    with running(tmp_path, workers=1) as api:
        good = api.forge.access_token()
        assert api.status(good) == 200
        api.issuer.gate.clear()
        time.sleep(5.1)  # the cooldown after the first fetch
        unknown = [api.forge.access_token(api.forge.header(kid=f"unknown-{n}")) for n in range(40)]
        with ThreadPoolExecutor(40) as pool:
            answers = [pool.submit(api.status, token) for token in unknown]
            time.sleep(0.5)
            began = Stopwatch()
            assert (api.get("/health")[0], api.status(good)) == (200, 200)
            assert began.own < 2.5
            assert {answer.result() for answer in answers} <= {401, 503}


def test_an_issuer_that_is_down_at_start(tmp_path: Path) -> None:
    """`/health` is 200, `/weather` 503 with the time to wait; after that it works, all by itself."""
    with running(tmp_path, down=True) as api:
        token = api.forge.access_token()
        status, headers, body = api.get("/weather", f"Authorization: Bearer {token}")
        assert (status, headers["content-type"]) == (503, "application/problem+json")
        assert json.loads(body)["code"] == "provider_unavailable"
        assert api.get("/health")[0] == 200
        assert api.get("/health/ready")[0] == 503
        api.issuer.down = False
        # Each process has to find out for itself.
        soon = int(headers["retry-after"]) + 1 + WORKERS * 5
        assert until(lambda: [api.status(token) for _ in range(8)] == [200] * 8, within=soon)
        log = api.output.read_text()
        assert "reason=keys_unavailable" in log
        assert token not in log
