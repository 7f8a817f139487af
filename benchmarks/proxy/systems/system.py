"""What the benchmark needs to know of a system under measurement."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import requests

from benchmarks.proxy.programs import CannotMeasure, Program
from benchmarks.proxy.world import BODY, Provider, World

TIMEOUT_SECONDS = 20


@dataclass(frozen=True)
class System:
    """A system that runs, with a signed-in session."""

    key: str
    title: str
    program: Program
    headers: tuple[str, ...]
    """What a signed-in client sends, as lines; the first is Host."""
    refusal: int | None = None
    """The status without a session, where it must be just this one."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.program.port}"

    def check(self, path: str = "/weather") -> None:
        """See that a signed-in request brings the upstream's body, and one that is not signed in does not.
        Raises CannotMeasure."""
        answer = self._get(path, self.headers)
        if answer.status_code != 200 or answer.text != BODY:
            raise CannotMeasure(
                f"{self.title}: {path} answered {answer.status_code}, not the upstream's body"
            )
        secret = ("cookie:", "authorization:")
        bare = self._get(path, [line for line in self.headers if not line.lower().startswith(secret)])
        if bare.status_code == 200 or self.refusal not in (None, bare.status_code):
            raise CannotMeasure(f"{self.title}: {path} without a session answered {bare.status_code}")

    def _get(self, path: str, headers: tuple[str, ...] | list[str]) -> requests.Response:
        return requests.get(
            self.url + path,
            headers=dict(line.split(": ", 1) for line in headers),
            allow_redirects=False,
            timeout=TIMEOUT_SECONDS,
        )


@dataclass(frozen=True)
class Kind:
    """A system that can be started: `start` gets the world, the provider and its port, and signs in. It
    raises CannotMeasure where that cannot be done here."""

    key: str
    title: str
    callback: str
    """The path of its redirect URI."""
    start: Callable[[World, Provider, int], System]
