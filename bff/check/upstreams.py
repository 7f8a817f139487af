"""Upstreams: asked over the very connection that proxied requests take."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from urllib.parse import urlsplit

from bff.check.asking import STEP_SECONDS
from bff.check.configuration import Configuration
from bff.check.finding import Finding, error, ok
from bff.errors import UpstreamTimeout, UpstreamUnreachable
from bff.upstream import Origin

AREA = "upstream"


def check_upstreams(configuration: Configuration) -> Iterator[Finding]:
    """Whether each upstream answers; what it answers to a request without a token does not matter."""
    urls = _urls(configuration)
    if not urls:
        yield ok(AREA, "not looked at: the settings of the routes cannot be used")
        return
    for url, answer in zip(urls, asyncio.run(_ask_all(urls)), strict=True):
        if isinstance(answer, int):
            yield ok(AREA, f"{url} answers (status {answer})")
        else:
            why, fix = _explain(answer, url)
            yield error(AREA, f"{url}: {why}", fix)


def _urls(configuration: Configuration) -> list[str]:
    """Each upstream once."""
    settings = configuration.settings
    if settings is None:
        return []
    found = [route.upstream for route in settings.routes] if configuration.usable("routes") else []
    if settings.api_url is not None and configuration.usable("api_url"):
        found.append(settings.api_url)
    return list(dict.fromkeys(found))


async def _ask_all(urls: list[str]) -> list[int | str]:
    return await asyncio.gather(*(_ask(url) for url in urls))


async def _ask(url: str) -> int | str:
    """The status of an answer, or the reason for there being none."""
    origin = Origin(url)
    headers = [(b"host", urlsplit(url).netloc.encode()), (b"accept", b"*/*")]
    try:
        async with asyncio.timeout(2 * STEP_SECONDS):
            response = await origin.send("GET", origin.base_path or b"/", headers, None, STEP_SECONDS)
    except (UpstreamUnreachable, UpstreamTimeout) as failure:
        return failure.reason or type(failure).__name__
    except TimeoutError:
        return "TimeoutError"
    response.finish()  # closes, unless the whole answer is there already
    origin.close()
    return response.status


def _explain(reason: str, url: str) -> tuple[str, str]:
    if "SSLCertVerificationError" in reason:
        return (
            "its certificate is not trusted",
            "check the host name; SSL_CERT_FILE names a private authority",
        )
    if "gaierror" in reason:
        return "its host name cannot be resolved", "check the spelling in BFF_API_URL or [[routes]]"
    if "ConnectionRefusedError" in reason:
        return "the connection was refused", "start it, or check host and port in BFF_API_URL or [[routes]]"
    if reason.startswith("connecting: ") and url.startswith("https:"):
        return (
            "no TLS connection came about",
            "check host, port and firewalls; use http:// if it is plain http",
        )
    if "Timeout" in reason or "in time" in reason:
        return "it does not answer in time", "check host, port and firewalls; it may also hang"
    hint = "https" if urlsplit(url).scheme == "http" else "http"
    return "it does not answer as an HTTP server", f"check host and port, and whether it wants {hint}://"
