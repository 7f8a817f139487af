"""The last line of defence: whatever a check has written, no known secret leaves in it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import quote, quote_plus, unquote, unquote_plus, urlsplit, urlunsplit

from pydantic import SecretBytes, SecretStr

from bff.check.configuration import Configuration, raw_values
from bff.settings.sources import _secrets

HIDDEN = "********"
_IN_QUERY = re.compile(r"([?&]sentinel_password=)([^&#\s]*)")
SHORTEST = 6
"""Shorter ones would also be found in ordinary words; no check writes them in the first place."""


class Mask:
    """Replaces secrets in texts."""

    def __init__(self, secrets: Iterable[str]) -> None:
        forms = {form for secret in secrets for form in (secret, quote(secret, safe=""), quote_plus(secret))}
        self._forms = sorted((form for form in forms if len(form) >= SHORTEST), key=len, reverse=True)

    @classmethod
    def of(cls, environ: Mapping[str, str], configuration: Configuration) -> Mask:
        """One that knows every secret of a configuration, usable or not."""
        raw, settings = raw_values(environ), configuration.settings
        secrets: list[str] = []
        for field in _secrets():
            values = [raw.get(field), None if settings is None else getattr(settings, field)]
            for text in _texts(values):
                secrets += _passwords(text)
                if field != "redis_url" or _holds_secret(text) or "://" not in text:  # else an address
                    secrets.append(text)
        return cls(secrets)

    def __call__(self, text: str) -> str:
        for form in self._forms:
            text = text.replace(form, HIDDEN)
        return text


def mask_url(url: str) -> str:
    """A URL without its password; who connects, where to and how is no secret."""
    parts = urlsplit(_IN_QUERY.sub(rf"\g<1>{HIDDEN}", url))
    if parts.password is None:
        return urlunsplit(parts)
    user, host = parts.username or "", parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{user}:{HIDDEN}@{host}"))


def _holds_secret(url: str) -> bool:
    return "@" in url or _IN_QUERY.search(url) is not None


def _texts(values: Iterable[Any]) -> Iterator[str]:
    """The texts in raw or checked values; a list of keys is also each of its keys."""
    for value in values:
        if isinstance(value, SecretStr):
            yield from _texts([value.get_secret_value()])
        elif isinstance(value, str):
            yield value
            yield from (part.strip() for part in value.split(",") if "," in value)
        elif isinstance(value, list | tuple):
            yield from _texts(part for part in value if not isinstance(part, SecretBytes))


def _passwords(text: str) -> Iterator[str]:
    """What stands in the place of a password in a URL, however malformed."""
    if "@" in text and "://" in text:
        _, _, password = text.split("://", 1)[1].rpartition("@")[0].partition(":")
        yield password
        yield unquote(password)
    for found in _IN_QUERY.finditer(text):
        yield found[2]
        yield unquote_plus(found[2])
