"""Users to try a user pool with: confirmed, with a password that lasts, in groups."""

from __future__ import annotations

import secrets
import string
from collections.abc import Sequence
from typing import Any

from bff.cognito.aws import Account, AwsRefused, in_sentences

SYMBOLS = "!#%*+-=?@_"
KINDS = (string.ascii_lowercase, string.ascii_uppercase, string.digits, SYMBOLS)
LENGTH = 20


def new_password() -> str:
    """A random password that has a character of every kind that a pool's policy can demand."""
    chosen = [secrets.choice(kind) for kind in KINDS]
    chosen += [secrets.choice("".join(KINDS)) for _ in range(LENGTH - len(KINDS))]
    secrets.SystemRandom().shuffle(chosen)
    return "".join(chosen)


def create_user(
    account: Account, user_pool_id: str, email: str, password: str, groups: Sequence[str], name: str | None
) -> None:
    """Make a user whose address counts as confirmed; no message is sent. Raises `AwsRefused`.

    Nothing half-made stays behind: the groups are looked up first, and a user who cannot be finished is
    deleted again, or named where not even that is allowed.
    """
    client = account.client("cognito-idp")
    who = {"UserPoolId": user_pool_id, "Username": email}
    attributes = {"email": email, "email_verified": "true", **({"name": name} if name else {})}
    with in_sentences():
        for group in groups:
            client.get_group(UserPoolId=user_pool_id, GroupName=group)
        client.admin_create_user(
            **who,
            TemporaryPassword=password,
            MessageAction="SUPPRESS",
            UserAttributes=[{"Name": key, "Value": value} for key, value in attributes.items()],
        )
    try:
        with in_sentences():
            client.admin_set_user_password(**who, Password=password, Permanent=True)
            for group in groups:
                client.admin_add_user_to_group(**who, GroupName=group)
    except BaseException as failed:  # Ctrl-C, too
        _delete(client, who, failed)
        raise


def _delete(client: Any, who: dict[str, str], failed: BaseException) -> None:
    try:
        with in_sentences():
            client.admin_delete_user(**who)
    except AwsRefused as refused:
        why = str(failed) or "interrupted"
        raise AwsRefused(f"{why}; and user {who['Username']} stays half-made: {refused}") from None
