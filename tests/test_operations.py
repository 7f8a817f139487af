"""`bff sessions`: what operators see, and how they end sessions."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from click.testing import CliRunner, Result

from bff.cli import main
from bff.errors import StoreUnavailable
from bff.sealing import new_key
from bff.sessions.ending import Reason
from bff.sessions.record import SessionRecord
from bff.sessions.store import SessionStore
from tests.support.browser import Browser, error_page
from tests.support.provider import SUBJECT, Reply
from tests.support.stack import Stack, Store, environment, running, store

KEY = new_key()


@pytest.fixture(scope="module")
def module_store() -> Iterator[Store]:
    with store() as found:
        yield found


@pytest.fixture
def stack(module_store: Store) -> Iterator[Stack]:
    with running(module_store, secret_keys=KEY) as stack:
        yield stack


def bff(stack: Stack, *arguments: str, **changes: str) -> Result:
    """Run the command as on another machine with the same settings."""
    environ = environment(stack.port, stack.provider, stack.store.url, stack.upstream.url)
    environ |= {"BFF_SECRET_KEYS": KEY, "BFF_REDIS_PREFIX": stack.settings.redis_prefix} | changes
    return CliRunner().invoke(main, ["sessions", *arguments], env=environ)


def sign_in(stack: Stack, sub: str = SUBJECT, email: str = "alice@example.com") -> Browser:
    stack.provider.claims |= {"sub": sub, "email": email}
    return stack.sign_in(stack.browser())


def test_list(stack: Stack) -> None:
    """A line for each session, oldest first, with who, when and where; no token and no cookie's value."""
    alice, bob = sign_in(stack), sign_in(stack, "bob", "bob@example.com")
    done = bff(stack, "list")
    assert done.exit_code == 0
    head, *lines = done.stdout.splitlines()
    assert head.split() == ["ID", "USER", "CREATED", "LAST", "SEEN", "ENDS", "BROWSER", "ADDRESS"]
    assert ["alice" in lines[0], "bob" in lines[1], len(lines)] == [True, True, 2]
    for secret in (*stack.provider.secrets, str(alice.session), str(bob.session), "access-", "refresh-"):
        assert secret not in done.output


def test_list_one_user_as_json(stack: Stack) -> None:
    """For scripts, and by the provider's name of the user."""
    sign_in(stack)
    sign_in(stack, "bob", "bob@example.com")
    (row,) = json.loads(bff(stack, "list", "--user", "bob", "--json").stdout)
    assert (row["user"], row["address"]) == ("bob@example.com", "127.0.0.1")
    assert json.loads(bff(stack, "list", "--user", "nobody", "--json").stdout) == []
    assert bff(stack, "list", "--user", "nobody").stdout == "no sessions\n"


def test_sessions_that_do_not_open(stack: Stack) -> None:
    """Sealed under a key that is missing: operators see them, count them and end them all the same."""
    alice, bob = sign_in(stack), sign_in(stack, "bob")
    for command in (("list", "--json"), ("list", "--user", "bob", "--json")):
        rows = json.loads(bff(stack, *command, BFF_SECRET_KEYS=new_key()).stdout)
        assert {row["user"] for row in rows} == {"(does not open)"}
        assert len(rows) == (2 if command[1] == "--json" else 1)
        assert all(row["created"].startswith("20") for row in rows)
    assert "(does not open)" in bff(stack, "list", BFF_SECRET_KEYS=new_key()).stdout
    done = bff(stack, "revoke", rows[0]["id"], BFF_SECRET_KEYS=new_key())
    assert (done.exit_code, done.stdout) == (0, "ended 1 session\n")
    assert (bob.api("/bff/user").status, alice.api("/bff/user").status) == (401, 200)
    assert bff(stack, "revoke", "--all", BFF_SECRET_KEYS=new_key()).stdout == "ended 1 session\n"
    assert stack.provider.count("revoke") == 0, "their tokens do not open, either"


