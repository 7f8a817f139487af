"""The settings as far as they can be used: a broken one must not hide what is wrong elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from bff.check.finding import Finding, error, ok, warning
from bff.sealing import new_key
from bff.settings import Settings, SettingsError, load
from bff.settings.sources import PREFIX, _gather

AREA = "settings"
_STAND_INS: dict[str, str] = {
    "env": "development",
    "public_url": "https://public.invalid",
    "oidc_issuer": "https://issuer.invalid",
    "oidc_client_id": "stand-in",
    "oidc_client_secret": "stand-in",
    "redis_url": "redis://redis.invalid:6379/0",
    "api_url": "http://upstream.invalid",
}
"""For required settings that cannot be used; nobody is asked by them (`.invalid`: RFC 6761)."""

_TOGETHER = {
    "service_client_secret": ("service_client_id",),
    "oidc_client_key_file": ("oidc_client_auth",),
    "tls_key_file": ("tls_cert_file",),
}
"""One of these without the other is what is wrong, and it is the other that is there."""


@dataclass(frozen=True)
class Configuration:
    """`settings` has stand-ins for those fields that `broken` names; None where not even that can be had."""

    settings: Settings | None
    broken: frozenset[str] = frozenset()
    problems: tuple[str, ...] = ()

    def usable(self, *fields: str) -> bool:
        """Whether all of these are as they were configured."""
        return self.settings is not None and not self.broken.intersection(fields)


def read(environ: Mapping[str, str]) -> Configuration:
    """The configuration of `environ`, with all its problems."""
    try:
        return Configuration(load(environ))
    except SettingsError as refused:
        settings, broken = _salvage(raw_values(environ))
        return Configuration(settings, broken, refused.problems)


def raw_values(environ: Mapping[str, str]) -> dict[str, Any]:
    """Values by field, unchecked, with what development has by itself; as `load` begins."""
    values, _ = _gather(environ)
    if values.get("env") == "development":
        values.setdefault("log_format", "text")
        values.setdefault("secret_keys", new_key())
    return values


def _salvage(values: dict[str, Any]) -> tuple[Settings | None, frozenset[str]]:
    """Settings without those that are refused, and the names of these."""
    broken: set[str] = set()
    stand_ins = {**_STAND_INS, "secret_keys": new_key()}
    for _ in range(len(Settings.model_fields) + 1):  # what is taken away may be missed by another rule
        try:
            return Settings(**values), frozenset(broken)
        except ValidationError as refused:
            for item in refused.errors(include_url=False, include_input=False, include_context=False):
                field = str(item["loc"][0]) if item["loc"] else "routes"
                for name in (field, *_TOGETHER.get(field, ())):
                    broken.add(name)
                    refused_before = values.pop(name, None) == stand_ins.get(name, "")
                    if name in stand_ins and not refused_before:
                        values[name] = stand_ins[name]
    return None, frozenset(broken)


def check_settings(configuration: Configuration) -> Iterator[Finding]:
    """The problems that stop the server, and what is allowed but worth knowing."""
    if configuration.problems:
        for problem in configuration.problems:
            yield _refused(problem)
        if configuration.settings is None:
            yield ok(AREA, "nothing else could be looked at: mend these first")
            return
    else:
        yield ok(AREA, "every setting can be used")
    assert configuration.settings is not None  # noqa: S101 -- for the type checker
    for text in configuration.settings.warnings:
        yield warning(AREA, text, "take it out, or see the setting's row in the README")
    yield from _notes(configuration.settings, configuration)


def _refused(problem: str) -> Finding:
    """The sentence of a problem already names setting, cause and mostly the fix."""
    name = problem.split(" ", 1)[0].split("[", 1)[0]
    what, _, fix = problem.partition(" is missing: ")
    if fix:
        return error(AREA, f"{what} is missing", f"set it: {fix}")
    return error(AREA, problem, f"change {name}; the README's table of settings says what it takes")


def _notes(settings: Settings, configuration: Configuration) -> Iterator[Finding]:
    if settings.session_idle_seconds > settings.session_max_seconds:
        yield warning(
            AREA,
            "BFF_SESSION_IDLE_SECONDS is longer than BFF_SESSION_MAX_SECONDS and has no effect",
            "make it shorter, or the other one longer",
        )
    if str(getattr(settings, "oidc_id_token_hint", "off")) in ("on", "True"):
        yield warning(
            AREA,
            "BFF_OIDC_ID_TOKEN_HINT=on puts the ID token into the sign-out URL: it reaches the browser, its "
            "history and the provider's logs",
            "leave it off unless the provider refuses to sign out without it",
        )
    if settings.production or not configuration.usable("env"):
        return
    yield ok(AREA, f"{PREFIX}ENV=development: for this machine only, not for users")
    if configuration.usable("public_url") and not settings.secure:
        yield ok(AREA, "BFF_PUBLIC_URL is plain http: cookies are not Secure; production demands https")
