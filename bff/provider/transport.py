"""HTTP to the provider: kept-alive connections, no redirects, bounded in size and time."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from requests.utils import get_environ_proxies
from urllib3 import PoolManager

from bff.provider.connections import POOLS
from bff.provider.deadline import deadline

MAX_ANSWER_BYTES = 1_048_576
CONNECT_SECONDS = 3.0
SLACK_SECONDS = 2.0
"""How much later than the deadline the socket itself gives up."""

DISTRUST_SECONDS = 60.0
"""For how long no connection is used again after one has failed: there are servers, and balancers in front of
them, that close one after an answer without saying so, which is seen too late each time from far away."""


class AnswerBroken(requests.RequestException):
    """The head of an answer came, and its body broke off, took too long or was too large.

    `response` tells what the head said.
    """


class BoundedAdapter(HTTPAdapter):
    """Reads each answer whole, within a total deadline and a size, before anybody parses it."""

    def __init__(self, deadline_seconds: float, authorities: Path | None = None) -> None:
        """`authorities` take the place of the well-known ones as those that sign certificates."""
        super().__init__(pool_connections=8, pool_maxsize=32, max_retries=0)
        self._deadline = deadline_seconds
        bundle = authorities or os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE")
        self._verify = str(bundle) if bundle else True  # an empty one would have requests verify nothing
        self._proxies: dict[str, dict[str, str]] = {}
        self._distrusts_until = 0.0

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = POOLS

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> PoolManager:
        manager: PoolManager = super().proxy_manager_for(*args, **kwargs)
        manager.pool_classes_by_scheme = POOLS
        return manager

    def send(self, request: requests.PreparedRequest, **options: Any) -> requests.Response:  # type: ignore[override]
        # The watchdog's word comes first, so that what is over time is told by one rule; the socket's own
        # time-out is for a thread of deadlines that has fallen behind.
        options["timeout"] = (min(CONNECT_SECONDS, self._deadline), self._deadline + SLACK_SECONDS)
        options["stream"] = True
        options["verify"] = self._verify
        options["proxies"] = self._proxies_for(str(request.url))
        with deadline(self._deadline) as watchdog:
            watchdog.fresh_only = time.monotonic() < self._distrusts_until
            try:
                response = super().send(request, **options)
            except requests.RequestException as error:
                if watchdog.bit:
                    raise requests.ReadTimeout("the answer took too long", request=request) from error
                if watchdog.used_again:
                    self._distrusts_until = time.monotonic() + DISTRUST_SECONDS
                raise
            except OSError as error:  # the file of authorities is missing: trouble with TLS, as any other
                raise requests.exceptions.SSLError(str(error), request=request) from error
            try:
                response._content = _read(response)  # noqa: SLF001
            except requests.RequestException as error:
                raise AnswerBroken(type(error).__name__, response=response) from error
            finally:
                response.close()
        # An answer without a length seems to end where the connection is cut. Any other is whole, however
        # late we read it: a process that stood still must not throw away what it has redeemed.
        if watchdog.bit and not _tells_its_end(response):
            raise AnswerBroken("it took too long", response=response)
        return response

    def close(self) -> None:
        """Nothing: sessions come and go with each exchange, and requests has each close its adapter."""

    def _proxies_for(self, url: str) -> dict[str, str]:
        """As the environment says (HTTPS_PROXY, NO_PROXY …), which is read once for each host: requests would
        search all of it for every exchange, a quarter of what a refresh costs."""
        host = "/".join(url.split("/", 3)[:3])
        found = self._proxies.get(host)
        if found is None:
            found = self._proxies[host] = get_environ_proxies(host)
        return found


def _read(response: requests.Response) -> bytes:
    body = bytearray()
    for chunk in response.iter_content(16_384):
        body += chunk
        if len(body) > MAX_ANSWER_BYTES:
            raise requests.RequestException("the answer is larger than 1 MiB")
    return bytes(body)


def _tells_its_end(response: requests.Response) -> bool:
    """Whether reading it would have failed had it been cut (RFC 9112 §6.3)."""
    return response.headers.get("Content-Length", "").isdigit() or bool(response.raw.chunked)


def mount(session: requests.Session, adapter: BoundedAdapter) -> None:
    """Send all of a session's requests through `adapter`, which may be shared between threads, and reads the
    environment itself; no password of a .netrc is sent."""
    session.trust_env = False
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
