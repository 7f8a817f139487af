"""Somebody who walks through the flow over HTTP, with cookies and forms but no scripts."""

from __future__ import annotations

import html
import re
from http.cookiejar import Cookie
from typing import Any

import requests
from requests.cookies import RequestsCookieJar

from tests.certified.stage import Served
from tests.e2e.stack import CSRF, submit

PATIENCE_SECONDS = 20


class CookieJar(RequestsCookieJar):
    """Sends Secure cookies to localhost over http, too, as browsers do."""

    def set_cookie(self, cookie: Cookie, *args: Any, **kwargs: Any) -> None:
        cookie.secure = False
        super().set_cookie(cookie, *args, **kwargs)


class Visitor:
    """A browser of sorts."""

    def __init__(self, served: Served) -> None:
        self.bff = served
        self.browser = requests.Session()
        self.browser.cookies = CookieJar()

    def get(self, target: str, **options: Any) -> requests.Response:
        """GET at the BFF, and wherever it leads."""
        return self.browser.get(self.bff.url + target, timeout=PATIENCE_SECONDS, **options)

    def begin(self, **parameters: str) -> requests.Response:
        """Ask for a sign-in; the page that this leads to."""
        return self.get("/bff/login", params=parameters)

    def sign_in(self, name: str = "ada", **parameters: str) -> Visitor:
        """A whole sign-in."""
        page = self.begin(**parameters)
        assert page.url.startswith(f"{self.bff.provider.issuer}/interaction/"), page.url
        self.finish(submit(self.browser, page, login=name, password="any"), parameters.get("returnUrl", "/"))
        return self

    def finish(self, page: requests.Response, return_url: str = "/") -> None:
        """From the provider's last answer to the page that sends the browser on to where it wanted to go."""
        if self.bff.way.settings.get("oidc_response_mode") == "form_post":
            page = submit(self.browser, page)
        assert page.status_code == 200, page.text
        assert page.url.split("?")[0] == f"{self.bff.url}/bff/callback"
        onward = re.search(r'http-equiv="refresh" content="0; ?url=([^"]*)"', page.text)
        assert onward is not None, page.text
        assert html.unescape(onward[1]) == return_url

    def user(self) -> requests.Response:
        return self.get("/bff/user", headers=CSRF)

    def claims(self) -> dict[str, Any]:
        """Who is signed in."""
        answer = self.user()
        assert answer.status_code == 200, answer.text
        return {claim["type"]: claim["value"] for claim in answer.json()}

    def is_signed_in(self) -> bool:
        return self.user().status_code == 200

    def weather(self) -> requests.Response:
        """A call of the API."""
        return self.get("/weather", headers=CSRF)

    def bearer(self) -> str:
        """The one `Authorization` that reaches the API."""
        answer = self.weather()
        assert answer.status_code == 200, answer.text
        (authorization,) = answer.json()
        return str(authorization)

    def sign_out_address(self) -> str:
        """Sign out here; where to go to sign out at the provider."""
        answer = self.browser.post(f"{self.bff.url}/bff/logout", headers=CSRF, timeout=PATIENCE_SECONDS)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["logout_url"])

    def confirm_sign_out(self, page: requests.Response) -> requests.Response:
        """Say yes to the provider's question whether to sign out there."""
        assert page.url.startswith(f"{self.bff.provider.issuer}/session/end"), page.url
        return submit(self.browser, page, logout="yes")

    def sign_out_at_provider(self) -> None:
        """End the provider's own session, with no word to the BFF from this browser."""
        page = self.browser.get(f"{self.bff.provider.issuer}/session/end", timeout=PATIENCE_SECONDS)
        assert self.confirm_sign_out(page).status_code == 200
