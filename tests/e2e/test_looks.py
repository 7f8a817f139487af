"""How every page looks: accessibility by axe, no sideways scrolling, and the pictures that people see."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e.chromium import NARROW, WIDE, OpenPage, needs_browser, sign_in
from tests.e2e.stack import ADMIN, ALICE, LiveStack

if TYPE_CHECKING:
    from playwright.sync_api import Page

AXE = Path(__file__).parents[1] / "node" / "node_modules" / "axe-core" / "axe.min.js"

pytestmark = [
    *needs_browser,
    pytest.mark.skipif(not AXE.exists(), reason="needs axe-core (npm ci --prefix tests/node)"),
]


def signed_out(page: Page, stack: LiveStack) -> None:
    page.goto(stack.url)
    page.wait_for_selector("#sign-in:visible")


def signed_in(page: Page, stack: LiveStack) -> None:
    sign_in(page, stack, ALICE)
    page.click("#call-weather")
    page.wait_for_selector("#forecast:visible")
    page.click("#try-admin")
    page.wait_for_selector("#admin-result:visible")


def signed_in_as_admin(page: Page, stack: LiveStack) -> None:
    sign_in(page, stack, ADMIN)
    page.click("#call-weather")
    page.wait_for_selector("#forecast:visible")
    page.click("#call-admin")
    page.wait_for_selector("#admin-result:visible")


def failed(page: Page, stack: LiveStack) -> None:
    page.goto(f"{stack.url}/bff/callback?state=unknown&code=x")


def not_found(page: Page, stack: LiveStack) -> None:
    page.goto(f"{stack.url}/bff/login?returnUrl=https://elsewhere.example")


def provider_sign_in(page: Page, stack: LiveStack) -> None:
    page.goto(f"{stack.url}/bff/login")
    page.wait_for_selector("input[name=username]")


def provider_wrong_password(page: Page, stack: LiveStack) -> None:
    provider_sign_in(page, stack)
    page.fill("input[name=username]", ALICE)
    page.fill("input[name=password]", "wrong")
    page.click("form button[type=submit]")
    page.wait_for_selector("[role=alert]:visible")


def provider_sign_up(page: Page, stack: LiveStack) -> None:
    provider_sign_in(page, stack)
    page.click("a[href^='/signup']")


VIEWS: list[Callable[[Page, LiveStack], None]] = [
    signed_out,
    signed_in,
    signed_in_as_admin,
    failed,
    not_found,
    provider_sign_in,
    provider_wrong_password,
    provider_sign_up,
]


@pytest.mark.parametrize(("width", "scheme"), [(WIDE, "light"), (NARROW, "dark")], ids=["wide", "narrow"])
@pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.__name__)
def test_every_view(
    open_page: OpenPage,
    stack: LiveStack,
    pictures: Path,
    view: Callable[[Page, LiveStack], None],
    width: int,
    scheme: str,
) -> None:
    """No serious finding of axe, nothing wider than the screen; a picture of each is kept to be looked at."""
    page = open_page(width, scheme)
    view(page, stack)
    page.screenshot(path=str(pictures / f"{view.__name__}-{width}.png"), full_page=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert findings(page) == []


def findings(page: Page) -> list[str]:
    """What axe finds serious or critical, a line each."""
    page.evaluate(AXE.read_text())
    options = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}
    result: dict[str, Any] = page.evaluate("options => axe.run(document, options)", options)
    assert result["passes"], "axe has looked at the page"
    return [
        f"{found['id']} ({found['impact']}): {node['html'][:120]}: {node['failureSummary']}"
        for found in result["violations"]
        if found["impact"] in ("serious", "critical", "moderate")
        for node in found["nodes"]
    ]


def test_axe_finds_what_is_wrong(page: Page, stack: LiveStack) -> None:
    """The check can fail: a button without a name is found."""
    signed_out(page, stack)
    page.evaluate("document.querySelector('main').append(document.createElement('button'))")
    assert any(line.startswith("button-name") for line in findings(page))
