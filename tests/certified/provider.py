"""The certified provider as a process, and what it says has happened."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import requests

from benchmarks.proxy.programs import free_port
from tests.support.wire import until

HERE = Path(__file__).parent
PACKAGE = HERE.parent / "node" / "node_modules" / "oidc-provider"
NEEDED = "needs oidc-provider: npm ci --prefix tests/node, and Node.js 20.19 or newer"

Event = dict[str, Any]


def can_run() -> bool:
    """Whether the package and a Node.js that runs it are here."""
    node = shutil.which("node")
    if node is None or not PACKAGE.is_dir():
        return False
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=False).stdout
    numbers = version.strip().removeprefix("v").split(".")
    return tuple(int(number) for number in numbers[:2]) >= (20, 19)


class CertifiedProvider:
    """A running one. `par` is "required" or "off"; access tokens live so many seconds."""

    def __init__(
        self, folder: Path, *, par: str, access_token_seconds: int, clients: list[dict[str, Any]]
    ) -> None:
        self.port = free_port()
        self.issuer = f"http://127.0.0.1:{self.port}"
        self._asked = 0
        self._output = folder / f"provider-{self.port}"
        self._complaints = folder / f"provider-{self.port}-complaints"
        set_up = {
            "port": self.port,
            "par": par,
            "accessTokenSeconds": access_token_seconds,
            "clients": clients,
        }
        node = shutil.which("node")
        assert node is not None
        with self._output.open("wb") as output, self._complaints.open("wb") as complaints:
            self._process = subprocess.Popen(
                [node, str(HERE / "provider.mjs")],
                env={"PROVIDER": json.dumps(set_up)},
                stdout=output,
                stderr=complaints,
            )

    def wait(self) -> None:
        """Until it is ready."""
        assert until(lambda: self._told_of("ready") == 1, within=40), self._complaints.read_text()

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()

    def end_grants(self) -> None:
        """End all grants, as an administrator does, and tell no client."""
        before = self._told_of("grants ended")
        self._process.send_signal(signal.SIGUSR2)
        assert until(lambda: self._told_of("grants ended") > before, within=15)

    def mark(self) -> int:
        """How much has happened until now."""
        return len(self.events())

    def events(self, since: int = 0) -> list[Event]:
        """Everything that has happened since a mark. It tells of a request a moment after its answer: where
        it has told of one more, it has told of all before."""
        self._asked += 1
        path = f"/asked/{self._asked}"
        requests.get(f"{self.issuer}{path}", timeout=10)
        assert until(lambda: any(each.get("path") == path for each in self._told())), "it does not tell"
        return self._told()[since:]

    def _told(self) -> list[Event]:
        whole = self._output.read_text().rpartition("\n")[0]
        return [json.loads(line) for line in whole.splitlines()]

    def _told_of(self, event: str) -> int:
        return sum(each["event"] == event for each in self._told())

    def count(self, event: str, since: int = 0, **details: object) -> int:
        """How often something happened since a mark."""
        wanted = {"event": event, **details}
        return sum(wanted.items() <= each.items() for each in self.events(since))

    def troubles(self, since: int) -> list[Event]:
        """What this provider did not like."""
        bad = ("refused", "failed")
        return [each for each in self.events(since) if each["event"].endswith(bad)]

    def user_info(self, bearer: str) -> requests.Response:
        """UserInfo by an `Authorization` header's value: tells whether the access token is alive."""
        return requests.get(f"{self.issuer}/me", headers={"Authorization": bearer}, timeout=10)
