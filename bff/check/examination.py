"""All checks, in order of the report. None hides another: each runs, fails and ends by itself."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

from bff.check.configuration import Configuration, check_settings
from bff.check.finding import Finding, error
from bff.check.finding import ok as fine
from bff.check.provider import check_provider
from bff.check.store import check_store
from bff.check.upstreams import check_upstreams

TOTAL_SECONDS = 30.0
"""Each step is bounded by itself; this holds also for what cannot be, a name server that hangs above all."""

Check = Callable[[Configuration], Iterator[Finding]]


def examine(configuration: Configuration, total_seconds: float = TOTAL_SECONDS) -> list[Finding]:
    """Everything that the checks find, within `total_seconds`."""
    findings = _Running("settings", check_settings, configuration).result(time.monotonic() + total_seconds)
    if configuration.settings is None:
        return findings
    checks: dict[str, Check] = {
        "provider": check_provider,
        "redis": check_store,
        "upstream": check_upstreams,
    }
    end = time.monotonic() + total_seconds
    running = [_Running(area, check, configuration) for area, check in checks.items()]
    for each in running:
        findings += each.result(end)
    return findings


class _Running:
    """A check in a thread of its own, which nobody has to wait for at the end of the process."""

    def __init__(self, area: str, check: Check, configuration: Configuration) -> None:
        self._area = area
        self._check = check
        self._configuration = configuration
        self._findings: list[Finding] = []
        self._thread = threading.Thread(target=self._run, daemon=True, name=f"check {area}")
        self._thread.start()

    def _run(self) -> None:
        try:
            for finding in self._check(self._configuration):
                self._findings.append(finding)
        except Exception as failure:  # noqa: BLE001 -- a check that fails is a finding, not a stack trace
            self._findings.append(
                error(
                    self._area,
                    f"the check itself failed: {type(failure).__name__}",
                    "please report this with the version of bff; the rest of this area did not run",
                )
            )

    def result(self, end: float) -> list[Finding]:
        """What was found until `end`, by the monotonic clock."""
        self._thread.join(max(0.0, end - time.monotonic()))
        found = list(self._findings)
        if self._thread.is_alive():
            return [
                *found,
                error(
                    self._area,
                    "the check took too long and was left",
                    "something on the way hangs: look at the name server and at firewalls that drop packets",
                ),
            ]
        return found or [fine(self._area, "nothing to look at")]
