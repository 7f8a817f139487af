"""Log lines of this package: text for a terminal, or JSON."""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import TextIO

LOGGER = "bff.dev_idp"


def configure(level: str, form: str, stream: TextIO | None = None) -> None:
    """Send this package's lines to `stream` (standard error unless given), in `text` or `json`."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(_JsonFormatter() if form == "json" else _TextFormatter())
    logger = logging.getLogger(LOGGER)
    for old in logger.handlers[:]:
        logger.removeHandler(old)
    logger.addHandler(handler)
    logger.setLevel(level.upper())
    logger.propagate = False


class _TextFormatter(logging.Formatter):
    def __init__(self) -> None:
        super().__init__("%(asctime)s idp %(levelname)-7s %(message)s", "%H:%M:%S")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 -- logging's name
        # One event, one line: what a user typed must not forge another, nor steer the terminal.
        line = super().formatMessage(record)
        return "".join(char if char.isprintable() else "?" for char in line)


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry)
