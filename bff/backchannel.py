"""The provider's own call: what a logout token ends here (Back-Channel Logout 1.0 §2.5 to 2.8)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import cast

import structlog

from bff.audit import Audit
from bff.errors import LogoutTokenInvalid, Unavailable
from bff.provider.client import Provider
from bff.provider.id_token import LEEWAY_SECONDS
from bff.provider.revocation import Revoker
from bff.provider.sign_out import LogoutToken
from bff.sealing import Keyring
from bff.sessions.directory import Directory
from bff.sessions.ending import Reason
from bff.sessions.record import sid_name, user_hash
from bff.sessions.store import SessionStore
from bff.tokens import Clock

log = structlog.get_logger("bff.audit")


@dataclass(frozen=True)
class BackChannel:
    """Judges logout tokens and ends sessions, put together in `app`."""

    provider: Provider
    store: SessionStore
    directory: Directory
    keyring: Keyring
    revoker: Revoker
    clock: Clock
    issuer: str
    audit: Audit

    def logout(self, given: list[str]) -> None:
        """Obey the one logout token of a request. By `sid` one session ends, by `sub` all of the user's; one
        that has ended already is a success. Raises LogoutTokenInvalid, also where store or provider are away:
        then the same token works later."""
        if len(given) != 1:
            raise LogoutTokenInvalid(reason="there is not exactly one logout_token")
        try:
            self._obey(self.provider.read_logout_token(given[0]))
        except Unavailable as error:
            raise LogoutTokenInvalid(reason=f"not now: {error.reason}") from None

    def _obey(self, token: LogoutToken) -> None:
        jti = f"logout {hashlib.sha256(token.jti.encode('utf-8', 'replace')).hexdigest()}"
        if self.store.claimed(jti):
            raise LogoutTokenInvalid(reason="the logout token was used before")
        if token.sid is not None:
            hashes = self.keyring.fingerprints("provider sid", f"{self.issuer} {token.sid}".encode())
            names = [*map(sid_name, hashes), *hashes]  # the whole hash is what earlier versions wrote
            user = user_hash(self.issuer, token.subject) if token.subject else None
            ended = self.directory.end_provider_session(names, user)
        else:
            named = user_hash(self.issuer, cast("str", token.subject))
            ended = self.directory.end_user(named, Reason.PROVIDER)
        count = 0
        for each in ended:
            count += 1
            self.audit.session_revoked(each, "provider")
            if each.record is not None:
                self.revoker.discard(each.record.tokens)
        # After the deletion only: had that failed, the same token would have to work once more.
        self.store.claim_once(jti, max(1, int(token.expires_at - self.clock()) + LEEWAY_SECONDS))
        log.info("signed_out_by_provider", count=count)
