"""The stack in a real browser: what only a browser can say about cookies, policies and pages."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tests.e2e.chromium import needs_browser, sign_in
from tests.e2e.stack import ADMIN, ALICE, PASSWORD, LiveStack, secrets_of

if TYPE_CHECKING:
    from playwright.sync_api import Page, Response

TOKEN = re.compile(r"eyJ[\w-]+\.[\w-]+")

pytestmark = needs_browser


def test_lands_signed_in_with_a_strict_cookie(page: Page, stack: LiveStack) -> None:
    """The provider is another site, the cookie is Strict, and the person lands signed in all the same."""
    sign_in(page, stack)
    assert page.url == f"{stack.url}/"
    assert ALICE in page.inner_text("#greeting")
    cookies = {cookie["name"]: cookie for cookie in page.context.cookies(stack.url)}
    assert list(cookies) == [stack.cookie]
    cookie = cookies[stack.cookie]
    assert cookie["sameSite"] == "Strict"
    assert cookie["httpOnly"] is True
    assert cookie["secure"] is stack.https
    assert (cookie["domain"], cookie["path"], cookie["expires"]) == ("localhost", "/", -1)


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
    ours = [
        answer
        for answer in answers
        if answer.url.startswith(stack.url) and answer.url != f"{stack.url}/bff/events"  # has no end
    ]
    seen = [f"{answer.url} {answer.all_headers()} {text_of(answer)}" for answer in ours]
    assert len(seen) > 10
    assert any("temperatureC" in text for text in seen)
    assert not [text for text in [*seen, stored] if TOKEN.search(text)]
    for secret in secrets_of(stack):
        assert not [text for text in [*seen, stored, page.content()] if secret in text]
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
    assert [cookie["name"] for cookie in page.context.cookies(stack.url)] == [stack.cookie]


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


def test_a_wrong_password(page: Page, stack: LiveStack) -> None:
    """The provider's page says so and keeps the address that was typed; the second try signs in."""
    page.goto(f"{stack.url}/bff/login?returnUrl=/%3Ffrom=test")
    page.fill("input[name=username]", ALICE)
    page.fill("input[name=password]", "wrong")
    page.click("form button[type=submit]")
    page.wait_for_selector("[role=alert]:visible")
    assert page.input_value("input[name=username]") == ALICE
    assert page.input_value("input[name=password]") == ""
    page.fill("input[name=password]", PASSWORD)
    page.click("form button[type=submit]")
    page.wait_for_selector("#greeting:visible")
    assert page.url == f"{stack.url}/?from=test"


def test_a_new_user(page: Page, stack: LiveStack) -> None:
    """Signing up with an e-mail address and the code that the page shows leads in, signed in."""
    page.goto(stack.url)
    page.click("#sign-in")
    page.click("a[href^='/signup']")
    page.fill("input[name=username]", "carol@example.com")
    page.fill("input[name=password]", "C0rrect-horse!")
    if page.locator("input[name=name]").count():
        page.fill("input[name=name]", "Carol")
    page.click("form button[type=submit]")
    code = re.search(r"\b\d{6}\b", page.inner_text("main"))
    assert code, "the page shows the code that an e-mail would bring"
    page.fill("input[name=code]", code[0])
    page.click("form button[type=submit]")
    page.wait_for_selector("#greeting:visible")
    assert "carol@example.com" in page.inner_text("#greeting")
    assert page.locator("#admin-for-others").is_visible()


def test_the_api_says_no(page: Page, stack: LiveStack) -> None:
    """Who is no administrator and tries all the same sees the API's own refusal."""
    sign_in(page, stack)
    assert page.locator("#admin-for-admins").is_hidden()
    page.click("#try-admin")
    page.wait_for_selector("#admin-result:visible")
    assert "403" in page.inner_text("#admin-answer")
    assert "insufficient_scope" in page.inner_text("#admin-body")


def test_by_keyboard_alone(page: Page, stack: LiveStack) -> None:
    """Sign in, call the API and sign out without a mouse, with a visible focus all the way."""
    page.goto(stack.url)
    page.wait_for_selector("#sign-in:visible")
    _tab_to(page, "sign-in")
    page.keyboard.press("Enter")
    page.wait_for_selector("input[name=username]")
    page.locator("input[name=username]").focus()
    page.keyboard.type(ALICE)
    page.keyboard.press("Tab")
    page.keyboard.type(PASSWORD)
    page.keyboard.press("Enter")
    page.wait_for_selector("#greeting:visible")
    _tab_to(page, "call-weather")
    page.keyboard.press("Space")
    page.wait_for_selector("#forecast:visible")
    page.keyboard.press("Home")
    _tab_to(page, "sign-out")
    page.keyboard.press("Enter")
    page.wait_for_selector("#sign-in:visible")


def _tab_to(page: Page, name: str) -> None:
    """Press Tab until the element has the focus, and see that one can see it."""
    page.evaluate("document.activeElement?.blur()")
    for _ in range(30):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement?.id") == name:
            outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
            assert outline not in ("none", ""), f"{name} does not show that it has the focus"
            return
    raise AssertionError(f"Tab never reaches {name}")


def test_a_session_that_ends_elsewhere(page: Page, stack: LiveStack) -> None:
    """A second tab that signs out ends the first one's session; even where that one could not be told, its
    next call leads to the sign-in."""
    page.route("**/bff/events", lambda route: route.abort())
    sign_in(page, stack)
    second = page.context.new_page()
    second.goto(stack.url)
    second.wait_for_selector("#greeting:visible")
    second.click("#sign-out")
    second.wait_for_selector("#sign-in:visible")
    page.click("#call-weather")
    page.wait_for_selector("input[name=username]")
    assert ALICE not in page.inner_text("body")
