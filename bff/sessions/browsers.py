"""A browser's name for people, out of what it says of itself."""

from __future__ import annotations

_LONGEST = 512


def readable(user_agent: str) -> str:
    """As in "Firefox on Linux"; "" where nothing is said or known. It may be a lie, and proves nothing."""
    # Here, not above: its tables take a third of a second and seven megabytes, at the first sign-in.
    from ua_parser import parse_os, parse_user_agent

    text = user_agent[:_LONGEST]
    browser, system = parse_user_agent(text), parse_os(text)
    names = [found.family for found in (browser, system) if found is not None]
    return " on ".join(name[:40] for name in names)


def warm_up() -> None:
    """Load the tables now: before the fork, so that workers share them."""
    readable("Firefox")