def test_what_ended_is_revoked_whatever_happens_next(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    """Redis fails after the first of three: the command fails, and the tokens of that one are revoked."""
    for _ in range(3):
        sign_in(stack)
    end, ended = SessionStore.end, list[str]()

    def once(self: SessionStore, name: str, reason: Reason) -> SessionRecord | None:
        if ended:
            raise StoreUnavailable(reason="Redis: ConnectionError")
        ended.append(name)
        return end(self, name, reason)

    monkeypatch.setattr(SessionStore, "end", once)
    done = bff(stack, "revoke", "--user", SUBJECT)
    assert (done.exit_code, "the sessions cannot be reached" in done.stderr) == (1, True)
    assert stack.provider.count("revoke") == 2, "and those of the one of which it is not known"
    assert len(stack.sessions()) == 2


def test_what_users_chose_does_not_steer_the_terminal(stack: Stack) -> None:
    """Control characters in a name are shown as question marks."""
    sign_in(stack, email="\x1b[2Jalice")
    done = bff(stack, "list")
    assert "?[2Jalice" in done.stdout
    assert "\x1b" not in done.stdout


def test_revoke_one(stack: Stack) -> None:
    """By its id: dead at once, and revoked at the provider."""
    alice, bob = sign_in(stack), sign_in(stack, "bob")
    (row,) = json.loads(bff(stack, "list", "--user", "bob", "--json").stdout)
    done = bff(stack, "revoke", row["id"])
    assert (done.exit_code, done.stdout) == (0, "ended 1 session\n")
    assert bob.api("/weather").code == "session_expired"
    assert alice.api("/weather").status == 200
    assert stack.provider.count("revoke") == 1
    again = bff(stack, "revoke", row["id"])
    assert (again.exit_code, again.stderr) == (1, "bff: there is no session of this id\n")
    assert bff(stack, "revoke", "../x").exit_code == 1


@pytest.mark.parametrize("whom", [("--user", SUBJECT), ("--all",)])
def test_revoke_many(stack: Stack, whom: tuple[str, ...]) -> None:
    """All of a user's, or of everybody's, and what is under way."""
    browsers = [sign_in(stack), sign_in(stack)]
    bob = sign_in(stack, "bob")
    under_way = stack.browser()
    stack.provider.claims["sub"] = SUBJECT
    asked = under_way.get("/bff/login")
    done = bff(stack, "revoke", *whom)
    ended = 2 if whom[0] == "--user" else 3
    assert (done.exit_code, done.stdout) == (0, f"ended {ended} sessions\n")
    assert stack.provider.count("revoke") == ended
    assert [each.api("/bff/user").code for each in browsers] == ["session_expired"] * 2
    assert bob.api("/bff/user").status == (200 if ended == 2 else 401)
    answer = under_way.callback(stack.provider.authorize(asked.get("location")))
    assert error_page(answer, 400) == "sign_in_cut_off"


def test_a_provider_that_refuses_is_told_and_does_not_matter(stack: Stack) -> None:
    """The sessions have ended, whatever the provider says."""
    sign_in(stack)
    stack.provider.replies["revoke"] = Reply(503)
    done = bff(stack, "revoke", "--all")
    assert (done.exit_code, done.stdout) == (0, "ended 1 session\n")
    assert stack.sessions() == []


@pytest.mark.parametrize("arguments", [(), ("--all", "--user", "x"), ("x", "--all")])
def test_one_of_three(stack: Stack, arguments: tuple[str, ...]) -> None:
    """Nobody ends everything by mistake."""
    sign_in(stack)
    done = bff(stack, "revoke", *arguments)
    assert done.exit_code == 2
    assert "name one of: --user SUB, --all, or the ID of a session" in done.stderr
    assert len(stack.sessions()) == 1


def test_trouble(stack: Stack) -> None:
    """A wrong configuration exits with 2, an unreachable Redis with 1; both say so."""
    wrong = bff(stack, "list", BFF_REDIS_URL="x")
    assert (wrong.exit_code, "BFF_REDIS_URL" in wrong.stderr) == (2, True)
    away = bff(stack, "list", BFF_REDIS_URL="redis://127.0.0.1:1/0")
    assert (away.exit_code, "the sessions cannot be reached" in away.stderr) == (1, True)
    assert "Traceback" not in away.output
