"""`bff dev --https`: all parts over TLS from the local authority, by HTTP and in a browser that trusts it."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from bff.devstack.authority import _write, open_authority
from bff.tls import Identity, server_context
from tests.e2e import test_browser as by_browser
from tests.e2e.chromium import CHROMIUM, FLAGS, needs_browser
from tests.e2e.stack import CSRF, LiveStack, sign_in

if TYPE_CHECKING:
    from playwright.sync_api import Browser

TOKEN_SECONDS = 3


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home of a person with a browser; the blank is for the commands of the start block."""
    return tmp_path_factory.mktemp("a home")


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, home: Path, redis_process: str) -> Iterator[LiveStack]:
    """The local stack over TLS, for that person."""
    settings = {
        "HOME": str(home),
        "XDG_DATA_HOME": "",
        "BFF_REDIS_URL": f"{redis_process}?db=1",
        "IDP_ACCESS_TOKEN_SECONDS": str(TOKEN_SECONDS),
        "API_CLOCK_SKEW_SECONDS": "0",
    }
    live = LiveStack(tmp_path_factory.mktemp("stack") / "state", settings, https=True).start()
    yield live
    assert live.stop() == 0, live.log


def told(stack: LiveStack, heading: str) -> str:
    """The command that the start block shows under a heading."""
    found = re.search(rf"^ *{heading}.*\n +(.+)$", stack.log, re.MULTILINE)
    assert found, stack.log
    return found[1]


def run(command: str, home: Path) -> None:
    """Run a command as that person."""
    environ = {"HOME": str(home), "PATH": "/usr/bin:/bin"}
    subprocess.run(["sh", "-c", command], env=environ, check=True, capture_output=True, timeout=60)


# -- by HTTP --------------------------------------------------------------------------------------------


def test_the_whole_walk(stack: LiveStack) -> None:
    """Sign-in, API call and sign-out work over TLS throughout, with the cookie that production has."""
    browser = sign_in(stack.url, authority=stack.authority)
    (cookie,) = [each for each in browser.cookies if each.name.endswith("bff")]
    assert (cookie.name, cookie.secure, cookie.domain_specified) == ("__Host-bff", True, False)
    weather = browser.get(f"{stack.url}/weather", headers=CSRF, timeout=10)
    assert (weather.status_code, len(weather.json())) == (200, 5)
    assert weather.headers["Strict-Transport-Security"] == "max-age=0"
    answer = browser.post(f"{stack.url}/bff/logout", headers=CSRF, timeout=10)
    assert answer.json()["logout_url"].startswith(f"{stack.idp_url}/logout?client_id=")
    landed = browser.get(answer.json()["logout_url"], timeout=10)
    assert (landed.status_code, landed.url) == (200, f"{stack.url}/")
    assert browser.get(f"{stack.url}/weather", headers=CSRF, timeout=10).status_code == 401


def test_tokens_are_renewed_over_tls(stack: LiveStack) -> None:
    """The BFF trusts the provider's certificate at every call, not only at the first."""
    browser = sign_in(stack.url, authority=stack.authority)
    time.sleep(TOKEN_SECONDS + 0.5)
    assert browser.get(f"{stack.url}/weather", headers=CSRF, timeout=10).status_code == 200


@pytest.mark.parametrize("part", [0, 1, 2], ids=["bff", "api", "idp"])
def test_nobody_else_trusts_it(stack: LiveStack, part: int) -> None:
    """Every part speaks TLS only; who does not know the authority refuses each, who does takes each."""
    url = f"https://127.0.0.1:{stack.ports[part]}"
    with pytest.raises(requests.exceptions.SSLError, match="certificate verify failed"):
        requests.get(url, timeout=10)
    assert requests.get(url, timeout=10, verify=str(stack.authority)).status_code < 500
    with pytest.raises(requests.exceptions.ConnectionError):
        requests.get(url.replace("https", "http"), timeout=10)


@pytest.mark.parametrize(
    ("name", "url"),
    [("BFF_PUBLIC_URL", "http://localhost:5003"), ("IDP_PUBLIC_URL", "https://idp.example")],
)
def test_an_address_that_cannot_be_served(empty_state: Path, name: str, url: str) -> None:
    """It is named before anything starts."""
    live = LiveStack(empty_state, {name: url}, https=True)
    live.launch()
    assert live.process is not None
    assert live.process.wait(20) == 1
    assert f"bff: {name} " in live.log
    assert "Traceback" not in live.log


