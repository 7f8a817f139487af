"""Makes the token endpoint's answers."""

from collections.abc import Callable
from typing import Any

from bff.dev_idp import claims
from bff.dev_idp.accounts import Account
from bff.dev_idp.keys import Purpose, SigningKeys
from bff.dev_idp.refresh_families import Family
from bff.dev_idp.settings import Settings

Alter = Callable[[Purpose, dict[str, Any]], dict[str, Any]]


class TokenIssuer:
    """Signs tokens and puts them into the form of RFC 6749 section 5.1.

    `alter` has the last word on the claims.
    """

    def __init__(
        self, settings: Settings, keys: SigningKeys, clock: Callable[[], float], alter: Alter
    ) -> None:
        self._alter = alter
        self._issuer = settings.issuer
        self._lifetime = settings.access_token_seconds
        self._keys = keys
        self._clock = clock

    def for_user(
        self,
        family: Family,
        account: Account,
        *,
        scope: str,
        refresh_token: str | None,
        nonce: str = "",
    ) -> dict[str, Any]:
        """Access token, ID token where `openid` was granted, refresh token where there is a new
        one."""
        now = int(self._clock())
        access = self._sign(
            Purpose.ACCESS,
            claims.access_token(self._issuer, family, account, scope, now, self._lifetime),
        )
        answer = self._bearer(access)
        if "openid" in scope.split():
            answer["id_token"] = self._sign(
                Purpose.ID,
                claims.id_token(
                    self._issuer,
                    family,
                    account,
                    scope,
                    now,
                    self._lifetime,
                    nonce=nonce,
                    access_token=access,
                ),
            )
        if refresh_token is not None:
            answer["refresh_token"] = refresh_token
        return answer

    def for_client(self, client_id: str, scope: str) -> dict[str, Any]:
        """The access token of a client that acts for itself."""
        now = int(self._clock())
        return self._bearer(
            self._sign(
                Purpose.ACCESS,
                claims.client_access_token(self._issuer, client_id, scope, now, self._lifetime),
            )
        )

    def read_access_token(self, token: str) -> dict[str, Any] | None:
        """The claims of an access token of ours that hasn't expired, else None.

        Ours may have been made with wrong claims on purpose: the types are looked at.
        """
        found = self._keys.verify(Purpose.ACCESS, token)
        if found is None or found.get("iss") != self._issuer:
            return None
        if not all(isinstance(found.get(name), str) for name in ("sub", "scope")):
            return None
        expires = found.get("exp")
        return found if isinstance(expires, int | float) and expires > self._clock() else None

    def read_id_token_hint(self, token: str) -> dict[str, Any] | None:
        """The claims of an ID token of ours, expired or not (OpenID Connect RP-Initiated Logout
        section 2 asks to accept old ones), else None."""
        found = self._keys.verify(Purpose.ID, token)
        if found is None or found.get("iss") != self._issuer or not isinstance(found.get("aud"), str):
            return None
        return found

    def _sign(self, purpose: Purpose, wanted: dict[str, Any]) -> str:
        return self._keys.sign(purpose, self._alter(purpose, wanted))

    def _bearer(self, access_token: str) -> dict[str, Any]:
        return {
            "access_token": access_token,
            "token_type": "Bearer",
            "expires_in": self._lifetime,
        }
