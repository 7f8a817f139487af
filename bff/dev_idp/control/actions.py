"""What the control page and API can do, whichever of them asks. Bad input raises `ControlError`."""

import logging
import re
import secrets
from typing import Any

from bff.dev_idp.accounts import Account, group_problem
from bff.dev_idp.clients import MOST as MOST_CLIENTS
from bff.dev_idp.clients import Client, code_client
from bff.dev_idp.context import services
from bff.dev_idp.control import fault
from bff.dev_idp.control.fault import Fault
from bff.dev_idp.control.faults import MOST as MOST_FAULTS
from bff.dev_idp.control.problems import ControlError, bad
from bff.dev_idp.environment import split_url

log = logging.getLogger(__name__)

_MOST_URIS = 10
# The identifier and the secret of the Basic scheme, without the colon that parts them: RFC 7617 section 2.
_CLIENT_ID = re.compile(r"[!-9;-~]{1,128}")
_SECRET = re.compile(r"[!-~]{8,256}")


def find_user(email: Any) -> Account:
    """The user with this e-mail address."""
    account = services().accounts.by_email(email) if isinstance(email, str) and len(email) <= 320 else None
    if account is None:
        raise ControlError(404, "Not Found", "There is no user with this e-mail address.")
    return account


def add_fault(given: dict[str, Any]) -> tuple[int, Fault]:
    """Put the described fault in force; gives its number, too."""
    endpoint = fault.read_endpoint(given.get("endpoint"))
    kind = fault.read_kind(endpoint, given.get("fault"))
    times = fault.read_times(given.get("times", 1))
    sub, email = _fault_user(endpoint, given["user"]) if "user" in given else ("", "")
    made = Fault(endpoint, kind, times, sub, email)
    number = services().faults.add(made)
    if number is None:
        raise ControlError(409, "Conflict", f"There are {MOST_FAULTS} faults already. Delete some first.")
    log.info("fault %d added at %s", number, endpoint)
    return number, made


def delete_faults(number: int | None = None) -> int:
    """Delete one fault, or all of them; says how many."""
    gone = services().faults.delete(number)
    if number is not None and not gone:
        raise ControlError(404, "Not Found", "There is no fault with this number (any more).")
    log.info("faults deleted: %d", gone)
    return gone


def rotate_keys(*, forget_old: Any) -> dict[str, Any]:
    """Make new signing keys; gives the `kid`s that sign and all that are published."""
    if not isinstance(forget_old, bool):
        raise bad("'forget_old' must be true or false.")
    keys = services().keys
    keys.rotate(services().clock(), forget_old=forget_old)
    log.info("signing keys rotated, old ones %s", "forgotten" if forget_old else "published")
    return {"signing": keys.signing(), "published": [key["kid"] for key in keys.jwks()["keys"]]}


def set_groups(account: Account, groups: Any) -> tuple[str, ...]:
    """Put the user into these groups and no others; gives them, each once."""
    if not isinstance(groups, list) or not all(isinstance(name, str) for name in groups):
        raise bad("'groups' must be a list of strings.")
    found = tuple(dict.fromkeys(groups))
    if problem := group_problem(found):
        raise bad(problem)
    services().accounts.set_groups(account.sub, found)
    log.info("groups of %s changed", account.sub)
    return found


def revoke_user(account: Account) -> int:
    """End all refresh tokens of the user, and unused codes; says how many sign-ins that were."""
    ended = services().families.revoke_all(account.sub)
    log.info("revoked: %s", account.sub)
    return ended


def add_client(given: dict[str, Any]) -> Client:
    """Register one more client for the code grant, until the process ends."""
    client_id = given.get("client_id", f"client-{secrets.token_hex(4)}")
    secret = given.get("client_secret", secrets.token_urlsafe(32))
    if not isinstance(client_id, str) or not _CLIENT_ID.fullmatch(client_id):
        raise bad("'client_id' must have 1 to 128 printable ASCII characters, no blank and no colon.")
    if not isinstance(secret, str) or not _SECRET.fullmatch(secret):
        raise bad("'client_secret' must have 8 to 256 printable ASCII characters and no blank.")
    redirect_uris = _uris(given.get("redirect_uris"), "redirect_uris")
    if not redirect_uris:
        raise bad("'redirect_uris' must name one URL at least.")
    logout_uris = _uris(given.get("logout_uris", []), "logout_uris")
    held = services()
    client = code_client(held.settings, client_id, secret, redirect_uris, logout_uris)
    if not held.clients.add(client):
        text = f"This client_id is taken, or there are {MOST_CLIENTS} clients already."
        raise ControlError(409, "Conflict", text)
    log.info("client added: %s", client_id)
    return client


def _fault_user(endpoint: str, email: Any) -> tuple[str, str]:
    if endpoint not in fault.USER_ENDPOINTS:
        raise bad(f"'user' is for these endpoints: {', '.join(fault.USER_ENDPOINTS)}.")
    try:
        account = find_user(email)
    except ControlError as error:
        raise bad(f"'user': {error.detail}") from None
    return account.sub, account.email


def _uris(given: Any, name: str) -> tuple[str, ...]:
    if (
        isinstance(given, list)
        and len(given) <= _MOST_URIS
        and all(isinstance(uri, str) and len(uri) <= 2048 and split_url(uri) for uri in given)
    ):
        return tuple(given)
    raise bad(f"'{name}' must be a list of {_MOST_URIS} http or https URLs at most, without fragments.")
