"""Logging: structured lines on standard error, JSON or text, for our events and the libraries' alike.

Each line of a request carries its id. A request only says here that it is under way; nothing is computed
unless there is something to log.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Protocol

import structlog


class Identified(Protocol):
    """A request that has an id."""

    @property
    def request_id(self) -> bytes: ...


under_way: ContextVar[Identified | None] = ContextVar("request", default=None)
"""The request that is being answered here, or that set off what is being done."""

_QUIET = ("authlib", "urllib3", "requests", "asyncio", "gunicorn.access", "uvicorn.access")
"""These say too much below a warning: Authlib logs the PKCE verifier, urllib3 addresses with queries."""


_listeners: list[Callable[[str], object]] = []


def listen(listener: Callable[[str], object] | None) -> None:
    """From now on tell `listener` alone (or nobody) the name of each warning or error of ours that is
    logged, even where the level keeps it out of the log."""
    _listeners[:] = [] if listener is None else [listener]


def configure(level: str, form: str) -> None:
    """Send everything to standard error. `form` is "json" or "text"."""
    shared: list[Any] = [
        _identify,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _drop_empty,
    ]
    structlog.configure(
        processors=[_tell, *shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    renderer: Any = structlog.processors.JSONRenderer()
    if form == "text":
        renderer = structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                # A plain traceback: one that shows local variables would show tokens.
                _one_line if form == "text" else structlog.processors.format_exc_info,
                renderer,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)


def _identify(_logger: Any, _method: str, event: Any) -> Any:
    request = under_way.get()
    if request is not None:
        event.setdefault("request_id", request.request_id.decode("ascii"))
    return event


def _tell(_logger: Any, method: str, event: Any) -> Any:
    if method not in ("debug", "info"):
        for listener in _listeners:
            listener(event["event"])
    return event


def _drop_empty(_logger: Any, _method: str, event: Any) -> Any:
    return {key: value for key, value in event.items() if value is not None}


def _one_line(_logger: Any, _method: str, event: Any) -> Any:
    """What somebody sent must neither forge a line of a text log nor steer the terminal: an Origin may hold
    U+009B, which begins an escape sequence as ESC [ does, or U+0085, the next line."""
    return {key: _printable(value) if isinstance(value, str) else value for key, value in event.items()}


def _printable(text: str) -> str:
    return text if text.isprintable() else "".join(char if char.isprintable() else "?" for char in text)
