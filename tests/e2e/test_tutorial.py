"""docs/tutorial.md, as a reader follows it: every file is written and every command is run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.e2e.stack import ADMIN, ALICE, CSRF, free_ports, sign_in

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "tutorial.md").read_text()
PORTS = ("5003", "5001", "5002", "5010")


class Reader:
    """Follows the tutorial in a folder of its own, on ports that are free here."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ports = dict(zip(PORTS, map(str, free_ports(4)), strict=True))
        self.url = f"http://localhost:{self.ports['5003']}"
        self.running = ExitStack()
        (folder / ".venv" / "bin").mkdir(parents=True)
        (folder / ".venv" / "bin" / "flask").symlink_to(Path(sys.executable).parent / "flask")

    def here(self, text: str) -> str:
        """The text with the ports of this run."""
        return re.sub("|".join(PORTS), lambda match: self.ports[match[0]], text)

    def save(self, name: str) -> None:
        """Write a file that the tutorial shows."""
        match = re.search(rf"as `{re.escape(name)}`:\n\n```\w+\n(.*?)```", TEXT, re.DOTALL)
        assert match, name
        (self.folder / name).write_text(self.here(match[1]))

    def environ(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("BFF_", "API_", "IDP_"))}
        names = {"BFF_BIND": "5003", "API_BIND": "5001", "IDP_BIND": "5002"}
        kept |= {name: f"127.0.0.1:{self.ports[port]}" for name, port in names.items()}
        return kept | {"XDG_STATE_HOME": str(self.folder / "state")}

    def run(self, command: str) -> str:
        """Run a command that ends; what it prints."""
        done = subprocess.run(
            ["bash", "-euc", self.here(command)],
            cwd=self.folder,
            env=self.environ(),
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        return done.stdout

    def start(self, command: str, target: str) -> None:
        """Run a command that goes on, until `target` answers."""
        # `make run` prepares .venv, which is there already, and calls this.
        line = self.here(command).replace("make run", f"exec {sys.executable} -m bff dev")
        log = self.running.enter_context((self.folder / "output").open("w"))
        process = subprocess.Popen(
            ["bash", "-euc", line.replace(".venv/bin/flask", "exec .venv/bin/flask")],
            cwd=self.folder,
            env=self.environ(),
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        self.running.callback(process.wait, 30)
        self.running.callback(process.terminate)  # a SIGINT may be ignored where tests run in the background
        until = time.monotonic() + 60
        while not _answers(self.here(target)):
            assert process.poll() is None, (self.folder / "output").read_text()
            assert time.monotonic() < until, (self.folder / "output").read_text()
            time.sleep(0.1)

    def stop(self) -> None:
        """Stop what runs in every terminal."""
        self.running.close()


def _answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=2).status_code < 500
    except requests.RequestException:
        return False


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    found = Reader(tmp_path)
    yield found
    found.stop()


def commands() -> list[str]:
    """The shell commands, in order."""
    return re.findall(r"```sh\n(.*?)\n```", TEXT, re.DOTALL)


def test_the_makefile_runs_what_the_test_runs() -> None:
    """`make run` is `bff dev`, once everything is installed."""
    assert "\n\t@exec $(BIN)/python -m bff dev\n" in (ROOT / "Makefile").read_text()


def test_ten_minutes(reader: Reader) -> None:
    """The stack, the two refusals, the reader's own API and page behind the BFF, and who may do what."""
    first, knock, with_header, api, folder, again = commands()
    reader.start(first, "http://localhost:5003/health/ready")
    refusals = re.findall(r"```json\n(.*?)\n```", TEXT, re.DOTALL)
    assert [reader.run(knock).strip(), reader.run(with_header).strip()] == refusals
    assert sign_in(reader.url).get(f"{reader.url}/weather", headers=CSRF, timeout=10).status_code == 200
    reader.stop()

    reader.run(folder)
    for name in ("notes_api.py", "notes-page/index.html", "notes-page/app.js", "notes.toml"):
        reader.save(name)
    reader.start(api, "http://127.0.0.1:5010/")
    reader.start(again, "http://localhost:5003/health/ready")
    assert "<h1>Notes</h1>" in requests.get(reader.url, timeout=10).text
    assert (
        requests.get(f"{reader.url}/app.js", timeout=10).text
        == (reader.folder / "notes-page" / "app.js").read_text()
    )
    alice, admin = sign_in(reader.url, ALICE), sign_in(reader.url, ADMIN)
    assert _notes(reader, alice) == []
    refused = alice.post(f"{reader.url}/notes", json={"text": "no"}, headers=CSRF, timeout=10)
    assert (refused.status_code, refused.json()["code"]) == (403, "insufficient_scope")
    added = admin.post(f"{reader.url}/notes", json={"text": "first"}, headers=CSRF, timeout=10)
    assert added.status_code == 201
    assert _notes(reader, alice) == ["first"]


def _notes(reader: Reader, browser: requests.Session) -> Any:
    answer = browser.get(f"{reader.url}/notes", headers=CSRF, timeout=10)
    assert answer.status_code == 200, answer.text
    return answer.json()
