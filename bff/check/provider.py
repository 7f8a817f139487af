"""The identity provider: what it publishes first, then what it says to this client."""

from __future__ import annotations

from collections.abc import Iterator

from bff.check.client import Probe, check_credentials, check_service_client
from bff.check.configuration import Configuration
from bff.check.discovery import check_discovery
from bff.check.finding import Finding, ok
from bff.check.redirects import check_redirect_uri, check_scopes, check_sign_out


def check_provider(configuration: Configuration) -> Iterator[Finding]:
    """Everything about the provider, in the order in which a sign-in needs it."""
    settings = configuration.settings
    if settings is None or not configuration.usable("oidc_issuer"):
        yield ok("provider", "not looked at: BFF_OIDC_ISSUER cannot be used")
        return
    discovered = yield from check_discovery(settings)
    if discovered is None:
        yield ok("provider", "client, redirect URI and scopes not looked at: there is no discovery document")
        return
    if not configuration.usable("oidc_client_id", "public_url", "oidc_scope"):
        yield ok("provider", "client, redirect URI and scopes not looked at: mend the settings first")
        return
    if not discovered.trusted:  # the client secret goes to nobody whose word does not hold
        yield ok("provider", "client, redirect URI and scopes not looked at: mend the discovery errors first")
        return
    probe = Probe(settings, discovered.metadata)
    accepted = yield from check_redirect_uri(probe)
    yield from check_scopes(settings, discovered.document, accepted=accepted)
    if configuration.usable("oidc_client_secret", "oidc_client_auth", "oidc_client_key_file"):
        yield from check_credentials(probe)
        if configuration.usable("routes", "service_client_id", "service_client_secret"):
            yield from check_service_client(probe)
    else:
        yield ok("client", "credentials not looked at: mend the settings first")
    yield from check_sign_out(probe)
