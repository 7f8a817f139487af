"""This confidential client at its provider. Each flow is a pair: build a request, judge its response."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlencode, urlsplit

import msgspec
import requests
import structlog
from authlib.common.errors import AuthlibBaseError
from authlib.common.security import generate_token
from authlib.integrations.requests_client import OAuthError

from bff.attempts import LIFETIME_SECONDS, Attempt
from bff.errors import (
    AccessDenied,
    ClientRefused,
    CodeRefused,
    IDTokenInvalid,
    ProviderRefused,
    ProviderUnavailable,
    ResponseInvalid,
)
from bff.provider import id_token
from bff.provider.cache import Cached
from bff.provider.client_auth import client_auth
from bff.provider.id_token import Identity
from bff.provider.metadata import Metadata, fetch_jwks, fetch_metadata
from bff.provider.token_answer import TokenSession, UnusableAnswer, is_grant, token_set, word
from bff.provider.transport import AnswerBroken, BoundedAdapter, mount
from bff.settings import Settings
from bff.tokens import Clock, TokenSet

log = structlog.get_logger("bff.provider")

_PROMISED = {
    "email": ("email",),
    "profile": ("name", "given_name", "family_name", "preferred_username", "nickname"),
    "phone": ("phone_number",),
}
"""One of these claims, at least, is what a scope promises (OpenID Connect Core §5.4)."""


SameUser = Callable[[str, str], bool]
"""Whether an issuer and a subject are the user whose session this is."""


class Refreshed(msgspec.Struct, frozen=True):
    """The provider gave new tokens: the old refresh token may be used up from now on."""

    tokens: TokenSet


class GrantEnded(msgspec.Struct, frozen=True):
    """A parsed `invalid_grant`: the one answer that ends a session."""


class Unrenewable(msgspec.Struct, frozen=True):
    """The redeem was answered, but not with tokens for this user: neither use them nor redeem again."""

    reason: str


class RefreshFailed(msgspec.Struct, frozen=True):
    """Anything else: the session is kept and the refresh tried again later.

    `outage` says whether the provider gave no answer of use, so that others need not try, either; the
    outcome of the redeem is unknown then.
    """

    reason: str
    outage: bool = True


RefreshResult = Refreshed | GrantEnded | Unrenewable | RefreshFailed


class SignedIn(msgspec.Struct, frozen=True):
    """What a sign-in brought."""

    identity: Identity
    tokens: TokenSet


class Provider:
    """The provider of `settings`; safe to share between threads. `clock` gives seconds since the epoch."""

    def __init__(self, settings: Settings, clock: Clock = time.time) -> None:
        self._settings = settings
        self._clock = clock
        self._adapter = BoundedAdapter(settings.provider_timeout_seconds)
        self.metadata: Cached[Metadata] = Cached(self._fetch_metadata, clock)
        self._jwks: Cached[list[dict[str, Any]]] = Cached(self._fetch_jwks, clock, cooldown=5)

    # -- sign-in ------------------------------------------------------------------------------------

    def begin(
        self, return_url: str, parameters: Mapping[str, str], *, browser: str, replaces: str | None
    ) -> tuple[str, Attempt]:
        """The authorization request (RFC 6749 §4.1.1, PKCE S256, nonce) and the attempt to remember.

        `parameters` pass through to the provider. Raises ProviderUnavailable.
        """
        metadata = self.metadata.get()
        now = self._clock()
        attempt = Attempt(
            state=generate_token(43),
            nonce=generate_token(43),
            code_verifier=generate_token(64),
            return_url=return_url,
            started_at=now,
            expires_at=now + LIFETIME_SECONDS,
            browser=browser,
            replaces=replaces,
            prompt=parameters.get("prompt"),
            max_age=int(parameters["max_age"]) if "max_age" in parameters else None,
        )
        with self._session() as session:
            url, _ = session.create_authorization_url(
                metadata.authorization_endpoint,
                state=attempt.state,
                nonce=attempt.nonce,
                code_verifier=attempt.code_verifier,
                **parameters,
            )
        return url, attempt

    def check_response(self, response: Mapping[str, str]) -> str:
        """The code of an authorization response whose state has been matched. Raises SignInFailed."""
        self.check_issuer(response)
        if "error" in response:
            raise refusal(response["error"])
        code = response.get("code")
        if not code:
            raise ResponseInvalid(reason="the response has neither code nor error")
        return code

    def check_issuer(self, response: Mapping[str, str]) -> None:
        """Refuse a response, error or not, of another issuer (RFC 9207 §2.4). Raises SignInFailed."""
        metadata = self.metadata.get()
        issuer = response.get("iss")
        if issuer is None and metadata.authorization_response_iss_parameter_supported:
            raise ResponseInvalid(reason="iss is advertised and missing")
        if issuer is not None and issuer != metadata.issuer:
            raise ResponseInvalid(reason="iss is another issuer: a mix-up attack")

    def redeem(self, code: str, attempt: Attempt) -> SignedIn:
        """Exchange the code (RFC 6749 §4.1.3) and verify who signed in. Raises SignInFailed or
        ProviderUnavailable."""
        metadata = self.metadata.get()
        asked_at = self._clock()
        try:
            with self._session() as session:
                answer = session.fetch_token(
                    metadata.token_endpoint,
                    grant_type="authorization_code",
                    code=code,
                    redirect_uri=self._settings.redirect_uri,
                    code_verifier=attempt.code_verifier,
                    allow_redirects=False,
                )
            tokens = token_set(answer, asked_at)
        except OAuthError as error:
            raise _token_refusal(error) from None
        except UnusableAnswer as error:
            raise ResponseInvalid(reason=f"token endpoint: {error}") from None
        except (requests.RequestException, ValueError, AuthlibBaseError) as error:
            raise ProviderUnavailable(
                "The identity provider did not finish the sign-in. Please try again.",
                reason=f"token endpoint: {type(error).__name__}",
            ) from error
        identity = self._identify(answer.get("id_token"), tokens.access_token, attempt)
        return SignedIn(self._complete(identity, tokens), tokens)

    def _identify(self, token: object, access_token: str, attempt: Attempt) -> Identity:
        if not isinstance(token, str):
            raise IDTokenInvalid(reason="no ID token came")
        try:
            claims = self._verify(token)
            id_token.check_access_token_hash(claims, id_token.algorithm_of(token), access_token)
            identity = id_token.check_claims(
                claims,
                issuer=self._settings.oidc_issuer,
                client_id=self._settings.oidc_client_id,
                nonce=attempt.nonce,
                now=self._clock(),
            )
            id_token.check_age(claims, attempt.max_age, self._clock())
        except id_token.Invalid as error:
            raise IDTokenInvalid(reason=f"ID token: {error}") from None
        return identity

    def _verify(self, token: str) -> dict[str, Any]:
        algorithms = self.metadata.get().id_token_signing_alg_values_supported
        try:
            return id_token.verify_signature(token, self._jwks.get(), algorithms)
        except id_token.UnknownKeyID:  # keys are rotated now and then: look once more
            return id_token.verify_signature(token, self._jwks.renew(), algorithms)

    def _complete(self, identity: Identity, tokens: TokenSet) -> Identity:
        """Add UserInfo's claims where the ID token lacks what the scopes promise (Core §5.3)."""
        endpoint = self.metadata.get().userinfo_endpoint
        lacking = [
            scope
            for scope in self._settings.oidc_scope
            if scope in _PROMISED and not any(name in identity.claims for name in _PROMISED[scope])
        ]
        if not lacking or endpoint is None:
            return identity
        try:
            with self._session() as session:
                session.token = {"access_token": tokens.access_token, "token_type": "Bearer"}
                answer = session.get(endpoint, allow_redirects=False)
            claims = id_token.read_claims(answer.content if answer.status_code == 200 else b"")
        except (requests.RequestException, ValueError, AuthlibBaseError, id_token.Invalid) as error:
            log.warning("userinfo_failed", reason=type(error).__name__)
            return identity
        if claims.get("sub") != identity.subject:  # §5.3.2
            log.warning("userinfo_discarded", reason="another sub")
            return identity
        return identity.completed(claims)

    # -- refresh, revocation, sign-out --------------------------------------------------------------

    def refresh(self, tokens: TokenSet, same_user: SameUser) -> RefreshResult:
        """Redeem the refresh token (RFC 6749 §6). A new ID token must be the `same_user`'s (Core §12.2)."""
        asked_at = self._clock()
        try:
            answer = self._redeem_refresh_token(tokens)
            renewed = token_set(answer, asked_at)
        except OAuthError as error:
            return (
                GrantEnded()
                if error.error == "invalid_grant"
                else RefreshFailed(word(error.error), outage=False)
            )
        except UnusableAnswer as error:
            return Unrenewable(str(error))
        except AnswerBroken as error:
            granted = error.response is not None and is_grant(error.response)
            return Unrenewable("the answer broke off") if granted else RefreshFailed("AnswerBroken")
        except ProviderUnavailable as error:
            return RefreshFailed(error.reason)
        except (requests.RequestException, ValueError, AuthlibBaseError) as error:
            return RefreshFailed(type(error).__name__)
        if not self._same_user(answer.get("id_token"), same_user):
            return Unrenewable("the refreshed ID token is invalid or another user's")
        return Refreshed(_successor(tokens, renewed))

    def _redeem_refresh_token(self, tokens: TokenSet) -> dict[str, Any]:
        metadata = self.metadata.get()
        self._jwks.get()  # before, not after: what has been redeemed could not be judged without them
        with self._session(scope=False) as session:
            answer: dict[str, Any] = session.fetch_token(
                metadata.token_endpoint,
                grant_type="refresh_token",
                refresh_token=tokens.refresh_token,
                allow_redirects=False,
            )
        return answer

    def _same_user(self, token: object, same_user: SameUser) -> bool:
        if not isinstance(token, str):
            return True  # a refresh need not bring one
        try:
            identity = id_token.check_claims(
                self._verify(token),
                issuer=self._settings.oidc_issuer,
                client_id=self._settings.oidc_client_id,
                nonce=None,
                now=self._clock(),
            )
        except id_token.Invalid:
            return False
        return same_user(self._settings.oidc_issuer, identity.subject)

    def revoke(self, tokens: TokenSet) -> None:
        """Revoke the refresh token (RFC 7009), best effort: a sign-out never fails for it."""
        metadata = self.metadata.known()
        if metadata is None or metadata.revocation_endpoint is None or tokens.refresh_token is None:
            return
        try:
            with self._session() as session:
                answer = session.revoke_token(
                    metadata.revocation_endpoint,
                    token=tokens.refresh_token,
                    token_type_hint="refresh_token",
                    allow_redirects=False,
                )
            if answer.status_code != 200:
                log.warning("revocation_refused", status=answer.status_code)
        except (requests.RequestException, ValueError, AuthlibBaseError) as error:
            log.warning("revocation_failed", reason=type(error).__name__)

    def sign_out_url(self, logout_hint: str | None) -> str:
        """Where the browser goes to sign out at the provider; "/" where it has no such place."""
        metadata = self.metadata.known()
        if metadata is None or metadata.end_session_endpoint is None:
            return "/"
        back, client_id = self._settings.public_url + "/", self._settings.oidc_client_id
        if self._is_cognito():
            query = {"client_id": client_id, "logout_uri": back}
        else:  # OpenID Connect RP-Initiated Logout 1.0 §2; the ID token stays here
            query = {"client_id": client_id, "post_logout_redirect_uri": back, "state": generate_token(22)}
            query |= {"logout_hint": logout_hint} if logout_hint else {}
        joint = "&" if "?" in metadata.end_session_endpoint else "?"
        return metadata.end_session_endpoint + joint + urlencode(query)

    def _is_cognito(self) -> bool:
        if self._settings.oidc_profile != "auto":
            return self._settings.oidc_profile == "cognito"
        host = urlsplit(self._settings.oidc_issuer).hostname or ""
        return host.startswith("cognito-idp.") and host.endswith((".amazonaws.com", ".amazonaws.com.cn"))

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

    # -- plumbing -----------------------------------------------------------------------------------

    def _session(self, *, scope: bool = True) -> TokenSession:
        """Authlib's client for one exchange; connections are kept alive by the shared adapter."""
        settings = self._settings
        session = TokenSession(
            client_id=settings.oidc_client_id,
            client_secret=settings.oidc_client_secret.get_secret_value(),
            token_endpoint_auth_method=client_auth(settings),
            revocation_endpoint_auth_method=client_auth(settings),
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


def _successor(old: TokenSet, new: TokenSet) -> TokenSet:
    """`new`, with what a refresh need not repeat taken from `old` (RFC 6749 §5.1 and §6)."""
    return msgspec.structs.replace(
        new,
        refresh_token=new.refresh_token or old.refresh_token,
        scope=new.scope or old.scope,
        refresh_expires_at=old.refresh_expires_at
        if new.refresh_expires_at is None
        else new.refresh_expires_at,
    )


def refusal(error: str) -> ProviderRefused:
    """The page for an error of the authorization endpoint (RFC 6749 §4.1.2.1)."""
    if error == "access_denied":
        return AccessDenied("The sign-in was cancelled or not allowed.")
    return ProviderRefused(
        "The identity provider did not accept the request.", reason=f"authorization endpoint: {word(error)}"
    )


def _token_refusal(error: OAuthError) -> CodeRefused | ClientRefused:
    reason = f"token endpoint: {word(error.error)}"
    if error.error in ("invalid_client", "unauthorized_client"):
        return ClientRefused(
            "This application is not set up rightly at the identity provider.", reason=reason
        )
    return CodeRefused("The sign-in took too long or was used before. Please sign in again.", reason=reason)
