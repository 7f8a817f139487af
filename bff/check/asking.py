"""HTTP requests to the provider, and what their failures mean in words."""

from __future__ import annotations

from pathlib import Path

import requests

from bff.provider.transport import AnswerBroken, BoundedAdapter, mount

STEP_SECONDS = 5.0
"""What one request may take, its answer included."""


def get(session: requests.Session, url: str) -> requests.Response:
    """One GET, redirects not followed. Raises requests.RequestException or ValueError (no URL at all)."""
    return session.get(url, allow_redirects=False)


def new_session(authorities: Path | None) -> requests.Session:
    """A browser without cookies, on the project's own bounded transport."""
    session = requests.Session()
    mount(session, BoundedAdapter(STEP_SECONDS, authorities))
    session.max_redirects = 1  # with none at all, a redirect that is not followed raises an error, too
    return session


def explain(error: Exception) -> tuple[str, str]:
    """Why nothing came, and what to look at. The error's own text is left out: it holds whole URLs."""
    chain = _names(error)
    if isinstance(error, requests.exceptions.Timeout):
        return (
            "it did not answer in time",
            "check that this machine may reach it: firewall, proxy, egress rules",
        )
    if isinstance(error, AnswerBroken):
        return (
            "the answer broke off, took too long or is larger than 1 MiB",
            "look at that address in a browser",
        )
    if isinstance(error, requests.exceptions.SSLError) or "SSLError" in chain:
        return (
            "its certificate is not trusted, or it does not speak TLS",
            "check host name and scheme; for a private authority set BFF_OIDC_CA_FILE to its certificate",
        )
    if "NameResolutionError" in chain or "gaierror" in chain:
        return (
            "its host name cannot be resolved",
            "check the spelling of the host, and this machine's name server",
        )
    if "ConnectionRefusedError" in chain:
        return "the connection was refused", "check host and port, and that it is running"
    if isinstance(error, requests.exceptions.ConnectionError):
        return "the connection failed", "check host, port and scheme (http or https)"
    return "the address cannot be asked", "check that it is a URL"


def _names(error: BaseException | None) -> set[str]:
    """The types of an error and of everything that caused it."""
    found: set[str] = set()
    open_: list[object] = [error]
    while open_:
        each = open_.pop()
        if isinstance(each, BaseException) and type(each).__name__ not in found:
            found.add(type(each).__name__)
            open_ += [each.__cause__, each.__context__, getattr(each, "reason", None), *each.args]
    return found
