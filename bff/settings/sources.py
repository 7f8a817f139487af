"""Where settings come from.

Precedence: environment, then the file that `X_FILE` names, then the TOML file that `BFF_CONFIG` names.
All problems are reported together, each with the setting's name, the cause and the fix; no value that
could be a secret appears in a problem.
"""

from __future__ import annotations

import base64
import secrets
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from bff.sealing import KEY_BYTES
from bff.settings.model import Settings

PREFIX = "BFF_"


class SettingsError(ValueError):
    """The configuration cannot be used; `problems` has one line for each thing to mend."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


def load(environ: Mapping[str, str]) -> Settings:
    """The settings that `environ` (usually `os.environ`) asks for. Raises SettingsError."""
    values, problems = _gather(environ)
    if values.get("env") == "development":
        values.setdefault("log_format", "text")
        values.setdefault("drain_seconds", 0)
        values.setdefault("rate_limit_per_minute", 0)
        values.setdefault("secret_keys", _generated_key())
    try:
        settings = Settings(**values)
    except ValidationError as error:
        problems += _describe(error, {problem.split(" ", 1)[0] for problem in problems})
        raise SettingsError(problems) from None
    if problems:
        raise SettingsError(problems)
    return settings


def _gather(environ: Mapping[str, str]) -> tuple[dict[str, Any], list[str]]:
    """Raw values by field name, the stronger source last, and what could not be read."""
    values, problems = _from_toml(environ.get("BFF_CONFIG"))
    for field in _secrets():
        _read_secret_file(field, values.pop(f"{field}_file", None), values, problems)
    given = {
        field: environ[PREFIX + field.upper()] for field in _fields() if PREFIX + field.upper() in environ
    }
    problems += [
        f"{PREFIX}{field.upper()} is not UTF-8" for field, value in given.items() if _is_broken(value)
    ]
    for field in _secrets():
        path = environ.get(f"{PREFIX}{field.upper()}_FILE")
        if path is not None and field not in given:
            values.pop(field, None)
        _read_secret_file(field, path, given, problems)
    return values | given, problems


def _is_broken(value: str) -> bool:
    """Whether the environment has bytes that are no UTF-8 here: Python hides them in lone surrogates."""
    return any("\ud800" <= char <= "\udfff" for char in value)


def _fields() -> list[str]:
    return [field for field in Settings.model_fields if field != "routes"]


def _secrets() -> list[str]:
    return [field for field in _fields() if "Secret" in str(Settings.model_fields[field].annotation)]


def _from_toml(path: str | None) -> tuple[dict[str, Any], list[str]]:
    if not path:
        return {}, []
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8")), []
    except OSError as error:
        return {}, [f"BFF_CONFIG cannot be read: {error.strerror}"]
    except tomllib.TOMLDecodeError as error:
        return {}, [f"BFF_CONFIG is not TOML: {error}"]
    except UnicodeDecodeError:
        return {}, ["BFF_CONFIG is not UTF-8"]


def _read_secret_file(field: str, path: object, values: dict[str, Any], problems: list[str]) -> None:
    """Set a secret from the file that its source names, unless the same source gives it directly."""
    name = PREFIX + field.upper()
    if path is None:
        return
    if field in values:
        problems.append(f"{name} and {name}_FILE are both set; keep one")
    elif not isinstance(path, str):
        problems.append(f"{name}_FILE is not a path")
    else:
        try:
            values[field] = Path(path).read_text(encoding="utf-8").removesuffix("\n").removesuffix("\r")
        except OSError as error:
            problems.append(f"{name}_FILE cannot be read: {error.strerror}")
        except UnicodeDecodeError:
            problems.append(f"{name}_FILE is not UTF-8")
        except ValueError:  # a NUL in it
            problems.append(f"{name}_FILE is not a path")


def _generated_key() -> str:
    """Development only: sessions do not outlive the process (`bff dev` keeps a key of its own)."""
    return base64.urlsafe_b64encode(secrets.token_bytes(KEY_BYTES)).decode()


_FIXES: dict[str, str] = {
    "public_url": "the origin that browsers use, as in https://app.example.com",
    "oidc_issuer": "the provider's issuer, exactly as its discovery document names it",
    "oidc_client_id": "the client that you registered at the provider",
    "oidc_client_secret": "that client's secret (or BFF_OIDC_CLIENT_SECRET_FILE)",
    "redis_url": "where sessions live, as in redis://127.0.0.1:6379/0",
    "secret_keys": "make one with `bff keys new`",
}


def _describe(error: ValidationError, known: set[str]) -> list[str]:
    """One line for each failed check: name, cause, fix. Input is never quoted: it may be a secret."""
    lines = []
    for item in error.errors(include_url=False, include_input=False, include_context=False):
        field, *where = (str(part) for part in item["loc"] or ("routes",))
        name = PREFIX + field.upper() + "".join(f"[{part}]" for part in where)
        if {name, name + "_FILE"} & known:
            continue
        lines.append(_sentence(name, field, item["type"], item["msg"]))
    return lines


def _sentence(name: str, field: str, kind: str, message: str) -> str:
    if kind == "missing":
        return f"{name} is missing: {_FIXES.get(field, 'set it')}"
    if kind == "extra_forbidden":
        return f"{name} in the file that BFF_CONFIG names is not a setting; check its spelling"
    text = message.removeprefix("Value error, ")
    verb = "" if text.startswith(("is ", "must ", "has ")) else "is wrong: "
    return f"{name} {verb}{text[0].lower() + text[1:]}"
