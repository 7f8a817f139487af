"""Upstreams: asked over the very connection that proxied requests take."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from urllib.parse import urlsplit

from bff.check.asking import STEP_SECONDS
from bff.check.configuration import Configuration
from bff.check.finding import Finding, error, ok
from bff.errors import UpstreamTimeout, UpstreamUnreachable
from bff.routes import TLSFiles
from bff.upstream import Origin

AREA = "upstream"


def check_upstreams(configuration: Configuration) -> Iterator[Finding]:
    """Whether each upstream answers; what it answers to a request without a token does not matter."""
    places = _places(configuration)
    if not places:
        yield ok(AREA, "not looked at: the settings of the routes cannot be used")
        return
    for (url, _), answer in zip(places, asyncio.run(_ask_all(places)), strict=True):
        if isinstance(answer, int):
            yield ok(AREA, f"{url} answers (status {answer})")
        else:
            why, fix = _explain(answer, url)
            yield error(AREA, f"{url}: {why}", fix)


def _places(configuration: Configuration) -> list[tuple[str, TLSFiles]]:
    """Each upstream once, with what its connections are secured with."""
    settings = configuration.settings
    if settings is None:
        return []
    found = [
        (route.upstream, TLSFiles(route.upstream_ca_file, route.upstream_cert_file, route.upstream_key_file))
        for route in (settings.routes if configuration.usable("routes") else ())
    ]
    if settings.api_url is not None and configuration.usable("api_url", "api_ca_file"):
        found.append((settings.api_url, TLSFiles(ca=settings.api_ca_file)))
    return list(dict.fromkeys(found))


async def _ask_all(places: list[tuple[str, TLSFiles]]) -> list[int | str]:
    return await asyncio.gather(*(_ask(*place) for place in places))


async def _ask(url: str, tls: TLSFiles) -> int | str:
    """The status of an answer, or the reason for there being none."""
    origin = Origin(url, tls)
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
            "check the host name; for a private authority set BFF_API_CA_FILE or a route's upstream_ca_file",
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
