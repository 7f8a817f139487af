"""The user directory: who may sign in, and what is known of them."""

import hmac
import json
import re
import secrets
import sqlite3
import uuid
from collections.abc import Iterable
from dataclasses import dataclass

from bff.dev_idp import passwords
from bff.dev_idp.local_users import LocalUser
from bff.dev_idp.storage import Storage

_EMAIL = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*")


@dataclass(frozen=True)
class Account:
    """A user. `sub` is what tokens carry; as in a Cognito pool with e-mail sign-in it is also
    the user name."""

    sub: str
    email: str
    name: str
    given_name: str
    groups: tuple[str, ...]
    confirmed: bool


@dataclass(frozen=True)
class SignUp:
    """What a new user typed."""

    email: str
    password: str
    name: str

    def problems(self) -> list[str]:
        """What must be corrected, in sentences for the page; empty when all is well."""
        found = []
        if len(self.email) > 254 or not _EMAIL.fullmatch(self.email):
            found.append("Please give a valid e-mail address.")
        if missing := passwords.shortcomings(self.password):
            found.append(f"The password needs {', '.join(missing)}.")
        if len(self.name) > 100 or not all(char.isprintable() for char in self.name):
            found.append("Please give a name of at most 100 characters.")
        return found


# As at Cognito: letters, marks, symbols, digits and punctuation, no blanks.
LONGEST_GROUP = 128
MOST_GROUPS = 100


def group_problem(groups: Iterable[str]) -> str | None:
    """What is wrong with names of groups, or None."""
    names = list(groups)
    if len(names) > MOST_GROUPS:
        return f"A user can be in {MOST_GROUPS} groups at most."
    for name in names:
        # Blanks aside, Python calls the same characters printable; the comma separates them on the page.
        if not 1 <= len(name) <= LONGEST_GROUP or not name.isprintable() or set(name) & {" ", ","}:
            return (
                f"The name of a group has 1 to {LONGEST_GROUP} printable characters, no blank and no comma."
            )
    return None


def set_password(db: sqlite3.Connection, sub: str, password_hash: str) -> None:
    """Replace the user's password, inside the caller's transaction."""
    db.execute("UPDATE accounts SET password_hash = ? WHERE sub = ?", (password_hash, sub))


class Accounts:
    """Looks up, checks and adds users."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def ensure(self, users: Iterable[LocalUser]) -> None:
        """Add those users that aren't there yet; changes made to the others stay."""
        with self._storage.transaction() as db:
            known = {row[0] for row in db.execute("SELECT sub FROM accounts")}
            for user in users:
                if user.sub not in known:
                    _insert(
                        db,
                        Account(user.sub, user.email, user.name, user.given_name, user.groups, True),
                        user.password,
                        confirmation_code="",
                    )

    def by_sub(self, sub: str) -> Account | None:
        """The user with this subject, or None."""
        with self._storage.transaction() as db:
            row = db.execute(f"{_SELECT} WHERE sub = ?", (sub,)).fetchone()
        return _account(row) if row else None

    def by_email(self, email: str) -> Account | None:
        """The user with this e-mail address, in any case, or None."""
        if not _EMAIL.fullmatch(_canonical(email)):
            return None
        with self._storage.transaction() as db:
            row = db.execute(f"{_SELECT} WHERE email = ?", (_canonical(email),)).fetchone()
        return _account(row) if row else None

    def all(self, *, most: int) -> list[Account]:
        """The first users by e-mail address."""
        with self._storage.transaction() as db:
            rows = db.execute(f"{_SELECT} ORDER BY email LIMIT ?", (most,)).fetchall()
        return [_account(row) for row in rows]

    def unconfirmed(self, *, most: int) -> list[tuple[str, str]]:
        """E-mail addresses and confirmation codes of the latest users that have yet to give theirs."""
        with self._storage.transaction() as db:
            found: list[tuple[str, str]] = db.execute(
                "SELECT email, confirmation_code FROM accounts WHERE NOT confirmed"
                " ORDER BY rowid DESC LIMIT ?",
                (most,),
            ).fetchall()
        return found

    def set_groups(self, sub: str, groups: tuple[str, ...]) -> None:
        """Put the user into these groups and no others; tokens say so from the next one on."""
        with self._storage.transaction() as db:
            db.execute("UPDATE accounts SET groups = ? WHERE sub = ?", (json.dumps(groups), sub))

    def authenticate(self, email: str, password: str) -> Account | None:
        """The user whose password this is, confirmed or not; None for any other pair."""
        with self._storage.transaction() as db:
            row = db.execute(f"{_SELECT} WHERE email = ?", (_canonical(email),)).fetchone()
        # The hash is computed outside the transaction: it is slow on purpose.
        if passwords.matches(password, row[6] if row else passwords.NOBODY) and row:
            return _account(row)
        return None

    def sign_up(self, request: SignUp) -> Account | None:
        """Add an unconfirmed user with a confirmation code; None where the e-mail is known."""
        email = _canonical(request.email)
        name = request.name.strip() or email.partition("@")[0]
        account = Account(str(uuid.uuid4()), email, name, name.partition(" ")[0], (), False)
        code = f"{secrets.randbelow(1_000_000):06}"
        try:
            with self._storage.transaction() as db:
                _insert(db, account, request.password, code)
        except sqlite3.IntegrityError:
            return None
        return account

    def confirmation_code(self, sub: str) -> str:
        """The code that an unconfirmed user has to give, or an empty string."""
        with self._storage.transaction() as db:
            row = db.execute("SELECT confirmation_code FROM accounts WHERE sub = ?", (sub,)).fetchone()
        return str(row[0]) if row else ""

    def confirm(self, sub: str, code: str) -> bool:
        """Confirm the user if the code is right; says whether it was."""
        expected = self.confirmation_code(sub)
        if not expected or not hmac.compare_digest(expected.encode(), code.strip().encode()):
            return False
        with self._storage.transaction() as db:
            db.execute("UPDATE accounts SET confirmed = 1, confirmation_code = '' WHERE sub = ?", (sub,))
        return True


_SELECT = "SELECT sub, email, name, given_name, groups, confirmed, password_hash FROM accounts"


def _account(row: tuple[str, str, str, str, str, int, str]) -> Account:
    sub, email, name, given_name, groups, confirmed, _ = row
    return Account(sub, email, name, given_name, tuple(json.loads(groups)), bool(confirmed))


def _insert(db: sqlite3.Connection, account: Account, password: str, confirmation_code: str) -> None:
    db.execute(
        "INSERT INTO accounts VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (
            account.sub,
            account.email,
            account.name,
            account.given_name,
            passwords.hash_password(password),
            json.dumps(account.groups),
            account.confirmed,
            confirmation_code,
        ),
    )


def _canonical(email: str) -> str:
    return email.strip().lower()
