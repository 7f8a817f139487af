"""A live local stack for tests: `bff dev` on free ports, with a state directory of its own."""

from __future__ import annotations

import html
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urljoin

import redis
import requests

from benchmarks.proxy.programs import free_port
from bff.sealing import Keyring, parse_key
from bff.sessions.lifetime import Lifetime
from bff.sessions.record import Codec
from bff.sessions.store import SessionStore

START_SECONDS = 60
CSRF = {"X-CSRF": "1"}
ALICE, ADMIN, PASSWORD = "alice@example.com", "admin@example.com", "Passw0rd!"


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now."""
    return [free_port() for _ in range(count)]


@dataclass
class LiveStack:
    """`bff dev` as a process. Its output grows in `log`."""

    state: Path
    settings: dict[str, str] = field(default_factory=dict)
    ports: list[int] = field(default_factory=lambda: free_ports(3))
    process: subprocess.Popen[bytes] | None = None
    https: bool = False

    @property
    def url(self) -> str:
        return f"{self._scheme}://localhost:{self.ports[0]}"

    @property
    def idp_url(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self.ports[2]}"

    @property
    def cookie(self) -> str:
        """The name of the session's cookie."""
        return "__Host-bff" if self.https else "bff"

    @property
    def authority(self) -> Path:
        """The certificate of the authority that signs for this stack, with https."""
        return self.state / "bff" / "tls" / "authority.crt"

    @property
    def _scheme(self) -> str:
        return "https" if self.https else "http"

    @property
    def log(self) -> str:
        path = self.state / "output"
        return path.read_text() if path.exists() else ""

    def environ(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("BFF_", "API_", "IDP_"))}
        binds = zip(("BFF_BIND", "API_BIND", "IDP_BIND"), self.ports, strict=True)
        kept |= {name: f"127.0.0.1:{port}" for name, port in binds}
        return kept | {"XDG_STATE_HOME": str(self.state)} | self.settings

    def launch(self, *options: str) -> None:
        """Start the process without waiting."""
        self.state.mkdir(parents=True, exist_ok=True)
        options = ("--https", *options) if self.https else options
        with (self.state / "output").open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "bff", "dev", *options],
                env=self.environ(),
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def start(self, *options: str) -> LiveStack:
        """Start, and wait for the start block."""
        before = self.log.count("The BFF is ready")
        self.launch(*options)
        until = time.monotonic() + START_SECONDS
        while self.log.count("The BFF is ready") == before:
            assert self.process is not None
            assert self.process.poll() is None, self.log
            assert time.monotonic() < until, self.log
            time.sleep(0.05)
        return self

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Stop by a signal; the exit status."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(60)

    def children(self) -> list[str]:
        """Command lines of processes that carry this stack's state directory in their environment, or
        work in it (Redis writes its title over its environment)."""
        mark = f"XDG_STATE_HOME={self.state}".encode()
        found = []
        for process in Path("/proc").iterdir():
            if process.name.isdigit() and int(process.name) != os.getpid():
                try:
                    marked = mark in (process / "environ").read_bytes().split(b"\0")
                    if marked or (process / "cwd").readlink().is_relative_to(self.state):
                        found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
                except OSError:
                    continue
        return found


def sign_in(
    url: str,
    username: str = ALICE,
    password: str = PASSWORD,
    return_url: str = "/",
    authority: Path | None = None,
) -> requests.Session:
    """A browser's session after the sign-in, by HTTP alone; it trusts `authority`, where one is given."""
    browser = requests.Session()
    if authority is not None:
        browser.verify = str(authority)
        browser.trust_env = False  # REQUESTS_CA_BUNDLE would win
    answer = browser.get(f"{url}/bff/login", params={"returnUrl": return_url}, timeout=20)
    answer = submit(browser, answer, username=username, password=password)
    assert answer.status_code == 200, answer.text
    assert f"url={html.escape(return_url)}" in answer.text, answer.text
    return browser


def submit(browser: requests.Session, page: requests.Response, **fields: str) -> requests.Response:
    """Fill in the form of a page and follow where it leads."""
    form = re.search(r"<form[^>]*>.*?</form>", page.text, re.DOTALL)
    assert form is not None, page.text
    action = re.search(r'<form[^>]*action="([^"]*)"', form[0])
    hidden = re.findall(r'<input[^>]*name="([^"]+)"[^>]*value="([^"]*)"', form[0])
    data = {html.unescape(name): html.unescape(value) for name, value in hidden} | fields
    target = urljoin(page.url, html.unescape(action[1])) if action else page.url
    return browser.post(target, data=data, timeout=20)


def secrets_of(stack: LiveStack) -> set[str]:
    """Every token that the stack holds just now, and the secrets that it knows; read from its own Redis."""
    state = stack.state / "bff"
    known = {(state / "client-secret").read_text().strip(), (state / "secret-keys").read_text().strip()}
    keyring = Keyring([parse_key((state / "secret-keys").read_text().strip())])
    with redis.Redis.from_url(stack.settings["BFF_REDIS_URL"]) as client:
        codec = Codec(keyring, "bff:")
        store = SessionStore(client, codec, Lifetime(1800, 28800), time.time)
        records = [record for name in store.names() if (record := store.load(name)) is not None]
    tokens = {record.tokens.access_token for record in records}
    tokens |= {record.tokens.refresh_token for record in records if record.tokens.refresh_token}
    assert len(tokens) >= 2, "there are tokens to look for"
    return known | tokens
