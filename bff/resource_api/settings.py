"""Settings of the resource API: read once from the environment, frozen, all problems at once."""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from bff.resource_api.urls import URLRefused, check_origin, check_url

PREFIX = "API_"

# RFC 6749 Appendix A.4: one scope-token.
_BIND_HOST = re.compile(r"[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]")
_SCOPE_TOKEN = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")


class SettingsError(ValueError):
    """The configuration cannot be used; `problems` has one line for each thing to mend."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


def _list(value: object) -> object:
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


def _bind(value: str) -> str:
    host, _, port = value.rpartition(":")
    if not _BIND_HOST.fullmatch(host) or not re.fullmatch(r"[0-9]{1,5}", port):
        raise ValueError("is not HOST:PORT: write it as 127.0.0.1:5001 or [::1]:5001")
    if int(port) > 65535:
        raise ValueError("has a port above 65535: choose one from 0 to 65535")
    return value


def _scope(value: str) -> str:
    if not _SCOPE_TOKEN.fullmatch(value):
        raise ValueError("is not one scope: give one name without spaces, quotation marks or backslashes")
    return value


def _origin(value: str) -> str:
    if value == "*":
        raise ValueError("lets every site call: name the origins, as in https://app.example.com")
    try:
        check_origin(value)
    except URLRefused as refused:
        raise ValueError(f"has an entry that {refused}: write it as https://app.example.com") from None
    return value


def _whole(least: int, most: int) -> BeforeValidator:
    """A whole number within bounds; `int()` alone would take `1_0`, blanks and other digits."""

    def whole(value: object) -> object:
        text = str(value)
        if not re.fullmatch(r"[0-9]{1,6}", text) or not least <= int(text) <= most:
            raise ValueError(f"is not usable: give a whole number from {least} to {most}")
        return int(text)

    return BeforeValidator(whole)


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _authorities(value: Path) -> Path:
    try:
        ssl.create_default_context(cafile=value)
    except ssl.SSLError:
        raise ValueError(
            "is not a PEM file with certificates: give those of the issuer's authorities"
        ) from None
    except OSError as error:
        raise ValueError(
            f"cannot be read ({error.strerror}): name a file that this process may read"
        ) from None
    return value.absolute()


Origin = Annotated[str, AfterValidator(_origin)]
Names = Annotated[tuple[str, ...], BeforeValidator(_list)]


class Settings(BaseModel):
    """The resource API's settings in force. Nothing in it is secret."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    env: Literal["production", "development"] = "production"
    bind: Annotated[str, AfterValidator(_bind)] = "127.0.0.1:5001"
    tls_cert_file: Path | None = None
    tls_key_file: Path | None = None
    issuers: Names = ()
    issuer_ca_file: Annotated[Path, AfterValidator(_authorities)] | None = None
    token_profile: Annotated[Literal["cognito", "rfc9068"], BeforeValidator(_lower)] = "cognito"
    scope: Annotated[str, AfterValidator(_scope)] = "api://weather/access"
    client_ids: Annotated[frozenset[str], BeforeValidator(_list)] = frozenset()
    audience: str | None = None
    cors_origins: Annotated[tuple[Origin, ...], BeforeValidator(_list)] = ()
    clock_skew_seconds: Annotated[int, _whole(0, 300)] = 60
    workers: Annotated[int, _whole(1, 1024)] = Field(default_factory=_cores)
    log_level: Annotated[
        Literal["debug", "info", "warning", "error", "critical"], BeforeValidator(_lower)
    ] = "info"
    log_format: Annotated[Literal["json", "text"], BeforeValidator(_lower)] = "json"


# Where the variable's name is not the field's.
_VARIABLES = {"issuers": f"{PREFIX}ISSUER"}


def variable_of(field: str) -> str:
    """The environment variable that sets this field of `Settings`."""
    return _VARIABLES.get(field, f"{PREFIX}{field.upper()}")


def load(environ: Mapping[str, str]) -> Settings:
    """Read the settings from `environ`; an empty variable counts as unset.

    Raises `SettingsError` with every problem at once, each one line that names the variable, the
    cause and the fix, and never the value.
    """
    given: dict[str, Any] = {
        field: environ[variable_of(field)].strip()
        for field in Settings.model_fields
        if environ.get(variable_of(field), "").strip()
    }
    if given.get("env") == "development":
        given.setdefault("log_format", "text")
    unreadable = {field for field, value in given.items() if not _is_unicode(value)}
    problems = [f"{variable_of(field)} is not text in UTF-8: set it anew." for field in unreadable]
    problems += [] if "issuers" in unreadable else _issuer_problems(given)
    problems += _audience_problems(given)
    problems += [] if unreadable else _tls_problems(given)
    try:
        settings = Settings.model_validate(given)
    except ValidationError as error:
        raise SettingsError([*_field_problems(error, unreadable), *problems]) from None
    if problems:
        raise SettingsError(problems)
    return settings


def _is_unicode(value: str) -> bool:
    """Python hides bytes of the environment that are no UTF-8 in lone surrogates."""
    return not any("\ud800" <= char <= "\udfff" for char in value)


def _field_problems(error: ValidationError, known: Collection[str]) -> list[str]:
    problems: dict[str, None] = {}
    for item in error.errors(include_input=False, include_url=False):
        field = str(item["loc"][0])
        if field in known:
            continue
        variable = variable_of(field)
        cause = (
            str(item["ctx"]["error"])
            if item["type"] == "value_error"
            else f"is not one of the known values: give {item['ctx']['expected']}"
        )
        problems[f"{variable} {cause}."] = None
    return list(problems)


def _issuer_problems(given: Mapping[str, Any]) -> list[str]:
    """The issuer is fetched from and compared as it stands (OpenID Connect Discovery §4.3)."""
    name = variable_of("issuers")
    issuers = _list(given.get("issuers", ""))
    if not isinstance(issuers, tuple) or not issuers:
        return [f"{name} is not set: give the issuer's URL, exactly as its tokens carry it."]
    problems = []
    for issuer in dict.fromkeys(issuers):
        try:
            check_url(issuer, allow_http=given.get("env") == "development")
        except URLRefused as refused:
            problems.append(f"{name} {refused}: give the https URL that the issuer's tokens carry.")
    return list(dict.fromkeys(problems))


def _audience_problems(given: Mapping[str, Any]) -> list[str]:
    """With neither, a token made for any other client of the issuer would open this API."""
    if given.get("audience") or _list(given.get("client_ids", "")):
        return []
    names = f"{variable_of('client_ids')} and {variable_of('audience')}"
    fix = "name the clients whose tokens are accepted, or this API's audience, or both"
    return [f"{names} are both unset: {fix}."]


def _tls_problems(given: Mapping[str, Any]) -> list[str]:
    names = [variable_of("tls_cert_file"), variable_of("tls_key_file")]
    if ("tls_cert_file" in given) == ("tls_key_file" in given):
        return []
    return [f"{names[0]} and {names[1]} belong together: set both, or neither."]
