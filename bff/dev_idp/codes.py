"""Authorization codes: one-time, short-lived, bound to client, redirect URI and PKCE challenge."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bff.dev_idp.refresh_families import Family, RefreshFamilies
from bff.dev_idp.storage import Storage, digest

LIFETIME_SECONDS = 300


@dataclass(frozen=True)
class AuthorizationCode:
    """What a code stands for. `digest` names it in the store; the code itself isn't kept.

    The methods and `code_challenge*` are what Authlib's grant and PKCE extension ask for.
    """

    digest: str
    client_id: str
    redirect_uri: str
    scope: str
    sub: str
    code_challenge: str
    nonce: str
    auth_time: int
    family: str
    expires: float

    code_challenge_method = "S256"

    def get_redirect_uri(self) -> str:
        """The redirect URI that the authorization request named."""
        return self.redirect_uri

    def get_scope(self) -> str:
        """The scope granted, space separated."""
        return self.scope


@dataclass(frozen=True)
class UsedCode:
    """The code was redeemed before (RFC 6749 section 4.1.2: its tokens should be revoked)."""

    client_id: str
    family: str


class AuthorizationCodes:
    """Keeps codes, finds them, and redeems each of them once."""

    def __init__(self, storage: Storage, families: RefreshFamilies, clock: Callable[[], float]) -> None:
        self._storage = storage
        self._families = families
        self._clock = clock

    def save(self, code: str, **details: Any) -> None:
        """Keep a new code. `details` are the fields of `AuthorizationCode` that the request sets."""
        kept = AuthorizationCode(
            digest=digest(code),
            family=self._families.new_id(),
            expires=self._clock() + LIFETIME_SECONDS,
            **details,
        )
        with self._storage.transaction() as db:
            db.execute(
                "INSERT INTO authorization_codes VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0)",
                (
                    kept.digest,
                    kept.client_id,
                    kept.redirect_uri,
                    kept.scope,
                    kept.sub,
                    kept.code_challenge,
                    kept.nonce,
                    kept.auth_time,
                    kept.family,
                    kept.expires,
                ),
            )

    def find(self, code: str) -> AuthorizationCode | UsedCode | None:
        """The code if it can be redeemed; what remains of it if it was; None if it never existed
        or its time is over."""
        with self._storage.transaction() as db:
            row = db.execute("SELECT * FROM authorization_codes WHERE digest = ?", (digest(code),)).fetchone()
        if row is None:
            return None
        found = AuthorizationCode(*row[:-1])
        if row[-1]:
            return UsedCode(found.client_id, found.family)
        return found if self._clock() < found.expires else None

    def redeem(self, code: AuthorizationCode) -> tuple[Family, str] | UsedCode:
        """Use the code up and begin its family, both or neither; of several calls one wins."""
        with self._storage.transaction() as db:
            changed = db.execute(
                "UPDATE authorization_codes SET used = 1 WHERE digest = ? AND NOT used",
                (code.digest,),
            )
            if not changed.rowcount:
                return UsedCode(code.client_id, code.family)
            return self._families.begin(
                db,
                code.family,
                client_id=code.client_id,
                sub=code.sub,
                scope=code.scope,
                auth_time=code.auth_time,
            )