# -- in a browser ---------------------------------------------------------------------------------------

needs_certutil = [
    *needs_browser,
    pytest.mark.skipif(
        shutil.which("certutil") is None, reason="needs certutil (Debian: apt install libnss3-tools)"
    ),
]


Launch = Callable[..., "Browser"]


@pytest.fixture(scope="module")
def launch() -> Iterator[Launch]:
    """Starts Chromium as a person with a home directory, and ends what it started."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright, ExitStack() as running:

        def start(home: Path, *flags: str) -> Browser:
            environ: dict[str, str | float | bool] = {"HOME": str(home), "PATH": "/usr/bin:/bin"}
            chromium = playwright.chromium.launch(
                executable_path=CHROMIUM, args=[*FLAGS, *flags], env=environ
            )
            running.callback(chromium.close)
            return chromium

        yield start


@pytest.fixture(scope="module")
def browser(stack: LiveStack, home: Path, launch: Launch) -> Browser:
    """The browser of a person who has run the command that the start block shows."""
    run(told(stack, "Trust it with"), home)
    return launch(home)


class TestInABrowser:
    """What tests/e2e/test_browser.py holds over http holds over TLS."""

    pytestmark = needs_certutil

    test_lands_signed_in = staticmethod(by_browser.test_lands_signed_in_with_a_strict_cookie)
    test_forecast_and_sign_out = staticmethod(by_browser.test_shows_the_forecast_and_signs_out)
    test_no_token = staticmethod(by_browser.test_no_token_reaches_the_browser)
    test_two_tabs = staticmethod(by_browser.test_two_tabs_sign_in)
    test_another_site = staticmethod(by_browser.test_another_site_cannot_use_the_session)
    test_a_new_user = staticmethod(by_browser.test_a_new_user)
    test_a_session_that_ends_elsewhere = staticmethod(by_browser.test_a_session_that_ends_elsewhere)


@pytest.fixture
def bank(stack: LiveStack) -> Iterator[int]:
    """Somebody who has stolen the authority's key serves another site with it; the port."""
    authority = open_authority(stack.authority.parent)
    key = ec.generate_private_key(ec.SECP256R1())
    names = x509.SubjectAlternativeName(
        [x509.DNSName("bank.example"), x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))]
    )
    files = Identity(stack.state / "bank.crt", stack.state / "bank.key")
    _write(files, (authority._sign("bank", key, names, datetime.now(UTC)), key))
    listener = socket.create_server(("127.0.0.1", 0))
    context = server_context(files)

    def serve() -> None:
        while True:
            try:
                raw, _ = listener.accept()
            except OSError:
                return
            with suppress(OSError), context.wrap_socket(raw, server_side=True) as connection:
                connection.recv(4096)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\nstolen")

    threading.Thread(target=serve, daemon=True).start()
    yield int(listener.getsockname()[1])
    listener.close()


def opened(browser: Browser, url: str) -> str:
    """What a browser shows at an address, or the error that it shows instead."""
    from playwright.sync_api import Error

    page = browser.new_page()
    try:
        page.goto(url)
        return page.inner_text("body")
    except Error as error:
        return error.message
    finally:
        page.close()


class TestTrust:
    """What the one command does, what it does not, and how it is taken back."""

    pytestmark = needs_certutil

    def test_the_command_and_back(self, stack: LiveStack, tmp_path: Path, launch: Launch) -> None:
        """A browser warns, then trusts, then warns again: that is what the two commands do."""
        assert "ERR_CERT_AUTHORITY_INVALID" in opened(launch(tmp_path), stack.url)
        run(told(stack, "Trust it with"), tmp_path)
        assert "Sign in" in opened(launch(tmp_path), stack.url)
        run(told(stack, "Take it back with"), tmp_path)
        assert "ERR_CERT_AUTHORITY_INVALID" in opened(launch(tmp_path), stack.url)

    def test_a_stolen_key(self, browser: Browser, home: Path, launch: Launch, bank: int) -> None:
        """Browsers keep to the authority's name constraints: with its key nobody poses as another site."""
        thieves = launch(home, "--host-resolver-rules=MAP bank.example 127.0.0.1")
        assert "ERR_CERT_INVALID" in opened(thieves, f"https://bank.example:{bank}/")
