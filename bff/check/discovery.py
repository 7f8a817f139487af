"""The discovery document, its keys and its clock."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import requests
from joserfc.errors import JoseError
from joserfc.jwk import JWKRegistry

from bff.check.asking import STEP_SECONDS, explain, get, new_session
from bff.check.finding import Finding, error, ok, plain, warning
from bff.errors import ProviderUnavailable
from bff.provider.id_token import ALGORITHMS, LEEWAY_SECONDS, is_short
from bff.provider.metadata import Metadata, discovery_url, fetch_jwks, is_address, is_safe
from bff.provider.profiles import COGNITO, choose
from bff.provider.transport import BoundedAdapter
from bff.settings import Settings

AREA = "discovery"
SKEW_SECONDS = 5
"""More than a network's delay and a header's whole seconds explain."""


@dataclass(frozen=True)
class Discovered:
    """A document that could be read; `trusted` says whether the client's secret may go where it points."""

    document: dict[str, Any]
    metadata: Metadata
    trusted: bool


def check_discovery(settings: Settings) -> Generator[Finding, None, Discovered | None]:
    """Fetch and judge the document; returns it where it can be used at all."""
    answer = yield from _fetch(settings.oidc_issuer, settings.oidc_ca_file)
    if answer is None:
        return None
    yield from check_clock(answer.headers, time.time() - answer.elapsed.total_seconds() / 2)
    document = yield from _read(answer, settings.oidc_issuer)
    if document is None:
        return None
    same = yield from check_issuer(settings.oidc_issuer, str(document.get("issuer", "")))
    try:
        metadata = msgspec.convert(document, Metadata)
    except msgspec.ValidationError as invalid:
        yield error(AREA, f"the document cannot be used: {plain(str(invalid))}", _which_document())
        return None
    secure = yield from _check_endpoints(settings, metadata)
    yield from _check_abilities(settings, document)
    yield from check_keys(metadata, settings.oidc_ca_file)
    return Discovered(document, metadata, same and secure)


def _fetch(issuer: str, authorities: Path | None) -> Generator[Finding, None, requests.Response | None]:
    url = discovery_url(issuer)
    try:
        with new_session(authorities) as session:
            answer = get(session, url)
    except (requests.RequestException, ValueError) as failure:
        why, fix = explain(failure)
        yield error(AREA, f"{url} could not be read: {why}", fix)
        return None
    if answer.status_code == 200:
        return answer
    if answer.is_redirect:
        where = plain(answer.headers["Location"])
        yield error(AREA, f"{url} redirects to {where}", "set BFF_OIDC_ISSUER to the provider's own issuer")
    else:
        yield error(AREA, f"{url} answers {answer.status_code} instead of 200", _which_issuer(issuer))
    return None


def _which_issuer(issuer: str) -> str:
    host = urlsplit(issuer).hostname or ""
    if host.endswith(".amazoncognito.com"):
        return (
            "this is the domain of the hosted sign-in page; the issuer of a Cognito user pool is "
            "https://cognito-idp.REGION.amazonaws.com/POOL_ID"
        )
    if is_cognito(issuer):
        return (
            "check region and user pool id in BFF_OIDC_ISSUER, as in "
            "https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_AbCdEfGhI"
        )
    return "check BFF_OIDC_ISSUER, its path above all: realm, tenant or pool"


def _which_document() -> str:
    return "check that BFF_OIDC_ISSUER is the issuer of an OpenID provider"


def is_cognito(issuer: str) -> bool:
    """Whether an issuer is a user pool of Amazon Cognito."""
    return choose("auto", issuer, lambda: None) is COGNITO


def _read(answer: requests.Response, issuer: str) -> Generator[Finding, None, dict[str, Any] | None]:
    try:
        document = msgspec.json.decode(answer.content)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        yield error(AREA, f"{discovery_url(issuer)} does not answer a JSON object", _which_issuer(issuer))
        return None
    return document


def check_issuer(ours: str, theirs: str) -> Generator[Finding, None, bool]:
    """Discovery §4.3: exactly equal. Returns whether at most a slash at the end is amiss."""
    if ours == theirs:
        yield ok(AREA, f"the issuer is {ours}")
        return True
    slash = ours.rstrip("/") == theirs.rstrip("/")
    mine, its = urlsplit(ours), urlsplit(theirs)
    if slash:
        cause = "they differ in the slash at the end"
    elif mine.netloc != its.netloc:
        cause = "another environment, or a proxy in front of it"
    else:
        cause = "another pool, realm or tenant of the same host"
    yield error(
        AREA,
        f"BFF_OIDC_ISSUER is {ours}, the document there names {plain(theirs) or 'none'}: {cause}",
        f"set BFF_OIDC_ISSUER={plain(theirs)} if that is the provider you mean, letter by letter"
        if theirs
        else _which_document(),
    )
    return slash


