"""`--show-config`: the settings in force and where each came from.

It looks at the same sources as `bff.settings.load`, in the same order: environment, the file that the
environment's `X_FILE` names, the TOML file, the file that its `x_file` names, what development has by
itself, the default.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import SecretBytes, SecretStr

from bff.check.configuration import Configuration
from bff.check.finding import plain
from bff.check.masking import HIDDEN, mask_url
from bff.settings import RouteSettings, Settings
from bff.settings.sources import PREFIX, _from_toml, _secrets

UNUSABLE = "(cannot be used)"
_OF_DEVELOPMENT = {"secret_keys": "generated, in development", "log_format": "default in development"}


@dataclass(frozen=True, slots=True)
class Shown:
    """One setting as it is shown: never with a secret in it."""

    name: str
    value: str
    source: str


def describe(environ: Mapping[str, str], configuration: Configuration) -> list[Shown]:
    """All settings, in the order of the reference."""
    toml, _ = _from_toml(environ.get("BFF_CONFIG"))
    return [
        Shown(PREFIX + field.upper(), _value(field, configuration), _source(field, environ, toml))
        for field in Settings.model_fields
    ]


def _source(field: str, environ: Mapping[str, str], toml: Mapping[str, Any]) -> str:
    name, secret = PREFIX + field.upper(), field in _secrets()
    if name in environ and field != "routes":
        return "environment"
    if secret and f"{name}_FILE" in environ:
        return f"file {plain(environ[f'{name}_FILE'])} ({name}_FILE)"
    file = f"file {plain(environ.get('BFF_CONFIG', ''))} (BFF_CONFIG)"
    if field in toml:
        return file
    if secret and f"{field}_file" in toml:
        return f"file {plain(str(toml[f'{field}_file']))} ({field}_file in BFF_CONFIG)"
    if field in _OF_DEVELOPMENT and (environ.get("BFF_ENV") or toml.get("env")) == "development":
        return _OF_DEVELOPMENT[field]
    return "not set" if Settings.model_fields[field].is_required() else "default"


def _value(field: str, configuration: Configuration) -> str:
    """The value, or that there is none: one that was refused may be a secret in the wrong place."""
    if not configuration.usable(field):
        return UNUSABLE
    value = getattr(configuration.settings, field)
    if field == "redis_url":
        return mask_url(value.get_secret_value())
    return HIDDEN if field in _secrets() and value is not None else plain(_text(value), 2000)


def _text(value: object) -> str:
    if isinstance(value, SecretStr | SecretBytes):
        return HIDDEN
    if isinstance(value, RouteSettings):
        return f"{value.path} -> {value.upstream}"
    if isinstance(value, tuple):
        return ", ".join(map(_text, value)) or "none"
    return "none" if value is None else str(value)
