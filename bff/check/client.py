"""Whether the provider accepts this client, found out without a person and without a token."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator

from bff.attempts import Attempt
from bff.check.asking import STEP_SECONDS
from bff.check.finding import Finding, error, ok, warning
from bff.errors import ClientRefused, CodeRefused, ProviderUnavailable, SignInFailed
from bff.provider.cache import Cached
from bff.provider.client import Provider
from bff.provider.metadata import Metadata
from bff.settings import Settings

AREA = "client"
SERVICE = "service"
MAX_ROUTES = 20


class Probe:
    """The server's own client of the provider, in a hurry, with metadata that was judged before."""

    def __init__(self, settings: Settings, metadata: Metadata) -> None:
        self.settings = settings.model_copy(update=_hurried(settings))
        self.metadata = metadata
        self.provider = Provider(self.settings)
        self.provider.metadata = Cached(lambda: metadata, time.time)
        self.provider.metadata.get()

    def begin(self, parameters: dict[str, str]) -> tuple[str, Attempt]:
        """An authorization request just as a sign-in makes it. Raises PublicError."""
        return self.provider.begin("/", parameters, browser="bff check", replaces=None)


def _hurried(settings: Settings) -> dict[str, object]:
    return {
        "provider_timeout_seconds": min(STEP_SECONDS, settings.provider_timeout_seconds),
        "oidc_response_mode": "query",  # a response in the URL can be read without a browser
    }


def reason_word(refused: Exception) -> str:
    """The provider's error code, which the reason of our errors ends with."""
    return str(getattr(refused, "reason", "")).rpartition(": ")[2]


def check_credentials(probe: Probe) -> Iterator[Finding]:
    """Redeem a code that is none: `invalid_grant` then says that the client itself was accepted.

    RFC 6749 §5.2: `invalid_client` comes before the code is looked at.
    """
    attempt = Attempt(
        state=uuid.uuid4().hex,
        nonce=uuid.uuid4().hex,
        code_verifier=uuid.uuid4().hex * 2,
        return_url="/",
        started_at=time.time(),
        expires_at=time.time() + 60,
        browser="bff check",
    )
    try:
        probe.provider.redeem(str(uuid.uuid4()), attempt)
    except ClientRefused as refused:
        yield _refused(probe.settings, reason_word(refused))
        return
    except CodeRefused as refused:
        yield _judged(probe.settings, reason_word(refused))
        return
    except ProviderUnavailable:
        yield error(
            AREA,
            "the token endpoint gave no answer of use",
            f"check that this machine may reach {probe.metadata.token_endpoint}",
        )
        return
    except SignInFailed:
        pass
    yield error(
        AREA,
        "the token endpoint granted a code that is none",
        f"check that {probe.metadata.token_endpoint} is the provider's: it does not look at codes",
    )


def _judged(settings: Settings, word: str) -> Finding:
    if word == "invalid_grant":
        return ok(AREA, f"the provider accepts client {settings.oidc_client_id} and its credentials")
    if word == "unsupported_grant_type":
        return error(
            AREA, "the provider refuses the code grant", "allow the authorization code grant for this client"
        )
    return warning(
        AREA,
        f"could not tell whether the client is accepted: the token endpoint answers {word}",
        "try a sign-in, and look at the provider's log",
    )


def _refused(settings: Settings, word: str) -> Finding:
    named = f"client {settings.oidc_client_id} ({settings.oidc_client_auth})"
    if word == "unauthorized_client":
        return error(
            AREA,
            f"the provider answers unauthorized_client to {named}",
            "allow the authorization code grant for it (Cognito: app client, Login pages, OAuth grant "
            "types); Keycloak also means a wrong secret: compare BFF_OIDC_CLIENT_SECRET",
        )
    return error(
        AREA,
        f"the provider answers {word} to {named}: id, secret or method are not what it knows",
        "compare BFF_OIDC_CLIENT_ID and BFF_OIDC_CLIENT_SECRET with the client of this very environment; "
        "a client without a secret needs one (at Cognito: a new app client); try another "
        "BFF_OIDC_CLIENT_AUTH",
    )


def check_service_client(probe: Probe) -> Iterator[Finding]:
    """Get the client's own token for each scope and resource that routes want it for; nothing keeps it."""
    routes = [route for route in probe.settings.routes if route.token in ("client", "user_or_client")]
    for scope, resource in dict.fromkeys((route.scope, route.resource) for route in routes[:MAX_ROUTES]):
        wanted = " ".join(each for each in (scope, resource) if each) or "no scope"
        try:
            probe.provider.client_token(scope, resource)
        except (ProviderUnavailable, SignInFailed, ValueError) as refused:
            yield error(
                SERVICE,
                f"no token of the client's own for {wanted}: {reason_word(refused) or 'no answer of use'}",
                "allow client_credentials and the scope for that client; Cognito refuses that grant to a "
                "client that has the code grant: name another one by BFF_SERVICE_CLIENT_ID",
            )
        else:
            yield ok(SERVICE, f"the provider gives the client's own token for {wanted}")
