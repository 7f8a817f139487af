"""The issuer's keys over HTTP: the discovery document, then the JWK set that it names."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from bff.resource_api.jwt.compact import parse_object
from bff.resource_api.jwt.keys import KeySet, build_key_set
from bff.resource_api.jwt.model import Reason, TokenRefused
from bff.resource_api.urls import URLRefused, check_url, is_loopback

if TYPE_CHECKING:
    import requests

    from bff.resource_api.jwt.transport import Watchdog

MAX_DOCUMENT_BYTES = 256 * 1024
MAX_KEYS = 100


class FetchFailed(Exception):
    """The issuer's keys could not be had; the text is for the operator's log."""


@dataclass(frozen=True, slots=True)
class FetchLimits:
    """How long the issuer may take, in seconds."""

    connect: float = 2.0
    read: float = 2.0
    """Between two packets."""
    total: float = 5.0
    """For both documents together, from the first connection to the last byte."""


def discovery_url(issuer: str) -> str:
    """OpenID Connect Discovery §4: a slash at the issuer's end is not doubled."""
    return f"{issuer.removesuffix('/')}/.well-known/openid-configuration"


def fetch_keys(
    issuer: str,
    algorithms: Collection[str],
    limits: FetchLimits,
    *,
    allow_http: bool,
    authorities: Path | None = None,
) -> KeySet:
    """Fetch the issuer's usable verification keys, or raise `FetchFailed`.

    `authorities` take the place of the well-known ones as those that sign the issuer's certificate.
    """
    # Here, not above: it takes a fifth of a second, and the API is to listen before that.
    from bff.resource_api.jwt.transport import TRANSPORT_ERRORS, Watchdog, watched_session

    with Watchdog(limits.total) as watchdog, watched_session(watchdog, authorities) as session:
        try:
            metadata = _get_object(session, discovery_url(issuer), limits, watchdog)
            jwks_uri = _jwks_uri(metadata, issuer, allow_http=allow_http)
            jwks = _get_object(session, jwks_uri, limits, watchdog)
        except TRANSPORT_ERRORS as error:
            cause = "took too long" if watchdog.bit else type(error).__name__
            raise FetchFailed(f"no answer: {cause}") from error
    keys = jwks.get("keys")
    if not isinstance(keys, list) or len(keys) > MAX_KEYS:
        raise FetchFailed(f"the JWK set has no list `keys` of at most {MAX_KEYS}")
    return build_key_set(keys, algorithms)


def _jwks_uri(metadata: dict[str, Any], issuer: str, *, allow_http: bool) -> str:
    if metadata.get("issuer") != issuer:
        # OpenID Connect Discovery §4.3: otherwise one issuer could speak for another.
        raise FetchFailed("the discovery document's issuer is not the configured one, to the letter")
    jwks_uri = metadata.get("jwks_uri")
    if not isinstance(jwks_uri, str):
        raise FetchFailed("the discovery document names no jwks_uri")
    try:
        check_url(jwks_uri.partition("?")[0], allow_http=allow_http)
    except URLRefused as refused:
        raise FetchFailed(f"the discovery document's jwks_uri {refused}") from None
    if urlsplit(issuer).scheme == "https" != urlsplit(jwks_uri).scheme and not allow_http:
        # Loopback is no exception here: an issuer elsewhere has no business with this machine's ports.
        raise FetchFailed("the discovery document's jwks_uri is plain http, though the issuer is not")
    return jwks_uri


def _get_object(
    session: requests.Session, url: str, limits: FetchLimits, watchdog: Watchdog
) -> dict[str, Any]:
    # A proxy from the environment cannot reach this machine's own loopback.
    direct = is_loopback(urlsplit(url).hostname or "")
    with session.get(
        url,
        headers={"Accept": "application/json", "Accept-Encoding": "identity"},
        timeout=(limits.connect, limits.read),
        proxies={"http": "", "https": "", "all": ""} if direct else None,
        allow_redirects=False,
        stream=True,
    ) as response:
        if response.status_code != 200:
            raise FetchFailed(f"answer {response.status_code} where 200 is due")
        body = _read(response, watchdog)
    try:
        return parse_object(body, Reason.BAD_CLAIMS)
    except TokenRefused:
        raise FetchFailed("an answer that is not one JSON object") from None


def _read(response: requests.Response, watchdog: Watchdog) -> bytes:
    """The whole body, within size and time, as it came: nothing small unfolds to something huge."""
    body = bytearray()
    while chunk := response.raw.read1(16384, decode_content=False):
        body += chunk
        if len(body) > MAX_DOCUMENT_BYTES:
            raise FetchFailed(f"an answer of more than {MAX_DOCUMENT_BYTES} bytes")
    if watchdog.bit:
        # One without a length seems to end where the connection is cut.
        raise FetchFailed("an answer that took too long")
    return bytes(body)
