"""The stack in a real browser: what only a browser can say about cookies, policies and pages."""

from __future__ import annotations

import importlib.util
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e.stack import ADMIN, ALICE, PASSWORD, LiveStack

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Response

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
TOKEN = re.compile(r"eyJ[\w-]+\.[\w-]+")

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (Debian: apt install chromium)"),
    pytest.mark.skipif(importlib.util.find_spec("playwright") is None, reason="needs playwright (make test)"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's Chromium, headless."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser: Browser, stack: LiveStack) -> Iterator[Page]:
    """A page of a fresh profile, whose console must stay free of policy violations and errors."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    opened = context.new_page()
    complaints: list[str] = []

    def listen(text: str, kind: str) -> None:
        # A failed fetch is logged by the browser itself; that is how signed-out visitors are told apart.
        if kind == "error" and "Failed to load resource" not in text:
            complaints.append(text)

    opened.on("console", lambda message: listen(message.text, message.type))
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    yield opened
    context.close()
    assert complaints == []


def sign_in(page: Page, stack: LiveStack, username: str = ALICE, path: str = "/") -> None:
    """From the page to the provider and back."""
    page.goto(stack.url + path)
    page.click("#sign-in")
    page.wait_for_url(re.compile(re.escape(stack.idp_url)))
    page.fill("input[name=username]", username)
    page.fill("input[name=password]", PASSWORD)
    page.click("form button[type=submit]")
    page.wait_for_selector("#greeting:visible")


def test_lands_signed_in_with_a_strict_cookie(page: Page, stack: LiveStack, tmp_path: Path) -> None:
    """The provider is another site, the cookie is Strict, and the person lands signed in all the same."""
    sign_in(page, stack)
    assert page.url == f"{stack.url}/"
    assert ALICE in page.inner_text("#greeting")
    cookies = {cookie["name"]: cookie for cookie in page.context.cookies(stack.url)}
    assert list(cookies) == ["bff"]
    assert cookies["bff"]["sameSite"] == "Strict"
    assert cookies["bff"]["httpOnly"] is True
    assert cookies["bff"]["expires"] == -1
    page.screenshot(path=str(tmp_path / "signed-in.png"), full_page=True)


def test_shows_the_forecast_and_signs_out(page: Page, stack: LiveStack) -> None:
    """The buttons do what they say, a reload keeps the session, and Back shows nothing after sign-out."""
    sign_in(page, stack)
    page.click("#call-weather")
    page.wait_for_selector("#forecast:visible")
    assert "°" in page.inner_text("#forecast")
    page.reload()
    page.wait_for_selector("#greeting:visible")
    page.click("#sign-out")
    page.wait_for_selector("#sign-in:visible")
    assert page.url == f"{stack.url}/"
    page.go_back()
    page.wait_for_selector("#sign-in:visible")
    assert ALICE not in page.inner_text("body")
    assert page.context.cookies(stack.url) == []


def test_no_token_reaches_the_browser(page: Page, stack: LiveStack) -> None:
    """Of all answers of the BFF, storage and cookies, none holds a token."""
    answers: list[Response] = []
    page.on("response", lambda response: answers.append(response))
    sign_in(page, stack, ADMIN)
    page.click("#call-weather")
    page.wait_for_selector("#forecast:visible")
    page.click("#call-admin")
    page.wait_for_selector("#admin-result:visible")
    stored = page.evaluate("JSON.stringify([document.cookie, {...localStorage}, {...sessionStorage}])")
    ours = [answer for answer in answers if answer.url.startswith(stack.url)]
    seen = [f"{answer.url} {answer.all_headers()} {text_of(answer)}" for answer in ours]
    assert len(seen) > 10
    assert any("temperatureC" in text for text in seen)
    assert not [text for text in [*seen, stored] if TOKEN.search(text)]
    assert "bff=" not in stored


def text_of(answer: Response) -> str:
    """The body of an answer. A redirect has none, and those of pages that were left are gone; the walk
    by HTTP reads these."""
    from playwright.sync_api import Error

    try:
        return answer.text()
    except Error:
        return ""


def test_two_tabs_sign_in(page: Page, stack: LiveStack) -> None:
    """Two tabs that sign in at the same time both arrive signed in, and share one session."""
    second = page.context.new_page()
    for tab in (page, second):
        tab.goto(f"{stack.url}/bff/login")
        tab.wait_for_selector("input[name=username]")
    for tab in (page, second):
        tab.fill("input[name=username]", ALICE)
        tab.fill("input[name=password]", PASSWORD)
        tab.click("form button[type=submit]")
        tab.wait_for_selector("#greeting:visible")
    page.reload()
    page.wait_for_selector("#greeting:visible")
    assert [cookie["name"] for cookie in page.context.cookies(stack.url)] == ["bff"]


def test_a_failed_sign_in_is_a_page(page: Page, stack: LiveStack) -> None:
    """An answer that belongs to no attempt shows a page with its code and a way on."""
    page.goto(f"{stack.url}/bff/callback?code=x&state=y")
    assert page.inner_text("code") == "state_unknown"
    page.click("main a")
    page.wait_for_selector("#sign-in:visible")


def test_another_site_cannot_use_the_session(page: Page, stack: LiveStack) -> None:
    """A page of another site can neither read the API, nor sign the person out."""
    sign_in(page, stack)
    other = page.context.new_page()
    other.goto(stack.idp_url + "/")
    stolen = other.evaluate(
        """url => fetch(url, {credentials: 'include', headers: {'X-CSRF': '1'}})
            .then(() => 'read', () => 'refused')""",
        f"{stack.url}/bff/user",
    )
    assert stolen == "refused"
    other.goto(f"{stack.url}/bff/logout?sid=guess")
    page.reload()
    page.wait_for_selector("#greeting:visible")
