"""Forgotten passwords: codes that let a user set a new one."""

import hmac
import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass

from bff.dev_idp import passwords
from bff.dev_idp.accounts import Account, Accounts, set_password
from bff.dev_idp.browser_sessions import BrowserSessions
from bff.dev_idp.refresh_families import revoke_user
from bff.dev_idp.storage import Storage

LIFETIME_SECONDS = 3600
GUESSES = 5


@dataclass
class _Reset:
    email: str
    code: str
    expires: float
    guesses: int = GUESSES


class PasswordResets:
    """Gives codes and takes them back for a new password. Codes live in memory, one for each user."""

    def __init__(self, storage: Storage, accounts: Accounts, clock: Callable[[], float]) -> None:
        self._storage = storage
        self._accounts = accounts
        self._clock = clock
        self._lock = threading.Lock()
        self._resets: dict[str, _Reset] = {}

    def ask(self, email: str) -> tuple[str, Account | None]:
        """A code for the user, and the user; the code is worth nothing where there is no such user.

        It ends an earlier code.
        """
        code = f"{secrets.randbelow(1_000_000):06}"
        account = self._accounts.by_email(email)
        if account is not None:
            with self._lock:
                self._resets.pop(account.sub, None)  # the newest is to stand last
                self._resets[account.sub] = _Reset(account.email, code, self._clock() + LIFETIME_SECONDS)
        return code, account

    def finish(self, email: str, code: str, password: str) -> Account | None:
        """Set the password if this is the user's code; gives the user, or None where it isn't.

        Whoever knew the old password is out: all sessions, codes and refresh tokens of the user end.
        """
        account = self._accounts.by_email(email)
        if account is None or not self._use(account.sub, code):
            return None
        password_hash = passwords.hash_password(password)
        with self._storage.transaction() as db:
            set_password(db, account.sub, password_hash)
            BrowserSessions.end_all(db, account.sub)
            revoke_user(db, account.sub)
        return account

    def recent(self, *, most: int) -> list[tuple[str, str]]:
        """E-mail addresses and codes that still can be used, the newest first."""
        now = self._clock()
        with self._lock:
            live = [(each.email, each.code) for each in self._resets.values() if each.expires > now]
        return live[::-1][:most]

    def _use(self, sub: str, code: str) -> bool:
        with self._lock:
            reset = self._resets.get(sub)
            if reset is None:
                return False
            reset.guesses -= 1
            right = hmac.compare_digest(reset.code.encode(), code.strip().encode("utf-8", "surrogatepass"))
            if right or reset.guesses <= 0 or reset.expires <= self._clock():
                del self._resets[sub]
            return right and reset.expires > self._clock()
