"""Streams in a real browser: what it sends by itself opens them, and the page shows what it is told."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.e2e.chromium import OpenPage, needs_browser, sign_in
from tests.e2e.stack import CSRF, LiveStack
from tests.e2e.stack import sign_in as sign_in_elsewhere
from tests.support.stack import Stack, running, store
from tests.support.websocket import echo_frames

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = needs_browser
SOON = 8_000
"""Milliseconds in which the page must know; it asks by itself every two minutes only."""
TOML = """
[[routes]]
path = "/socket"
upstream = "UPSTREAM"
stream = "websocket"
"""


def test_ended_from_elsewhere(page: Page, stack: LiveStack) -> None:
    """The user ends the session in another browser: the page says so by itself, and shows nothing of them."""
    sign_in(page, stack)
    page.wait_for_selector("#sessions:visible")
    other = sign_in_elsewhere(stack.url)
    assert other.delete(f"{stack.url}/bff/sessions", headers=CSRF, timeout=10).status_code == 204
    page.wait_for_selector("#ended:visible", timeout=SOON)
    assert "ended from elsewhere" in page.inner_text("#ended")
    assert page.inner_text("#greeting") == ""


def test_signed_out_in_another_tab(page: Page, stack: LiveStack) -> None:
    """A sign-out in one tab is seen in the other."""
    sign_in(page, stack)
    other = page.context.new_page()
    other.goto(stack.url)
    other.wait_for_selector("#greeting:visible")
    other.click("#sign-out")
    page.wait_for_selector("#ended:visible", timeout=SOON)
    assert page.inner_text("#ended") == "You have signed out."
    other.wait_for_selector("#sign-in:visible")
    assert not other.is_visible("#ended")


def test_signed_in_anew_in_another_tab(page: Page, stack: LiveStack) -> None:
    """A session that a new sign-in of the same browser has replaced is no reason to show anybody out."""
    sign_in(page, stack)
    with page.expect_response(lambda answer: "/bff/user" in answer.url, timeout=15_000):
        other = page.context.new_page()
        other.goto(f"{stack.url}/bff/login")
        other.wait_for_url(f"{stack.url}/")
    page.wait_for_selector("#greeting:visible")
    assert not page.is_visible("#ended")
    with page.expect_response(lambda answer: "/bff/user" in answer.url, timeout=SOON):
        other.wait_for_selector("#greeting:visible")
        other.click("#sign-out")  # the page listens to the new session now
    page.wait_for_selector("#ended:visible", timeout=SOON)


def test_about_to_end(page: Page, stack: LiveStack) -> None:
    """Told that the session is about to end, the page shows how long it lasts and offers to extend it."""
    told = 'retry: 60000\n\nevent: session-expiring\ndata: {"seconds": 42}\n\n'
    page.route(
        "**/bff/events",
        lambda route: route.fulfill(status=200, content_type="text/event-stream", body=told),
    )
    from playwright.sync_api import expect

    sign_in(page, stack)
    expect(page.locator("#countdown")).to_have_text(re.compile("^00:"))
    expect(page.locator("#status")).to_contain_text("less than a minute")
    page.click("#status-action")
    expect(page.locator("#countdown")).not_to_have_text(re.compile("^00:"))


@pytest.fixture
def bff() -> Iterator[Stack]:
    with store() as own, running(own, toml=TOML) as found:
        found.upstream.script = echo_frames
        yield found


def test_a_websocket_of_the_page(open_page: OpenPage, bff: Stack) -> None:
    """A browser's own handshake is let in, its frames come back, and the end of the session closes it."""
    page = open_page()
    page.goto(bff.origin)
    page.context.add_cookies([{"name": "bff", "value": bff.plant(), "url": bff.origin}])
    said = page.evaluate(
        """() => new Promise((resolve, reject) => {
          const socket = new WebSocket(`ws://${location.host}/socket`);
          socket.onopen = () => socket.send("hello");
          socket.onmessage = ({ data }) => resolve(data);
          socket.onerror = () => reject(new Error("refused"));
          window.socketClosed = new Promise((done) => { socket.onclose = ({ code }) => done(code); });
        })"""
    )
    assert said == "hello"
    (seen,) = bff.upstream.requests
    assert seen.get("authorization") == "Bearer planted"
    with bff.store.client() as client:
        client.delete(*bff.sessions())
    assert page.evaluate("window.socketClosed") == 1006
