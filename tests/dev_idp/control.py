"""Drives the control API and page."""

from typing import Any

from werkzeug.test import TestResponse

from tests.dev_idp.flow import Browser, hidden

TOKEN = "control-token-for-tests-0123456789"
BEARER = {"Authorization": f"Bearer {TOKEN}"}


def call(browser: Browser, method: str, path: str, json: Any = None, **headers: str) -> TestResponse:
    """One call of the control API with the token."""
    return browser.client.open(
        f"/control{path}", method=method, json=json, headers={**BEARER, **headers}, base_url=browser.origin
    )


def fault(browser: Browser, endpoint: str, kind: dict[str, Any], **more: Any) -> int:
    """Put a fault in force; gives its number."""
    answer = call(browser, "POST", "/faults", {"endpoint": endpoint, "fault": kind, **more})
    assert answer.status_code == 201, answer.text
    number: int = answer.get_json()["id"]
    return number


def enter(browser: Browser, token: str = TOKEN) -> TestResponse:
    """Give the token to the page's form."""
    form_token = hidden(browser.get("/control"), "form_token")
    return browser.post("/control/page/enter", {"token": token, "form_token": form_token})


def submit(browser: Browser, path: str, **fields: str) -> TestResponse:
    """Send a form of the control page."""
    form_token = hidden(browser.get("/control"), "form_token")
    return browser.post(f"/control/page/{path}", {"form_token": form_token, **fields})
