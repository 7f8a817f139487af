"""Following a browser's way at the provider for a few steps, to see whether it is refused."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from urllib.parse import parse_qsl, urljoin, urlsplit, urlunsplit

import msgspec
import requests

from bff.check.asking import get, new_session
from bff.check.finding import plain

MAX_STEPS = 5
_MICROSOFT_ERROR = re.compile(rb"AADSTS\d{3,9}")
"""Microsoft Entra shows its refusals on a page with status 200."""
_NO_PAGES = b"Login pages unavailable"
"""What Cognito shows of a client that has no style for managed login, whatever the status."""


class End(Enum):
    """Where the way ended."""

    RETURNED = auto()  # at our own address: it is registered
    REFUSED = auto()
    PAGE = auto()  # a page of the provider's, without a sign of refusal
    ELSEWHERE = auto()  # at another site, a federated provider's for example
    FAILED = auto()  # nobody can tell


@dataclass(frozen=True)
class Outcome:
    """The end of a way; `error` and `description` as the provider gave them, fit for a terminal."""

    end: End
    error: str = ""
    description: str = ""
    steps: int = 0


def walk(url: str, target: str, authorities: Path | None = None) -> Outcome:
    """Go to `url` as a browser without cookies would, until `target` is reached or the provider stops us.

    No request is sent to `target` or to any other site. `authorities` is BFF_OIDC_CA_FILE.
    """
    with new_session(authorities) as session:
        for step in range(MAX_STEPS):
            try:
                answer = get(session, url)
            except (requests.RequestException, ValueError):
                return Outcome(End.FAILED, steps=step)
            if not answer.is_redirect:
                return _judge_page(answer, step)
            here, url = url, urljoin(url, answer.headers["Location"])
            outcome = _judge_redirect(here, url, target, step)
            if outcome is not None:
                return outcome
    return Outcome(End.FAILED, "too_many_redirects", steps=MAX_STEPS)


def _judge_redirect(here: str, url: str, target: str, step: int) -> Outcome | None:
    """None where the way goes on at the same site."""
    try:
        parts, origin = urlsplit(url), urlsplit(here)
    except ValueError:
        return Outcome(End.FAILED, steps=step)
    told = dict(parse_qsl(parts.query)) | dict(parse_qsl(parts.fragment))
    error, description = plain(told.get("error", ""), 60), plain(told.get("error_description", ""), 120)
    if _bare(url) == _bare(target):
        return Outcome(End.RETURNED, error, description, step)
    if error or "/error" in parts.path.lower():
        return Outcome(End.REFUSED, error or "an error page", description, step)
    if (parts.scheme, parts.netloc) != (origin.scheme, origin.netloc):
        return Outcome(End.ELSEWHERE, steps=step)
    return None


def _judge_page(answer: requests.Response, step: int) -> Outcome:
    status = answer.status_code
    if _NO_PAGES in answer.content:
        return Outcome(End.REFUSED, _NO_PAGES.decode(), steps=step)
    if status >= 500 or status == 429:
        return Outcome(End.FAILED, f"status {status}", steps=step)
    if status >= 400:
        return Outcome(End.REFUSED, _json_error(answer) or f"status {status}", steps=step)
    if found := _MICROSOFT_ERROR.search(answer.content):
        return Outcome(End.REFUSED, found[0].decode(), steps=step)
    return Outcome(End.PAGE, steps=step)


def _json_error(answer: requests.Response) -> str:
    try:
        body = msgspec.json.decode(answer.content)
    except (ValueError, RecursionError):
        return ""
    return plain(str(body.get("error", "")), 60) if isinstance(body, dict) else ""


def _bare(url: str) -> str:
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc, parts.path or "/", "", ""))
