"""The refresh of a session's tokens (RFC 6749 §6), and what can come of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import requests
from authlib.common.errors import AuthlibBaseError
from authlib.integrations.requests_client import OAuthError

from bff.errors import ProviderUnavailable
from bff.provider import id_token
from bff.provider.peer import Peer
from bff.provider.token_answer import NothingGranted, UnusableAnswer, is_grant, token_set, word
from bff.provider.transport import AnswerBroken
from bff.tokens import TokenSet

SameUser = Callable[[str, str], bool]
"""Whether an issuer and a subject are the user whose session this is."""


class Refreshed(msgspec.Struct, frozen=True):
    """The provider gave new tokens: the old refresh token may be used up from now on."""

    tokens: TokenSet


class GrantEnded(msgspec.Struct, frozen=True):
    """A parsed `invalid_grant`: the one answer that ends a session."""


class Unrenewable(msgspec.Struct, frozen=True):
    """The redeem was answered, but not with tokens for this user: neither use them nor redeem again.

    `tokens` are what came, to be revoked; None where nothing can be made of it.
    """

    reason: str
    tokens: TokenSet | None = None


class Unverified(msgspec.Struct, frozen=True):
    """Tokens came with an ID token that cannot be judged for now: the key that signed it is not to be had.

    `tokens` are the old ones with the new refresh token. Whose the others are is not known, so nobody uses
    them; but the old refresh token may be used up, so that the new one must not be lost.
    """

    tokens: TokenSet


class RefreshFailed(msgspec.Struct, frozen=True):
    """Anything else: the session is kept and the refresh tried again later.

    `outage` says whether the provider gave no answer of use, so that others need not try, either; the
    outcome of the redeem is unknown then.
    """

    reason: str
    outage: bool = True


RefreshResult = Refreshed | GrantEnded | Unrenewable | Unverified | RefreshFailed


class Renewal(Peer):
    """The refresh."""

    def refresh(
        self, tokens: TokenSet, same_user: SameUser, before: Callable[[], None] = lambda: None
    ) -> RefreshResult:
        """Redeem the refresh token. A new ID token must be the `same_user`'s (Core §12.2).

        `before` is called when all is ready, right before the token request; what it raises passes through,
        and nothing is sent.
        """
        try:
            self.require_keys()  # before, not after: what has been redeemed could not be judged without them
        except ProviderUnavailable as error:
            return RefreshFailed(error.reason)
        before()
        asked_at = self._clock()
        try:
            answer = self._redeem_refresh_token(tokens)
            renewed = token_set(answer, asked_at, keep_id_token=self._settings.oidc_id_token_hint == "on")
        except OAuthError as error:
            ended = error.error == "invalid_grant"
            return GrantEnded() if ended else RefreshFailed(word(error.error), outage=False)
        except NothingGranted as error:
            return RefreshFailed(str(error))
        except UnusableAnswer as error:
            return Unrenewable(str(error))
        except AnswerBroken as error:
            granted = error.response is not None and is_grant(error.response)
            return Unrenewable("the answer broke off") if granted else RefreshFailed("AnswerBroken")
        except (requests.RequestException, ValueError, AuthlibBaseError) as error:
            return RefreshFailed(type(error).__name__)
        successor = _successor(tokens, renewed)
        try:
            if not self._same_user(answer.get("id_token"), renewed.access_token, tokens, same_user):
                return Unrenewable("the refreshed ID token is invalid or another user's", renewed)
        except (id_token.NotByKnownKey, ProviderUnavailable):
            return Unverified(_with_refresh_token_of(successor, tokens))
        return Refreshed(successor)

    def _redeem_refresh_token(self, tokens: TokenSet) -> dict[str, Any]:
        with self._session(scope=False) as session:
            answer: dict[str, Any] = session.fetch_token(
                self.metadata.get().token_endpoint,
                grant_type="refresh_token",
                refresh_token=tokens.refresh_token,
                allow_redirects=False,
            )
        return answer

    def _same_user(self, token: object, access_token: str, old: TokenSet, same_user: SameUser) -> bool:
        """Raises NotByKnownKey or ProviderUnavailable where that cannot be told for now."""
        if token is None:
            return True  # a refresh need not bring one
        if not isinstance(token, str):
            return False
        try:
            claims = self._verify(token)
            id_token.check_access_token_hash(claims, id_token.algorithm_of(token), access_token)
            identity = id_token.check_claims(
                claims,
                issuer=self._settings.oidc_issuer,
                client_id=self._settings.oidc_client_id,
                nonce=None,
                now=self._clock(),
            )
            id_token.check_same_nonce(identity.claims, old.nonce)
        except id_token.NotByKnownKey:  # most likely by one that was published a moment ago
            raise
        except id_token.Invalid:
            return False
        return same_user(self._settings.oidc_issuer, identity.subject)


def _successor(old: TokenSet, new: TokenSet) -> TokenSet:
    """`new`, with what a refresh need not repeat taken from `old` (RFC 6749 §5.1 and §6)."""
    ends_at = new.refresh_expires_at
    return msgspec.structs.replace(
        new,
        refresh_token=new.refresh_token or old.refresh_token,
        scope=new.scope or old.scope,
        refresh_expires_at=old.refresh_expires_at if ends_at is None else ends_at,
        id_token=new.id_token or old.id_token,
        nonce=old.nonce,
    )


def _with_refresh_token_of(new: TokenSet, old: TokenSet) -> TokenSet:
    """`old`, to be renewed with what renews `new`."""
    return msgspec.structs.replace(
        old, refresh_token=new.refresh_token, refresh_expires_at=new.refresh_expires_at
    )
