"""What the operator reads: one line an event on standard error, as JSON or as text."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime

from bff.resource_api.settings import Settings

LOGGER = "bff.resource_api"


class JSONFormatter(logging.Formatter):
    """One JSON object a line; whatever a message contains cannot begin a line of its own."""

    def format(self, record: logging.LogRecord) -> str:
        when = datetime.fromtimestamp(record.created, UTC)
        entry = {
            "timestamp": when.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry)


def configure(settings: Settings) -> None:
    """Send the log of the resource API to standard error; calling it again replaces the first."""
    handler = logging.StreamHandler(sys.stderr)
    if settings.log_format == "json":
        handler.setFormatter(JSONFormatter())
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    logger = logging.getLogger(LOGGER)
    logger.handlers = [handler]
    logger.setLevel(settings.log_level.upper())
    logger.propagate = False
