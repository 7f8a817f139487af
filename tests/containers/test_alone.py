"""docker-compose.yml on a real engine: it signs people in from the host's browser, and keeps its promises."""

from __future__ import annotations

import json
import re
import subprocess
import time
from typing import TYPE_CHECKING

import pytest
import requests

from tests.containers.compose import TOKEN_SECONDS, Compose
from tests.e2e.chromium import OpenPage, needs_browser
from tests.e2e.stack import ALICE, CSRF, PASSWORD, sign_in

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.containers, pytest.mark.timeout(600)]

TOKEN = re.compile(r"eyJ[\w-]+\.[\w-]+")


def weather(browser: requests.Session, stack: Compose) -> int:
    return browser.get(f"{stack.url}/weather", headers=CSRF, timeout=20).status_code


def test_signs_in_calls_the_api_and_signs_out(alone: Compose) -> None:
    """From the host: to the provider and back, the forecast, and out again, everywhere."""
    browser = sign_in(alone.url)
    user = browser.get(f"{alone.url}/bff/user", headers=CSRF, timeout=10)
    assert {"type": "email", "value": ALICE} in user.json()
    assert weather(browser, alone) == 200
    way_out = browser.post(f"{alone.url}/bff/logout", headers=CSRF, timeout=10).json()["logout_url"]
    assert way_out.startswith(f"{alone.idp_url}/logout?")
    landed = browser.get(way_out, timeout=10)
    assert (landed.status_code, landed.url) == (200, f"{alone.url}/")
    assert weather(browser, alone) == 401


class TestInABrowser:
    pytestmark = needs_browser

    def test_signs_in(self, alone: Compose, open_page: OpenPage) -> None:
        """A real browser on the host gets to the provider, signs in, and sees the forecast."""
        page = open_page()
        page.goto(alone.url)
        page.click("#sign-in")
        page.wait_for_url(re.compile(re.escape(alone.idp_url)))
        page.fill("input[name=username]", ALICE)
        page.fill("input[name=password]", PASSWORD)
        page.click("form button[type=submit]")
        page.wait_for_selector("#greeting:visible")
        assert page.url == f"{alone.url}/"


def test_up_again_changes_nothing(alone: Compose) -> None:
    """A second `docker compose up --build` leaves every container as it is."""
    before = {name: found["Id"] for name, found in alone.containers().items()}
    alone.up("--build")
    assert {name: found["Id"] for name, found in alone.containers().items()} == before


def test_only_two_ports_are_reachable(alone: Compose) -> None:
    """The engine publishes the BFF and the provider on loopback, and nothing else."""
    bound = {
        (name, binding["HostIp"], binding["HostPort"])
        for name, found in alone.containers().items()
        for bindings in found["NetworkSettings"]["Ports"].values()
        for binding in bindings or ()
    }
    assert bound == {("bff", "127.0.0.1", str(alone.bff_port)), ("idp", "127.0.0.1", str(alone.idp_port))}


@pytest.mark.parametrize("service", ["bff", "api", "idp", "redis"])
def test_a_process_can_do_little(alone: Compose, service: str) -> None:
    """It is not root, has no capability, can gain none, and writes to /tmp but to no program."""
    status = alone.execute(service, "cat", "/proc/1/status")
    told = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert "0" not in told["Uid"].split()
    assert {told[name] for name in ("CapEff", "CapPrm", "CapBnd", "CapInh", "CapAmb")} == {"0" * 16}
    assert told["NoNewPrivs"] == "1"
    assert "Read-only file system" in alone.execute(service, "touch", "/opt/here", check=False)
    alone.execute(service, "touch", "/tmp/here")


def test_redis_is_kept_to_the_bff(alone: Compose) -> None:
    """The API and the provider cannot even name Redis, and the way out is closed to the API."""
    code = "import socket,sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 3); print('reached')"
    assert "reached" in alone.execute("bff", "python", "-c", code, "redis", "6379")
    address = alone.containers()["redis"]["NetworkSettings"]["Networks"][f"{alone.project}_sessions"][
        "IPAddress"
    ]
    for service in ("api", "idp"):
        for host in ("redis", address):
            assert "reached" not in alone.execute(service, "python", "-c", code, host, "6379", check=False)
    gateway = alone.execute("api", "cat", "/proc/net/route")
    assert not re.search(r"^\w+\t00000000\t", gateway, re.MULTILINE), "no default route"


def test_redis_wants_its_password_and_keeps_its_data(alone: Compose) -> None:
    """Nobody gets in without the password, which no argument shows; writes go to disk; nothing is evicted."""
    assert "NOAUTH" in alone.execute("redis", "redis-cli", "get", "x")
    for name, value in (
        ("appendonly", "yes"),
        ("maxmemory-policy", "noeviction"),
        ("appendfsync", "everysec"),
    ):
        assert alone.redis("redis", "config", "get", name).split() == [name, value]
    password = (alone.folder / "deploy/compose/secrets/redis-password").read_text().strip()
    assert password not in alone.execute("redis", "sh", "-c", "cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ")


def test_sessions_and_accounts_outlive_a_restart(alone: Compose) -> None:
    """All containers are made anew, whoever was signed in still is, and the provider still knows them."""
    browser = sign_in(alone.url)
    token_ends = time.monotonic() + TOKEN_SECONDS
    alone("down", "--timeout", "20", seconds=120)
    alone.up()
    assert weather(browser, alone) == 200
    time.sleep(max(token_ends + 1 - time.monotonic(), 0))
    assert weather(browser, alone) == 200, "the provider renewed the token"


def test_no_secret_shows(alone: Compose) -> None:
    """No secret is in what the engine tells of containers and image, nor in a log; and no token is."""
    secrets = [path.read_text().strip() for path in _secrets(alone)]
    history = subprocess.run(
        ["docker", "image", "history", "--no-trunc", alone.image], capture_output=True, text=True, check=True
    ).stdout
    logs = alone.logs()
    shown = json.dumps(alone.containers()) + history + logs
    assert not [secret for secret in secrets if secret in shown]
    assert not TOKEN.search(logs)


def _secrets(stack: Compose) -> list[Path]:
    return sorted((stack.folder / "deploy/compose/secrets").iterdir())


def test_a_stop_is_clean(alone: Compose) -> None:
    """`docker compose stop` ends every program of ours by itself, with status 0, and nobody is killed."""
    alone("stop", "--timeout", "50", seconds=120)
    states = {name: found["State"]["ExitCode"] for name, found in alone.containers().items()}
    assert states == {"bff": 0, "api": 0, "idp": 0, "redis": 0}
    alone.up()


def test_the_provider_refuses_production(alone: Compose) -> None:
    """Where .env says production, the local provider does not start, and says why."""
    alone.settings["BFF_ENV"] = "production"
    try:
        said = alone("run", "--rm", "--no-deps", "--quiet-pull", "idp", check=False)
    finally:
        del alone.settings["BFF_ENV"]
    assert "BFF_ENV: the local identity provider is for development" in said
