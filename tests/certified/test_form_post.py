"""`response_mode=form_post` in a real browser: the answer is another site's POST, without Lax cookies."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.certified.stage import Served, Stage
from tests.e2e.chromium import OpenPage, needs_browser

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [pytest.mark.e2e, pytest.mark.redis_server, *needs_browser]


def cookies(page: Page, served: Served) -> dict[str, dict[str, object]]:
    """The BFF's cookies by name."""
    found = page.context.cookies(served.url)
    return {cookie["name"]: dict(cookie) for cookie in found}


def to_the_provider(page: Page, served: Served) -> None:
    page.goto(served.url)
    with page.expect_navigation():
        page.click("#sign-in")
    assert page.url.startswith(f"{served.provider.issuer}/interaction/"), page.inner_text("body")


def test_landing_signed_in(stage: Stage, open_page: OpenPage) -> None:
    """The attempt's cookie comes along with the POST, and the person lands signed in by a Strict cookie."""
    served, page = stage.bff("form"), open_page()
    to_the_provider(page, served)
    ((name, attempt),) = cookies(page, served).items()
    assert name.startswith("bff-")
    assert (attempt["sameSite"], attempt["secure"], attempt["httpOnly"]) == ("None", True, True)
    page.fill("input[name=login]", "ada")
    with page.expect_request(f"{served.url}/bff/callback") as callback:
        page.click("#go")
    page.wait_for_selector("#greeting:visible")
    assert callback.value.method == "POST"
    assert page.url == f"{served.url}/"
    ((name, session),) = cookies(page, served).items()
    assert (name, session["sameSite"], session["httpOnly"]) == ("bff", "Strict", True)


def test_landing_on_an_error_page(stage: Stage, open_page: OpenPage) -> None:
    """An error that is posted shows our error page, uses up the attempt and signs nobody in."""
    served, page = stage.bff("form"), open_page()
    to_the_provider(page, served)
    page.click("#cancel")
    page.wait_for_url(f"{served.url}/bff/callback")
    assert page.inner_text("code") == "access_denied"
    assert cookies(page, served) == {}
