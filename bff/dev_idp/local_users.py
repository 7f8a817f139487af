"""The users that are always there, printed when the local stack starts."""

from dataclasses import dataclass


@dataclass(frozen=True)
class LocalUser:
    """A test user: what to type on the sign-in page and what the tokens will say.

    `sub` never changes, so that data keyed by it survives a cleared state file.
    """

    sub: str
    email: str
    password: str
    name: str
    given_name: str
    groups: tuple[str, ...]


TEST_USERS: tuple[LocalUser, ...] = (
    LocalUser(
        sub="2f6d1a80-5c1e-4b7a-9a53-6f0c3e8d1b01",
        email="alice@example.com",
        password="Passw0rd!",
        name="Alice Reader",
        given_name="Alice",
        groups=("readers",),
    ),
    LocalUser(
        sub="9b0e47c2-83d4-4f16-8d0e-1c5a7b2f4e02",
        email="admin@example.com",
        password="Passw0rd!",
        name="Ada Admin",
        given_name="Ada",
        groups=("admins", "readers"),
    ),
)
