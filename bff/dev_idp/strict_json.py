"""Reads JSON from outside without surprises."""

import json
from typing import Any

DEEPEST = 8


class BadJson(Exception):
    """What was sent isn't JSON as it should be; the message says why, and quotes nothing of it."""


def parse(raw: str | bytes) -> Any:
    """The value of a JSON text in UTF-8. Raises `BadJson`.

    Refuses what readers disagree about (a member twice, NaN, Infinity, half a surrogate pair), and nesting so
    deep that the value couldn't be written out again.
    """
    try:
        text = raw.decode("utf-8") if isinstance(raw, bytes) else raw
        value = json.loads(text, object_pairs_hook=_members, parse_constant=_no_constant, parse_float=_finite)
    except UnicodeDecodeError:
        raise BadJson("it is not UTF-8.") from None
    except RecursionError:
        raise BadJson("it is nested too deeply.") from None
    except json.JSONDecodeError as error:
        raise BadJson(f"it is not JSON (line {error.lineno}, column {error.colno}).") from None
    except ValueError:  # the digits of a number: Python limits them
        raise BadJson("a number is too long.") from None
    if _depth(value) > DEEPEST:
        raise BadJson("it is nested too deeply.")
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise BadJson("a string has half a surrogate pair.") from None
    return value


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise BadJson("a member occurs twice.")
    return found


def _no_constant(_name: str) -> float:
    raise BadJson("NaN and Infinity are not JSON.")


def _finite(digits: str) -> float:
    number = float(digits)
    if number in (float("inf"), float("-inf")):
        raise BadJson("a number is too large.")
    return number


def _depth(value: Any) -> int:
    """How deep the value is nested; counts level by level, so that depth costs no stack."""
    level, depth = [value], 0
    while level:
        depth += 1
        nested = [each for each in level if isinstance(each, dict | list)]
        level = [item for each in nested for item in (each.values() if isinstance(each, dict) else each)]
    return depth
