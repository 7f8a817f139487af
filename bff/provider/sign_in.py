"""The authorization code flow with PKCE. Each step is a pair: build a request, judge its response."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

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
    PublicError,
    ResponseInvalid,
)
from bff.provider import id_token
from bff.provider.id_token import Identity
from bff.provider.peer import Peer
from bff.provider.token_answer import UnusableAnswer, token_set, word
from bff.tokens import TokenSet

log = structlog.get_logger("bff.provider")

_PROMISED = {
    "email": ("email",),
    "profile": ("name", "given_name", "family_name", "preferred_username", "nickname"),
    "phone": ("phone_number",),
}
"""One of these claims, at least, is what a scope promises (OpenID Connect Core §5.4)."""

_LONGEST_REFERENCE = 2048


class SignedIn(msgspec.Struct, frozen=True):
    """What a sign-in brought."""

    identity: Identity
    tokens: TokenSet


class SignIn(Peer):
    """The sign-in."""

    def begin(
        self, return_url: str, parameters: Mapping[str, str], *, browser: str, replaces: str | None
    ) -> tuple[str, Attempt]:
        """The authorization request (RFC 6749 §4.1.1, PKCE S256, nonce) and the attempt to remember.

        `parameters` pass through to the provider. Raises ProviderUnavailable or SignInFailed.
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
            acr_values=parameters.get("acr_values"),
        )
        with self._session() as session:
            url, _ = session.create_authorization_url(
                metadata.authorization_endpoint,
                state=attempt.state,
                nonce=attempt.nonce,
                code_verifier=attempt.code_verifier,
                **self._asked(parameters),
            )
        url += "".join(f"&{pair}" for pair in self._resources())
        endpoint = metadata.pushed_authorization_request_endpoint
        return (url if endpoint is None else self._push(endpoint, url)), attempt

    def _asked(self, parameters: Mapping[str, str]) -> dict[str, str]:
        """What is asked of the provider beyond the protocol's own."""
        asked = dict(parameters)
        if self.profile.ignores_max_age and asked.pop("max_age", None) is not None:
            asked["prompt"] = "none" if asked.get("prompt") == "none" else "login"
        if self._settings.oidc_response_mode == "form_post":
            asked["response_mode"] = "form_post"
        return asked

    def step_up(self, max_age: int) -> str:
        """The parameter of `/bff/login` that brings about a sign-in not older than so many seconds."""
        return "prompt=login" if self.profile.ignores_max_age else f"max_age={max_age}"

    def _push(self, endpoint: str, url: str) -> str:
        """Push the request's parameters (RFC 9126): the browser carries a reference to them alone."""
        target, _, query = url.partition("?")
        own = urlsplit(self.metadata.get().authorization_endpoint).query
        parameters = [pair for pair in parse_qsl(query) if pair not in parse_qsl(own)]
        try:
            with self._session() as session:
                answer = session.post(
                    endpoint,
                    data=parameters,
                    auth=session.client_auth(self._auth),
                    withhold_token=True,
                    allow_redirects=False,
                )
            document = answer.json()
            request_uri = document.get("request_uri") if answer.status_code == 201 else None
        except (
            requests.RequestException,
            ValueError,
            AttributeError,
            RecursionError,
            AuthlibBaseError,
        ) as error:
            raise _not_pushed(type(error).__name__) from error
        if isinstance(document, dict) and "error" in document:
            raise _token_refusal(OAuthError(word(document["error"])), "pushed request")
        if not isinstance(request_uri, str) or not is_visible(request_uri):
            raise _not_pushed(f"status {answer.status_code}")
        reference = {"client_id": self._settings.oidc_client_id, "request_uri": request_uri}
        return f"{target}?{own + '&' if own else ''}{urlencode(reference)}"

    def _resources(self) -> list[str]:
        """The APIs that the user's token is for, as parameters (RFC 8707 §2)."""
        return [urlencode({"resource": resource}) for resource in self._settings.user_resources]

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

    def redeem(
        self, code: str, attempt: Attempt, discard: Callable[[TokenSet], object] = lambda _tokens: None
    ) -> SignedIn:
        """Exchange the code (RFC 6749 §4.1.3) and verify who signed in. `discard` gets the tokens that came
        with an ID token which is refused. Raises SignInFailed or ProviderUnavailable."""
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
            tokens = token_set(answer, asked_at, keep_id_token=self._settings.oidc_id_token_hint == "on")
        except OAuthError as error:
            raise _token_refusal(error, "token endpoint") from None
        except UnusableAnswer as error:
            raise ResponseInvalid(reason=f"token endpoint: {error}") from None
        except (requests.RequestException, ValueError, AuthlibBaseError) as error:
            raise ProviderUnavailable(
                "The identity provider did not finish the sign-in. Please try again.",
                reason=f"token endpoint: {type(error).__name__}",
            ) from error
        try:
            identity = self._identify(answer.get("id_token"), tokens.access_token, attempt)
        except PublicError:
            discard(tokens)
            raise
        tokens = msgspec.structs.replace(tokens, nonce=id_token.nonce_hash(attempt.nonce))
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
            id_token.check_acr(claims, attempt.acr_values)
        except id_token.Invalid as error:
            raise IDTokenInvalid(reason=f"ID token: {error}") from None
        return identity

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
            claims = self._user_info(answer)
        except (requests.RequestException, ValueError, AuthlibBaseError, id_token.Invalid) as error:
            log.warning("userinfo_failed", reason=type(error).__name__)
            return identity
        if claims.get("sub") != identity.subject:  # §5.3.2
            log.warning("userinfo_discarded", reason="another sub")
            return identity
        return identity.completed(claims)

    def _user_info(self, answer: requests.Response) -> dict[str, Any]:
        """The claims of a UserInfo answer: JSON, or signed (§5.3.2). Raises id_token.Invalid."""
        if answer.status_code != 200:
            raise id_token.Invalid("UserInfo was refused")
        kind = answer.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if kind != "application/jwt":
            return id_token.read_claims(answer.content)
        claims = self._verify(answer.text)
        if claims.get("iss") != self._settings.oidc_issuer or not id_token.is_for(
            claims, self._settings.oidc_client_id
        ):
            raise id_token.Invalid("UserInfo is another issuer's, or for another client")
        return claims


def refusal(error: str) -> ProviderRefused:
    """The page for an error of the authorization endpoint (RFC 6749 §4.1.2.1)."""
    if error == "access_denied":
        return AccessDenied("The sign-in was cancelled or not allowed.")
    return ProviderRefused(
        "The identity provider did not accept the request.", reason=f"authorization endpoint: {word(error)}"
    )


def _token_refusal(error: OAuthError, where: str) -> CodeRefused | ClientRefused | ProviderRefused:
    reason = f"{where}: {word(error.error)}"
    if error.error in ("invalid_client", "unauthorized_client"):
        return ClientRefused(
            "This application is not set up rightly at the identity provider.", reason=reason
        )
    if where != "token endpoint":
        return ProviderRefused("The identity provider did not accept the request.", reason=reason)
    return CodeRefused("The sign-in took too long or was used before. Please sign in again.", reason=reason)


def is_visible(text: str) -> bool:
    """Whether a text can stand in an address, as it must for the browser to carry it."""
    return 0 < len(text) <= _LONGEST_REFERENCE and text.isascii() and text.isprintable()


def _not_pushed(reason: str) -> ProviderUnavailable:
    return ProviderUnavailable(
        "The identity provider does not take sign-ins at the moment. Please try again shortly.",
        reason=f"pushed authorization request: {reason}",
    )
