"""A browser of sorts: it keeps cookies by the rules that matter here, and everything that it was told."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode, urlsplit

from tests.support.wire import Answer, exchange

CSRF = {"X-CSRF": "1"}


class Browser:
    """Sends each request on a connection of its own."""

    def __init__(self, port: int, origin: str) -> None:
        self._port = port
        self._host = urlsplit(origin).netloc
        self.origin = origin
        self.cookies: dict[str, str] = {}
        self.attributes: dict[str, set[str]] = {}
        """The attributes of each cookie that was ever set, in lower case."""
        self.transcript: list[Answer] = []

    def request(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        cookies: Mapping[str, str] | None = None,
    ) -> Answer:
        """One request, with the browser's cookies unless others are given."""
        sent = {"Host": self._host, "Connection": "close"}
        held = self.cookies if cookies is None else cookies
        if held:
            sent["Cookie"] = "; ".join(f"{name}={value}" for name, value in held.items())
        if body is not None:
            sent["Content-Length"] = str(len(body))
        lines = [f"{method} {target} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in (sent | dict(headers or {})).items() if value]
        data = "\r\n".join(lines).encode() + b"\r\n\r\n" + (body or b"")
        answer = exchange(self._port, data, head_only=method == "HEAD")
        self._remember(answer)
        self.transcript.append(answer)
        return answer

    def get(self, target: str, headers: Mapping[str, str] | None = None, **options: Any) -> Answer:
        return self.request("GET", target, headers, **options)

    def api(self, target: str, **options: Any) -> Answer:
        """GET as our own script sends it."""
        return self.request("GET", target, CSRF, **options)

    def post(self, target: str, headers: Mapping[str, str] | None = None, /, **form: str) -> Answer:
        """POST a form."""
        kind = {"Content-Type": "application/x-www-form-urlencoded"}
        return self.request("POST", target, kind | dict(headers or {}), urlencode(form).encode())

    def callback(self, response: Mapping[str, str]) -> Answer:
        """Come back from the provider: another site began this navigation, so no Strict cookie goes along."""
        lax = {
            name: value
            for name, value in self.cookies.items()
            if "samesite=strict" not in self.attributes.get(name, set())
        }
        return self.get("/bff/callback?" + urlencode(response), cookies=lax)

    @property
    def attempts(self) -> dict[str, str]:
        """The cookies of open sign-ins."""
        return {
            name: value for name, value in self.cookies.items() if name.startswith(("bff-", "__Host-bff-"))
        }

    @property
    def session(self) -> str | None:
        """The session cookie's value."""
        return self.cookies.get("bff") or self.cookies.get("__Host-bff")

    def _remember(self, answer: Answer) -> None:
        for header in answer.all("set-cookie"):
            first, *rest = (part.strip() for part in header.split(";"))
            name, _, value = first.partition("=")
            self.attributes[name] = {part.lower() for part in rest}
            if "max-age=0" in self.attributes[name]:
                self.cookies.pop(name, None)
            else:
                self.cookies[name] = value


def error_page(answer: Answer, status: int) -> str:
    """The code that an error page shows, once the page is all that it must be."""
    assert (answer.status, answer.get("content-type")) == (status, "text/html; charset=utf-8")
    assert answer.get("cache-control") == "no-store"
    assert answer.get("referrer-policy") == "no-referrer"
    policy = answer.get("content-security-policy")
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    said = re.search(r'<p class="lede">(.*?)</p>', answer.text)
    assert said, "it says what happened"
    assert len(said[1]) > 20
    assert re.search(r'<a class="button primary" href="(/|/bff/login)">', answer.text), "it shows a way on"
    if status == 503:
        assert int(answer.get("retry-after")) > 0
    codes = re.findall(r"<code>(\w+)</code>", answer.text)
    assert len(codes) == 1
    return str(codes[0])
