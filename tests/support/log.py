"""The log as tests read it: the lines of a logger, before they are written down."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest
import structlog

from bff.logs import configure

Lines = Callable[[str], list[dict[str, Any]]]
"""From the name of a logger to what it has said so far."""


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Iterator[Lines]:
    """Logging as in production for the length of a test."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    configure("info", "json")
    structlog.configure(cache_logger_on_first_use=False)  # loggers of other tests must find their own
    yield lambda name: [cast("dict[str, Any]", r.msg) for r in caplog.records if r.name == name]
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()
