"""HTTP to the provider: kept-alive connections, no redirects, bounded in size and time."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from typing import Any

import requests
from requests.adapters import HTTPAdapter

MAX_ANSWER_BYTES = 1_048_576
CONNECT_SECONDS = 3.0


class AnswerTooLarge(requests.RequestException):
    """More bytes than any honest answer has."""


class BoundedAdapter(HTTPAdapter):
    """Reads each answer whole, within a total deadline and a size, before anybody parses it."""

    def __init__(self, deadline_seconds: float) -> None:
        super().__init__(pool_connections=8, pool_maxsize=32, max_retries=0)
        self._deadline = deadline_seconds

    def send(self, request: requests.PreparedRequest, **options: Any) -> requests.Response:  # type: ignore[override]
        started = time.monotonic()
        options["timeout"] = (min(CONNECT_SECONDS, self._deadline), self._deadline)
        options["stream"] = True
        response = super().send(request, **options)
        until = started + self._deadline
        # The socket's time-out begins anew with each byte, so somebody must end an answer that drips.
        watchdog = threading.Timer(until - time.monotonic(), _hang_up, (response,))
        watchdog.daemon = True
        watchdog.start()
        try:
            response._content = self._read(response, until)  # noqa: SLF001
        finally:
            watchdog.cancel()
            response.close()
        return response

    def _read(self, response: requests.Response, until: float) -> bytes:
        body = bytearray()
        for chunk in response.iter_content(16_384):
            body += chunk
            if len(body) > MAX_ANSWER_BYTES:
                raise AnswerTooLarge("the answer is larger than 1 MiB", response=response)
        if time.monotonic() > until:
            raise requests.ReadTimeout("the answer took too long", response=response)
        return bytes(body)


def _hang_up(response: requests.Response) -> None:
    with suppress(ValueError, RuntimeError):  # it has been read to its end in this very moment
        response.raw.shutdown()


def mount(session: requests.Session, adapter: BoundedAdapter) -> None:
    """Send all of a session's requests through `adapter`, which may be shared between threads."""
    session.mount("https://", adapter)
    session.mount("http://", adapter)
    session.max_redirects = 0


def get_json(adapter: BoundedAdapter, url: str) -> dict[str, Any]:
    """A JSON object by GET. Raises requests.RequestException or ValueError."""
    with requests.Session() as session:
        mount(session, adapter)
        response = session.get(url, headers={"Accept": "application/json"}, allow_redirects=False)
    if response.status_code != 200:
        raise ValueError(f"status {response.status_code} instead of 200")
    try:
        document = response.json()
    except RecursionError:
        raise ValueError("the answer is nested too deeply") from None
    if not isinstance(document, dict):
        raise ValueError("the answer is not a JSON object")  # noqa: TRY004
    return document
