"""A sign-in at the local provider as a browser does it, by HTTP alone."""

from __future__ import annotations

import html
import re
from urllib.parse import urljoin

import requests

from benchmarks.proxy.programs import CannotMeasure

USER, PASSWORD = "alice@example.com", "Passw0rd!"
TIMEOUT_SECONDS = 30


def sign_in(start: str, name: str, browser: requests.Session | None = None) -> requests.Session:
    """Follow `start` to the provider's form, fill it in, and come back with cookies.

    `name` says whose sign-in it is where it fails (CannotMeasure). A browser that the provider knows already
    meets no form.
    """
    known = browser is not None
    browser = browser or requests.Session()
    page = browser.get(start, timeout=TIMEOUT_SECONDS)
    if known and page.status_code == 200 and 'name="password"' not in page.text:
        return browser
    form = re.search(r"<form[^>]*>.*?</form>", page.text, re.DOTALL)
    if form is None or 'name="password"' not in form[0]:
        raise CannotMeasure(f"{name}: no sign-in form came, but status {page.status_code}")
    fields = dict(re.findall(r'<input[^>]*name="([^"]+)"[^>]*value="([^"]*)"', form[0]))
    action = re.search(r'<form[^>]*action="([^"]*)"', form[0])
    answer = browser.post(
        urljoin(page.url, html.unescape(action[1])) if action else page.url,
        data={key: html.unescape(value) for key, value in fields.items()}
        | {"username": USER, "password": PASSWORD},
        timeout=TIMEOUT_SECONDS,
    )
    if answer.status_code != 200:
        raise CannotMeasure(f"{name}: the sign-in ended with status {answer.status_code}")
    return browser


def cookies_for(browser: requests.Session, url: str) -> str:
    """The Cookie header that the browser would send there."""
    prepared = browser.prepare_request(requests.Request("GET", url))
    return prepared.headers.get("Cookie", "")
