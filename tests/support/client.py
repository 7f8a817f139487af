"""The BFF's side of the provider without a server around it."""

from __future__ import annotations

import time
from collections.abc import Callable
from urllib.parse import parse_qsl, urlsplit

from bff.attempts import Attempt
from bff.provider.client import Provider
from bff.provider.sign_in import SignedIn
from bff.settings import load
from bff.tokens import TokenSet
from tests.support.provider import ScriptedProvider
from tests.support.stack import environment

Clock = Callable[[], float]
PATIENCE_SECONDS = 2


def client_of(
    scripted: ScriptedProvider, clock: Clock = time.time, without: tuple[str, ...] = (), **settings: str
) -> Provider:
    """The provider as the BFF sees it; `settings` are named as in `BFF_…`, in lower case; those in `without`
    are left out."""
    environ = environment(5003, scripted, "redis://127.0.0.1:1/0", "http://127.0.0.1:1")
    environ |= {f"BFF_{name.upper()}": value for name, value in settings.items()}
    for name in without:
        del environ[f"BFF_{name.upper()}"]
    impatient = {"provider_timeout_seconds": PATIENCE_SECONDS}  # the setting itself counts whole seconds
    return Provider(load(environ).model_copy(update=impatient), clock)


def begin(provider: Provider, **parameters: str) -> tuple[str, Attempt]:
    """An authorization request and its attempt."""
    return provider.begin("/", parameters, browser="browser", replaces=None)


def sign_in(scripted: ScriptedProvider, provider: Provider) -> SignedIn:
    """A whole sign-in, without a browser."""
    url, attempt = begin(provider)
    response = scripted.authorize(url)
    return provider.redeem(provider.check_response(response), attempt)


def query_of(url: str) -> dict[str, str]:
    """The query of a URL, in which nothing may come twice."""
    pairs = parse_qsl(urlsplit(url).query, keep_blank_values=True, strict_parsing=True)
    assert len(dict(pairs)) == len(pairs), url
    return dict(pairs)


def token_set(**changes: object) -> TokenSet:
    """A token set that has a refresh token."""
    members: dict[str, object] = {
        "access_token": "access-old",
        "refresh_token": "refresh-old",
        "obtained_at": time.time() - 290,
        "expires_at": time.time() + 10,
        "scope": "openid",
    }
    return TokenSet(**(members | changes))  # type: ignore[arg-type]
