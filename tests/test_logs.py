"""Log lines: one format for our events and the libraries', on standard error, and no secret in them."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from bff.logs import configure, listen, under_way
from bff.request import RequestHead


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    """Other tests find logging as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """What has been written to standard error; standard output stays clean."""
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err.splitlines()


def test_json_lines(capsys: pytest.CaptureFixture[str]) -> None:
    """One object a line, with time in UTC, level, logger and event; what is unknown is left out."""
    configure("info", "json")
    structlog.get_logger("bff.x").info("signed_in", user="abc", reason=None)
    (line,) = lines(capsys)
    event: dict[str, Any] = json.loads(line)
    assert event.pop("timestamp").endswith("Z")
    assert event == {"event": "signed_in", "user": "abc", "level": "info", "logger": "bff.x"}


def test_lines_of_a_request_have_its_id(capsys: pytest.CaptureFixture[str]) -> None:
    """Ours and the libraries', while it is under way; an id that a line has already is kept."""
    configure("info", "json")
    token = under_way.set(RequestHead("GET", b"/", b"", [(b"x-request-id", b"caller-0001")], None))
    structlog.get_logger("bff.x").info("ours")
    logging.getLogger("some.library").warning("theirs")
    structlog.get_logger("bff.x").info("other", request_id="other-0001")
    under_way.reset(token)
    structlog.get_logger("bff.x").info("after")
    events = [json.loads(line) for line in lines(capsys)]
    assert [event.get("request_id") for event in events] == ["caller-0001"] * 2 + ["other-0001", None]


def test_whoever_listens_hears_of_trouble(capsys: pytest.CaptureFixture[str]) -> None:
    """Warnings and errors of ours, by name, even those that the level keeps out of the log."""
    configure("error", "json")
    heard: list[str] = []
    listen(heard.append)
    log = structlog.get_logger("bff.x")
    log.debug("whisper")
    log.info("word")
    log.warning("warning")
    log.error("failure")
    logging.getLogger("some.library").error("theirs")
    listen(None)
    log.error("nobody hears")
    assert heard == ["warning", "failure"]
    assert [json.loads(line)["event"] for line in lines(capsys)] == ["failure", "theirs", "nobody hears"]


@pytest.mark.parametrize("form", ["json", "text"])
def test_a_value_from_outside_cannot_begin_a_line(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A newline in a value does not forge an event, wherever it stands."""
    configure("info", form)
    forged = "\r\n2026-01-01T00:00:00Z signed_in"
    structlog.get_logger("bff.x").info("refused", path="/" + forged, address=forged)
    logging.getLogger("some.library").warning("read %s", forged)
    found = lines(capsys)
    assert len(found) == 2
    assert "refused" in found[0]


@pytest.mark.parametrize("form", ["json", "text"])
def test_a_value_from_outside_cannot_steer_a_terminal(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    """No control character reaches a line, those above 127 neither: a header may have them in it."""
    configure("info", form)
    sent = "https://x\x9b2J\x85y\x1b[2J"
    structlog.get_logger("bff.audit").warning("csrf_refused", origin=sent)
    logging.getLogger("some.library").warning("read %s", sent)
    for found in lines(capsys):
        assert "https://x" in found
        assert found.isprintable()


def test_libraries_log_in_the_same_form(capsys: pytest.CaptureFixture[str]) -> None:
    """A line of the standard library's logging is a JSON line too."""
    configure("warning", "json")
    logging.getLogger("some.library").warning("gone %s", "wrong")
    logging.getLogger("some.library").info("not this")
    (line,) = lines(capsys)
    assert json.loads(line)["event"] == "gone wrong"


@pytest.mark.parametrize(
    "name", ["authlib", "authlib.oauth2.client", "urllib3.connectionpool", "requests", "asyncio"]
)
def test_talkative_libraries_are_quiet_even_in_debug(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Below a warning they would log the PKCE verifier and addresses with their queries."""
    configure("debug", "json")
    logging.getLogger(name).debug("code_verifier=secret")
    logging.getLogger(name).info("GET /token?code=secret")
    logging.getLogger("bff.x").debug("ours")
    (line,) = lines(capsys)
    assert "secret" not in line


@pytest.mark.parametrize("form", ["json", "text"])
def test_a_traceback_shows_no_local_variables(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What a function held, a token perhaps, is not part of the story."""
    configure("info", form)
    local_token = "s3cr3t" + "-value"
    try:
        raise ValueError(len(local_token))
    except ValueError:
        structlog.get_logger("bff.x").exception("failed")
    text = "\n".join(lines(capsys))
    assert "ValueError" in text
    assert "s3cr3t-value" not in text


def test_text_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    """In development a line is readable as it is, without colours where nobody sees them."""
    configure("info", "text")
    structlog.get_logger("bff.x").warning("signed_out", user="abc")
    (line,) = lines(capsys)
    assert "signed_out" in line
    assert "user=abc" in line
    assert "\x1b" not in line


def test_configuring_again_does_not_double_the_lines(capsys: pytest.CaptureFixture[str]) -> None:
    """One handler, however often the program is configured."""
    configure("info", "json")
    configure("info", "json")
    structlog.get_logger("bff.y").info("once")
    assert len(lines(capsys)) == 1
