"""What the views work with, built once per application."""

import secrets
from collections.abc import Callable
from dataclasses import dataclass

from bff.dev_idp import clients
from bff.dev_idp.accounts import Accounts
from bff.dev_idp.browser_sessions import BrowserSessions
from bff.dev_idp.codes import AuthorizationCodes
from bff.dev_idp.control.faults import Faults
from bff.dev_idp.control.guesses import Guesses
from bff.dev_idp.keys import SigningKeys
from bff.dev_idp.local_users import TEST_USERS
from bff.dev_idp.password_resets import PasswordResets
from bff.dev_idp.refresh_families import RefreshFamilies
from bff.dev_idp.settings import Settings
from bff.dev_idp.storage import Storage
from bff.dev_idp.tokens import Alter, TokenIssuer


@dataclass(frozen=True)
class Services:
    """The parts of the provider. `form_key` signs what pages hand to their own forms."""

    settings: Settings
    clock: Callable[[], float]
    storage: Storage
    accounts: Accounts
    clients: clients.Clients
    sessions: BrowserSessions
    families: RefreshFamilies
    codes: AuthorizationCodes
    keys: SigningKeys
    tokens: TokenIssuer
    resets: PasswordResets
    faults: Faults
    guesses: Guesses
    form_key: bytes


def build(settings: Settings, storage: Storage, clock: Callable[[], float], alter: Alter) -> Services:
    """Put the parts together; makes keys and test users where the storage has none.

    `alter` has the last word on the claims of tokens.
    """
    storage.forget_expired(clock())
    accounts = Accounts(storage)
    accounts.ensure(TEST_USERS)
    keys = SigningKeys(storage)
    keys.ensure(clock())
    families = RefreshFamilies(storage, settings, clock)
    return Services(
        settings=settings,
        clock=clock,
        storage=storage,
        accounts=accounts,
        clients=clients.registered(settings),
        sessions=BrowserSessions(storage, clock),
        families=families,
        codes=AuthorizationCodes(storage, families, clock),
        keys=keys,
        tokens=TokenIssuer(settings, keys, clock, alter),
        resets=PasswordResets(storage, accounts, clock),
        faults=Faults(),
        guesses=Guesses(clock),
        form_key=_form_key(storage),
    )


def _form_key(storage: Storage) -> bytes:
    with storage.transaction() as db:
        db.execute("INSERT OR IGNORE INTO secrets VALUES ('forms', ?)", (secrets.token_hex(32),))
        (value,) = db.execute("SELECT value FROM secrets WHERE name = 'forms'").fetchone()
    return bytes.fromhex(value)
