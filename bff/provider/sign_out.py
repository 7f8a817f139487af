"""The end of a session at the provider: revocation (RFC 7009), the browser's visit (RP-Initiated Logout 1.0),
and the provider's own call (Back-Channel Logout 1.0)."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

import msgspec
import requests
import structlog
from authlib.common.errors import AuthlibBaseError
from authlib.common.security import generate_token

from bff.errors import LogoutTokenInvalid
from bff.provider import id_token
from bff.provider.peer import OF_ANYBODY, Peer
from bff.tokens import TokenSet

BACKCHANNEL_EVENT = "http://schemas.openid.net/event/backchannel-logout"
LONGEST_LOGOUT_TOKEN_SECONDS = 86_400

log = structlog.get_logger("bff.provider")


class LogoutToken(msgspec.Struct, frozen=True):
    """What a verified logout token asks for: one session, or all of a user's. `expires_at` is in seconds
    since the epoch."""

    jti: str
    subject: str | None
    sid: str | None
    expires_at: float


class SignOut(Peer):
    """Ending sessions."""

    def revoke(self, tokens: TokenSet) -> None:
        """Somebody signs out: end the grant at the provider, best effort. A sign-out never fails for it."""
        metadata = self.metadata.known()
        if metadata is None or tokens.refresh_token is None:
            return
        if self.profile.ends_session_by_post and metadata.end_session_endpoint is not None:
            self._post("end_session", metadata.end_session_endpoint, {"refresh_token": tokens.refresh_token})
        else:
            self._revoke(tokens.refresh_token)

    def discard(self, tokens: TokenSet) -> None:
        """Revoke tokens that nobody holds any more, though nobody has signed out: not where that would end
        the user's other sessions along with it."""
        if tokens.refresh_token is not None and not self.profile.revocation_ends_all:
            self._revoke(tokens.refresh_token)

    def _revoke(self, refresh_token: str) -> None:
        metadata = self.metadata.known()
        if metadata is not None and metadata.revocation_endpoint is not None:
            form = {"token": refresh_token, "token_type_hint": "refresh_token"}
            self._post("revocation", metadata.revocation_endpoint, form)

    def _post(self, what: str, endpoint: str, form: dict[str, str]) -> None:
        """A request of this client that is answered by its status alone."""
        try:
            with self._session() as session:
                answer = session.post(
                    endpoint,
                    data=form,
                    auth=session.client_auth(self._auth),
                    withhold_token=True,
                    allow_redirects=False,
                )
            if answer.status_code not in (200, 204):
                log.warning("revocation_refused", way=what, status=answer.status_code)
        except (requests.RequestException, ValueError, AuthlibBaseError) as error:
            log.warning("revocation_failed", way=what, reason=type(error).__name__)

    def sign_out_url(self, logout_hint: str | None, held: TokenSet | None = None) -> str:
        """Where the browser goes to sign out at the provider; "/" where it has no such place.

        The ID token stays here, unless `BFF_OIDC_ID_TOKEN_HINT` is on.
        """
        metadata = self.metadata.known()
        if metadata is None or metadata.end_session_endpoint is None:
            return "/"
        back, client_id = self._settings.public_url + "/", self._settings.oidc_client_id
        if self.profile.cognito_logout:
            query = {"client_id": client_id, "logout_uri": back}
        else:
            query = {"client_id": client_id, "post_logout_redirect_uri": back, "state": generate_token(22)}
            query |= {"logout_hint": logout_hint} if logout_hint else {}
            if self._settings.oidc_id_token_hint == "on" and held is not None and held.id_token is not None:
                query["id_token_hint"] = held.id_token
        joint = "&" if "?" in metadata.end_session_endpoint else "?"
        return metadata.end_session_endpoint + joint + urlencode(query)

    def read_logout_token(self, token: str) -> LogoutToken:
        """Verify a logout token (Back-Channel Logout 1.0 §2.6). Raises LogoutTokenInvalid, or
        ProviderUnavailable where the provider's keys are not to be had."""
        try:
            claims = self._verify(token, OF_ANYBODY)
            id_token.check_for_us(
                claims,
                issuer=self._settings.oidc_issuer,
                client_id=self._settings.oidc_client_id,
                now=self._clock(),
            )
            return _logout_token(claims, self._clock())
        except id_token.Invalid as error:
            raise LogoutTokenInvalid(reason=f"logout token: {error}") from None


def _logout_token(claims: dict[str, Any], now: float) -> LogoutToken:
    """The members that only a logout token has. Raises id_token.Invalid."""
    events = claims.get("events")
    if not isinstance(events, dict) or not isinstance(events.get(BACKCHANNEL_EVENT), dict):
        raise id_token.Invalid("events does not name a back-channel logout")
    if "nonce" in claims:  # §2.4: or an ID token could pass for one
        raise id_token.Invalid("there is a nonce: this is no logout token")
    jti, subject, sid = (claims.get(name) for name in ("jti", "sub", "sid"))
    if not isinstance(jti, str) or not 0 < len(jti) <= 512:
        raise id_token.Invalid("jti is missing")
    for value in (subject, sid):
        if value is not None and (not isinstance(value, str) or not 0 < len(value) <= 512):
            raise id_token.Invalid("sub or sid is not a text")
    if subject is None and sid is None:
        raise id_token.Invalid("neither sub nor sid")
    if claims["exp"] > now + LONGEST_LOGOUT_TOKEN_SECONDS:  # its jti must be remembered until then
        raise id_token.Invalid("exp is more than a day ahead")
    return LogoutToken(jti, subject, sid, float(claims["exp"]))
