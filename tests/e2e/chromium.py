"""A real browser for the tests of pages: Debian's Chromium, by Playwright."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e.stack import ALICE, PASSWORD, LiveStack

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = shutil.which("chromium")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
WIDE, NARROW = 1280, 390

needs_browser = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (Debian: apt install chromium)"),
    pytest.mark.skipif(importlib.util.find_spec("playwright") is None, reason="needs playwright (make test)"),
]
"""The marks of a file whose tests need it."""

OpenPage = Callable[..., "Page"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium, headless."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def open_page(browser: Browser) -> Iterator[OpenPage]:
    """Opens pages of fresh profiles, whose consoles must stay free of policy violations and errors."""
    complaints: list[str] = []
    contexts = []

    def listen(text: str, kind: str, address: str) -> None:
        # A failed fetch is logged by the browser itself; that is how signed-out visitors are told apart. And
        # a page of the provider that is made to attack us in a test complains that it cannot.
        attack = "/bff/user" in text and not address.startswith(("http://localhost", "https://localhost"))
        if kind == "error" and "Failed to load resource" not in text and not attack:
            complaints.append(text)

    def opens(width: int = WIDE, scheme: str = "light") -> Page:
        context = browser.new_context(
            viewport={"width": width, "height": 900},
            color_scheme=scheme,  # type: ignore[arg-type]
            reduced_motion="reduce",
        )
        contexts.append(context)
        context.on(  # of every tab
            "console",
            lambda message: listen(message.text, message.type, message.page.url if message.page else ""),
        )
        context.on("weberror", lambda found: complaints.append(str(found.error)))
        return context.new_page()

    yield opens
    for context in contexts:
        context.close()
    assert complaints == []


@pytest.fixture
def page(open_page: OpenPage, stack: LiveStack) -> Page:
    """A page on a wide screen; the stack is up."""
    return open_page()


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where screenshots go: a folder of the run, or the one that SCREENSHOTS names."""
    folder = Path(os.environ.get("SCREENSHOTS") or tmp_path_factory.mktemp("screenshots"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def sign_in(page: Page, stack: LiveStack, username: str = ALICE) -> None:
    """From the page to the provider and back."""
    page.goto(stack.url)
    page.click("#sign-in")
    page.wait_for_url(re.compile(re.escape(stack.idp_url)))
    page.fill("input[name=username]", username)
    page.fill("input[name=password]", PASSWORD)
    page.click("form button[type=submit]")
    page.wait_for_selector("#greeting:visible")
