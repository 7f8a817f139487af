"""The provider as the other side of the line: what it published, its keys, and this client's session."""

from __future__ import annotations

import time
from typing import Any

import structlog

from bff.errors import ProviderUnavailable
from bff.provider import id_token
from bff.provider.cache import Cached
from bff.provider.client_auth import client_auth, with_parameters
from bff.provider.metadata import Metadata, fetch_jwks, fetch_metadata
from bff.provider.profiles import Profile, choose
from bff.provider.token_answer import TokenSession
from bff.provider.transport import BoundedAdapter, mount
from bff.settings import Settings
from bff.tokens import Clock

OF_THE_PROVIDER = "the provider"
"""Who asks with a token that the provider itself has given us over TLS: nobody else can make it up."""
OF_ANYBODY = "anybody"

log = structlog.get_logger("bff.provider")


class Peer:
    """What every flow needs; safe to share between threads. `clock` gives seconds since the epoch."""

    def __init__(
        self, settings: Settings, clock: Clock = time.time, adapter: BoundedAdapter | None = None
    ) -> None:
        """`adapter` carries what is sent, where it is not the usual one."""
        self._settings = settings
        self._clock = clock
        usual = BoundedAdapter(settings.provider_timeout_seconds, settings.oidc_ca_file)
        self._adapter = adapter or usual
        self.metadata: Cached[Metadata] = Cached(self._fetch_metadata, clock)
        self._jwks: Cached[list[dict[str, Any]]] = Cached(self._fetch_jwks, clock, cooldown=5)
        self._auth = client_auth(settings, lambda: self.metadata.get().token_endpoint)

    @property
    def profile(self) -> Profile:
        """The quirks of this provider."""
        return choose(self._settings.oidc_profile, self._settings.oidc_issuer, self.metadata.known)

    def prepare(self) -> None:
        """Fetch discovery and JWKS where they are missing or old; what goes wrong is for the log."""
        try:
            self.metadata.get()
            self._jwks.get()
        except ProviderUnavailable as error:
            log.warning("provider_unavailable", reason=error.reason)

    def known(self) -> bool:
        """Whether discovery and JWKS are at hand, however old."""
        return self.metadata.known() is not None and self._jwks.known() is not None

    def fresh(self) -> bool:
        """Whether discovery and JWKS are within their lifetime."""
        return self.metadata.fresh() and self._jwks.fresh()

    def require_keys(self) -> None:
        """Return where what the provider signs could be verified. Raises ProviderUnavailable."""
        self.metadata.get()
        self._jwks.get()

    def _verify(self, token: str, asker: str = OF_THE_PROVIDER) -> dict[str, Any]:
        """The claims of a token that the provider has signed. Raises id_token.Invalid.

        Keys and algorithms are changed now and then, some providers keep the `kid`: what does not fit is
        tried once more with what is published now, for each kind of `asker` (see Cached.renew).
        """
        metadata, keys = self.metadata.get(), self._jwks.get()
        try:
            return _verified(token, keys, metadata)
        except id_token.NotAdvertised:
            metadata = self.metadata.renew(metadata, asker)
        except id_token.NotByKnownKey:
            keys = self._jwks.renew(keys, asker)
        try:
            return _verified(token, keys, metadata)
        except id_token.NotByKnownKey:  # with the algorithm, the keys have changed
            return _verified(token, self._jwks.renew(keys, asker), metadata)

    def _session(self, *, scope: bool = True) -> TokenSession:
        """Authlib's client for one exchange; connections are kept alive by the shared adapter."""
        settings = self._settings
        resources = [("resource", resource) for resource in settings.user_resources]  # RFC 8707 §2.2
        secret = settings.oidc_client_secret
        session = TokenSession(
            client_id=settings.oidc_client_id,
            client_secret=None if secret is None else secret.get_secret_value(),
            token_endpoint_auth_method=with_parameters(self._auth, resources),
            revocation_endpoint_auth_method=self._auth,
            scope=" ".join(settings.oidc_scope) if scope else None,
            redirect_uri=settings.redirect_uri,
            code_challenge_method="S256",
        )
        mount(session, self._adapter)
        return session

    def _fetch_metadata(self) -> Metadata:
        settings = self._settings
        return fetch_metadata(self._adapter, settings.oidc_issuer, require_https=settings.production)

    def _fetch_jwks(self) -> list[dict[str, Any]]:
        return fetch_jwks(self._adapter, self.metadata.get().jwks_uri)


def _verified(token: str, keys: list[dict[str, Any]], metadata: Metadata) -> dict[str, Any]:
    return id_token.verify_signature(token, keys, metadata.id_token_signing_alg_values_supported)
