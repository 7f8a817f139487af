"""docker-compose.scale.yml on a real engine: nodes behind nginx, Redis behind Sentinel, parts that die."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import requests

from tests.containers.compose import Compose
from tests.e2e.stack import ALICE, CSRF, PASSWORD, sign_in, submit

pytestmark = [pytest.mark.containers, pytest.mark.timeout(600)]

FAILOVER_SECONDS = 30
CALLERS = 4
NODES = ("bff-1", "bff-2")


class Load:
    """Signed-in calls, one after the other, in a few threads. An answer that breaks off has status 0."""

    def __init__(self, stack: Compose, browser: requests.Session) -> None:
        self.statuses: Counter[int] = Counter()
        self.last_trouble = 0.0
        self._url = f"{stack.url}/weather"
        self._cookie = {"Cookie": "; ".join(f"{c.name}={c.value}" for c in browser.cookies)} | CSRF
        self._stop = threading.Event()

    def run(self) -> None:
        while not self._stop.wait(0.02):
            status = self._call()
            self.statuses[status] += 1
            if status != 200:
                self.last_trouble = time.monotonic()

    def _call(self) -> int:
        try:
            return requests.get(self._url, headers=self._cookie, timeout=20).status_code
        except requests.RequestException:
            return 0

    @contextmanager
    def running(self) -> Iterator[Load]:
        threads = [threading.Thread(target=self.run) for _ in range(CALLERS)]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            for thread in threads:
                thread.join()


def wait_until(holds: Callable[[], bool], seconds: float, what: str) -> None:
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until, what
        time.sleep(0.3)


def both_serve(stack: Compose) -> bool:
    """Whether nginx gives requests to both nodes; one that failed it leaves alone for some seconds."""
    for _ in range(4):
        requests.get(f"{stack.url}/health/live", timeout=20)
    lines = stack.logs("--tail", "4", "nginx").splitlines()
    return {line.split()[-2] for line in lines if " /health/live " in line} == addresses(stack)


def addresses(stack: Compose) -> set[str]:
    """Where nginx finds the nodes."""
    return {f"{stack.settings['WEB_PREFIX']}.{number}:5003" for number in (3, 4)}


def primary(stack: Compose) -> str:
    """Which Redis the sentinels name."""
    script = "REDISCLI_AUTH=$(cat /run/secrets/sentinel-password) exec redis-cli --no-auth-warning -p 26379 "
    answer = stack.execute("sentinel-1", "sh", "-c", script + "sentinel get-master-addr-by-name bff")
    return answer.split()[0]


def test_signs_in_by_way_of_nginx(scaled: Compose) -> None:
    """The whole way works although each step may meet another node, and both nodes get their share."""
    browser = sign_in(scaled.url)
    for _ in range(8):
        assert browser.get(f"{scaled.url}/weather", headers=CSRF, timeout=20).status_code == 200
    lines = [line for line in scaled.logs("nginx").splitlines() if " /weather " in line]
    assert {line.split()[-2] for line in lines} == addresses(scaled)


def test_the_client_is_who_nginx_says(scaled: Compose) -> None:
    """A session shows the address that nginx saw, whatever the client claims to be."""
    browser = requests.Session()
    browser.headers["X-Forwarded-For"] = "203.0.113.9"
    page = browser.get(f"{scaled.url}/bff/login", timeout=20)
    assert submit(browser, page, username=ALICE, password=PASSWORD).status_code == 200
    shown = browser.get(f"{scaled.url}/bff/sessions", headers=CSRF, timeout=20).json()
    gateway = scaled.containers()["nginx"]["NetworkSettings"]["Networks"][f"{scaled.project}_edge"]["Gateway"]
    assert {session["address"] for session in shown if session["current"]} == {gateway}


def test_nginx_logs_no_code(scaled: Compose) -> None:
    """The callback's line has the path and no query, in the log of calls as in that of errors."""
    sign_in(scaled.url)
    scaled("stop", "--timeout", "20", *NODES, seconds=90)
    gone = requests.get(f"{scaled.url}/bff/callback?code=do-not-log-me&state=x", timeout=20)
    logs = scaled.logs("nginx")
    scaled.up()
    assert gone.status_code in {502, 504}
    assert "GET /bff/callback 200" in logs
    assert "code=" not in logs


def test_a_node_may_die(scaled: Compose) -> None:
    """One node is killed under load, and no call is refused; only answers that it had begun can break off."""
    wait_until(lambda: both_serve(scaled), 30, "not both nodes serve")
    browser = sign_in(scaled.url)
    with Load(scaled, browser).running() as load:
        time.sleep(1)
        scaled("kill", "bff-1")
        time.sleep(4)
    scaled.up()
    assert set(load.statuses) <= {200, 0}
    assert load.statuses[0] <= CALLERS
    assert load.statuses[200] > 50


def test_the_redis_primary_may_die(scaled: Compose, record_property: Callable[[str, object], None]) -> None:
    """The primary is killed under load: 503 for some seconds, then everything again; nobody was signed out,
    no container was restarted, and the old primary comes back as a replica."""
    browser = sign_in(scaled.url)
    old = primary(scaled)
    with Load(scaled, browser).running() as load:
        time.sleep(1)
        scaled("kill", old)
        killed = time.monotonic()
        wait_until(lambda: primary(scaled) != old, FAILOVER_SECONDS, "no new primary was chosen")
        before = load.statuses[200]
        wait_until(lambda: load.statuses[200] > before + 100, FAILOVER_SECONDS, "no answers since")
        time.sleep(2)
    record_property("answers", dict(load.statuses))
    record_property("seconds_without", round(load.last_trouble - killed, 1))
    assert set(load.statuses) <= {200, 503}
    assert load.last_trouble - killed < FAILOVER_SECONDS
    assert browser.get(f"{scaled.url}/bff/user", headers=CSRF, timeout=20).status_code == 200
    sign_in(scaled.url)
    scaled("start", old)
    follows = ["role:slave", f"master_host:{primary(scaled)}", "master_link_status:up"]
    wait_until(
        lambda: set(follows) <= set(scaled.redis(old, "info", "replication").split()),
        60,
        "the old primary does not follow the new one",
    )
    assert {found["RestartCount"] for found in scaled.containers().values()} == {0}


def test_it_starts_again_as_it_was(scaled: Compose) -> None:
    """After `down` and `up`, whoever was signed in still is, under the primary of last time."""
    browser = sign_in(scaled.url)
    before = primary(scaled)
    scaled("down", "--timeout", "20", seconds=120)
    scaled.up()
    assert primary(scaled) == before
    assert browser.get(f"{scaled.url}/weather", headers=CSRF, timeout=20).status_code == 200
