"""What a check has to say."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. `fix` says what to do about it; it is empty where nothing is."""

    level: Level
    area: str
    what: str
    fix: str = ""


def ok(area: str, what: str) -> Finding:
    """It is as it should be, or nobody can tell from here."""
    return Finding(Level.OK, area, what)


def warning(area: str, what: str, fix: str) -> Finding:
    """It works, and will hurt one day."""
    return Finding(Level.WARNING, area, what, fix)


def error(area: str, what: str, fix: str) -> Finding:
    """Something does not work."""
    return Finding(Level.ERROR, area, what, fix)


def plain(text: str, length: int = 200) -> str:
    """Text from outside, fit for a terminal: one line, no control characters, not too long."""
    shown = "".join(char if char.isprintable() else "?" for char in text[:length])
    return shown + "…" if len(text) > length else shown
