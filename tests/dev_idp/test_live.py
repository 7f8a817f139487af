"""The provider as a process of its own, on the server it is meant for: what a test client can't show."""

import http.client
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from benchmarks.proxy.programs import free_port
from tests.dev_idp.control import BEARER, TOKEN
from tests.support.stopwatch import Stopwatch
from tests.support.wire import until

JWKS = "/local_pool/.well-known/jwks.json"


@dataclass
class Live:
    """`bff idp`, running."""

    port: int
    output: Path

    def call(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """One request with the control token; status and JSON."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            headers = {**BEARER, "Content-Type": "application/json"}
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()

    def is_up(self) -> bool:
        try:
            return self.call("GET", "/health")[0] == 200
        except OSError:
            return False

    def received(self, head: str) -> bytes:
        """Every byte that comes for a request until the connection ends."""
        with socket.create_connection(("127.0.0.1", self.port), 10) as line:
            line.sendall(f"{head}\r\nHost: localhost:{self.port}\r\n\r\n".encode())
            found = b""
            try:
                while piece := line.recv(65536):
                    found += piece
            except ConnectionResetError:
                pass
            return found


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """One process for this module."""
    port, output = free_port(), tmp_path_factory.mktemp("idp") / "output"
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("BFF_", "API_", "IDP_"))}
    settings = {
        "BFF_ENV": "development",
        "IDP_BIND": f"127.0.0.1:{port}",
        "IDP_PUBLIC_URL": f"http://127.0.0.1:{port}",
        "IDP_ISSUER": f"http://localhost:{port}/local_pool",
        "IDP_CONTROL_TOKEN": TOKEN,
    }
    with output.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "bff", "idp"], env={**kept, **settings}, stdout=file, stderr=file
        )
    found = Live(port, output)
    try:
        assert until(found.is_up, within=20), output.read_text()
        yield found
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture(autouse=True)
def _no_faults_left(live: Live) -> Iterator[None]:
    yield
    live.call("DELETE", "/control/faults")


def _add(live: Live, kind: dict[str, Any], endpoint: str = "jwks", **more: Any) -> None:
    assert live.call("POST", "/control/faults", {"endpoint": endpoint, "fault": kind, **more})[0] == 201


def test_a_dropped_connection_brings_no_byte(live: Live) -> None:
    """Over many: the connection ends without a single byte, and the server takes it for no error."""
    _add(live, {"kind": "drop"}, times=50)
    for _ in range(50):
        assert live.received(f"GET {JWKS} HTTP/1.1") == b""
    assert live.call("GET", JWKS)[0] == 200
    assert "rror" not in live.output.read_text()


@pytest.mark.parametrize("endpoint", ["token", "revoke"])
def test_a_post_is_dropped_as_well(live: Live, endpoint: str) -> None:
    """With its body read or not; the client sees the end of the connection."""
    _add(live, {"kind": "drop"}, endpoint)
    with pytest.raises((http.client.RemoteDisconnected, ConnectionResetError)):
        live.call("POST", f"/oauth2/{endpoint}", {"x": "y" * 1000})
    assert live.call("POST", f"/oauth2/{endpoint}", {"x": "y"})[0] == 400


def test_dropped_requests_at_once_leave_the_others_alone(live: Live) -> None:
    """Of eight connections four are cut, the rest get whole answers."""
    _add(live, {"kind": "drop"}, times=4)

    def one(_: int) -> int:
        try:
            return live.call("GET", JWKS)[0]
        except (http.client.RemoteDisconnected, ConnectionResetError):
            return 0

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(one, range(8))) == [0] * 4 + [200] * 4


def test_slow_answers_leave_room_for_the_control_api(live: Live) -> None:
    """However many wait, the fault can be deleted, and that ends the waiting."""
    _add(live, {"kind": "slow", "seconds": 60}, times=0)
    began = Stopwatch()
    with ThreadPoolExecutor(24) as pool:
        answers = [pool.submit(live.call, "GET", JWKS) for _ in range(24)]
        assert until(lambda: sum(each.done() for each in answers) == 16, within=10)
        assert {each.result()[0] for each in answers if each.done()} == {503}
        assert live.call("DELETE", "/control/faults") == (200, {"deleted": 1})
        statuses = sorted(each.result()[0] for each in answers)
    assert statuses == [200] * 8 + [503] * 16
    assert began.own < 20


def test_the_token_is_in_no_line_of_output(live: Live) -> None:
    """Whatever was done above."""
    live.call("POST", "/control/keys/rotate", {})
    text = live.output.read_text()
    assert "signing keys rotated" in text
    assert TOKEN not in text