def _check_endpoints(settings: Settings, metadata: Metadata) -> Generator[Finding, None, bool]:
    """Addresses that may be used; returns whether the secret may be sent there."""
    secure = True
    for member, url in metadata.endpoints().items():
        if not is_address(url):
            secure = False
            yield error(
                AREA,
                f"{member} is {plain(url)}: no address that can be used",
                "let the provider publish an absolute URL: a plain host, a valid port, no fragment",
            )
        elif not is_safe(url, require_https=settings.production):
            secure = False
            yield error(
                AREA,
                f"{member} is {plain(url)}: not https",
                "let the provider publish https addresses (behind a proxy it needs to know its public URL)",
            )
    host = urlsplit(settings.oidc_issuer).hostname
    if is_cognito(settings.oidc_issuer) and f"//{host}/" in metadata.authorization_endpoint:
        yield error(
            AREA,
            "the user pool has no domain, so nobody can sign in",
            "give the pool a domain: Cognito console, Branding, Domain",
        )
    if metadata.end_session_endpoint is None:
        yield warning(
            AREA,
            "the provider names no end_session_endpoint: signing out here leaves the person signed in there",
            "switch on the provider's logout endpoint if it has one",
        )
    return secure


def _check_abilities(settings: Settings, document: dict[str, Any]) -> Iterator[Finding]:
    """What the document says that the provider can do; what it leaves out is not held against it."""
    methods = document.get("code_challenge_methods_supported")
    if isinstance(methods, list) and "S256" not in methods:
        yield error(
            AREA, "the provider does not offer PKCE with S256", "switch it on there: this client insists"
        )
    auth, offered = settings.oidc_client_auth, document.get("token_endpoint_auth_methods_supported")
    if isinstance(offered, list) and auth not in offered:
        known = ", ".join(plain(str(each), 40) for each in offered[:8])
        yield warning(
            AREA, f"BFF_OIDC_CLIENT_AUTH={auth} is not among those offered: {known}", "choose one of them"
        )
    mode = str(getattr(settings, "oidc_response_mode", "query"))
    modes = document.get("response_modes_supported")
    if isinstance(modes, list) and mode not in modes:
        yield warning(AREA, f"BFF_OIDC_RESPONSE_MODE={mode} is not among those offered", "set it to query")
    types = document.get("response_types_supported")
    if isinstance(types, list) and "code" not in types:
        yield error(AREA, "the provider does not offer the code grant", "switch it on there")


def check_clock(headers: Any, asked_at: float) -> Iterator[Finding]:
    """Their Date against our clock, in seconds since the epoch at the middle of the exchange."""
    area = "clock"
    try:
        theirs = parsedate_to_datetime(headers["Date"]).timestamp() + float(headers.get("Age", 0))
    except (KeyError, ValueError, TypeError, OverflowError):
        yield ok(area, "could not tell: the provider's answer has no date")
        return
    skew = asked_at - (theirs + 0.5)  # the header leaves out the fraction of a second
    seconds = round(abs(skew))
    if seconds <= SKEW_SECONDS:
        yield ok(area, "this machine and the provider agree about the time")
        return
    text = f"this machine's clock is {seconds} s {'ahead of' if skew > 0 else 'behind'} the provider's"
    fix = "let this machine keep time (chrony, systemd-timesyncd); containers have their host's clock"
    if seconds > LEEWAY_SECONDS:
        yield error(area, f"{text}: ID tokens will be refused", fix)
    else:
        yield warning(area, f"{text}; from {LEEWAY_SECONDS} s on, ID tokens are refused", fix)


def check_keys(metadata: Metadata, authorities: Path | None = None) -> Iterator[Finding]:
    """There must be a key of a kind that an allowed signature can be verified with."""
    area = "keys"
    allowed = ALGORITHMS.intersection(metadata.id_token_signing_alg_values_supported)
    if not allowed:
        yield error(
            area,
            "the provider signs ID tokens with no algorithm that is accepted here",
            "let it sign with RS256 or ES256; HS256 and none are never accepted",
        )
    try:
        keys = fetch_jwks(BoundedAdapter(STEP_SECONDS, authorities), metadata.jwks_uri)
    except ProviderUnavailable as failure:
        why, fix = _why(failure)
        yield error(area, f"{plain(metadata.jwks_uri)} could not be read: {why}", fix)
        return
    usable = [key for key in keys if _usable(key)]
    if usable:
        yield ok(area, f"{len(usable)} of {len(keys)} published keys can verify signatures")
    else:
        yield error(
            area,
            f"none of the {len(keys)} published keys can verify signatures",
            "let the provider publish an RSA (of 2048 bits at least), EC or Ed25519 key with use=sig",
        )


def _why(failure: ProviderUnavailable) -> tuple[str, str]:
    cause = failure.__cause__
    if isinstance(cause, requests.RequestException):
        return explain(cause)
    return "it does not answer with a key set", "look at that address in a browser"


def _usable(key: dict[str, Any]) -> bool:
    fits = key.get("use", "sig") == "sig" and key.get("alg", "RS256") in ALGORITHMS
    if not fits or key.get("kty") not in ("RSA", "EC", "OKP"):
        return False
    try:
        if is_short(key):
            return False
        JWKRegistry.import_key(key)
    except (JoseError, ValueError, TypeError, LookupError):
        return False
    return True
