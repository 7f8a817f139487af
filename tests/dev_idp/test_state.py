"""State over a restart, and state files that can't be used."""

import sqlite3
import stat
import threading
from contextlib import closing
from pathlib import Path

import pytest

from bff.dev_idp import TEST_USERS, Settings, SettingsError, create_app
from tests.dev_idp.conftest import MakeBrowser
from tests.dev_idp.flow import ADMIN, ALICE, PASSWORD, Browser, Clock, decode, query_of, services
from tests.dev_idp.test_sign_in_page import _sign_up


def test_state_survives_a_restart(make: MakeBrowser) -> None:
    """Keys, codes, refresh tokens, sessions, forms and users are there again."""
    before = make()
    tokens, code = before.tokens(), before.sign_in()
    keys = before.get("/local_pool/.well-known/jwks.json").get_json()
    _sign_up(before)
    services(before.app).storage.close()
    after = make()
    after.client = before.client
    after.client.application = after.app
    assert after.get("/local_pool/.well-known/jwks.json").get_json() == keys
    assert after.redeem(code).status_code == 200
    assert after.refresh(tokens["refresh_token"]).status_code == 200
    assert after.user_info(tokens["access_token"]).status_code == 200
    assert "code" in query_of(after.authorize(prompt="none").location)
    assert "Confirm your address" in after.submit_login("bo@example.com", "Secret-123").text


def test_without_a_file_every_start_is_new() -> None:
    """In memory nothing outlives the application, and its keys are its own."""
    apps = [create_app(Settings()) for _ in range(2)]
    kids = [{key["kid"] for key in services(app).keys.jwks()["keys"]} for app in apps]
    assert not kids[0] & kids[1]
    refresh_token = Browser(apps[0]).tokens()["refresh_token"]
    assert Browser(apps[1]).refresh(refresh_token).get_json()["error"] == "invalid_grant"
    for app in apps:
        services(app).storage.close()


def test_state_file_is_private_and_holds_no_usable_secret(make: MakeBrowser, tmp_path: Path) -> None:
    """Mode 0600, and neither code, token, cookie nor password can be read from it."""
    browser = make()
    code = browser.sign_in()
    tokens = browser.redeem(code).get_json()
    cookie = browser.client.get_cookie("local_idp", domain="127.0.0.1")
    assert cookie is not None
    content = b""
    for path in tmp_path.glob("state*"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        content += path.read_bytes()
    assert ALICE.encode() in content
    for secret in (code, tokens["refresh_token"], cookie.value, PASSWORD):
        assert secret.encode() not in content


@pytest.mark.parametrize("kind", ["text", "another database", "newer version"])
def test_unusable_state_file_is_a_problem_and_stays_as_it_is(tmp_path: Path, kind: str) -> None:
    """Nobody's file is overwritten."""
    path = tmp_path / "state"
    if kind == "text":
        path.write_text("precious notes " * 100)
    else:
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("CREATE TABLE precious (x)")
            if kind == "newer version":
                connection.execute("PRAGMA user_version = 99")
    with pytest.raises(SettingsError) as caught:
        create_app(Settings(state_file=path))
    (problem,) = caught.value.problems
    assert problem.startswith("IDP_STATE_FILE: ")
    assert b"precious" in path.read_bytes()


def test_a_transaction_keeps_other_processes_waiting(make: MakeBrowser) -> None:
    """What one has read can't be changed by another before it writes."""
    one, other = (services(make().app).storage for _ in range(2))
    begun = threading.Event()

    def write() -> None:
        begun.set()
        with other.transaction() as db:
            db.execute("UPDATE families SET revoked = 1")

    writer = threading.Thread(target=write)
    with one.transaction() as db:
        db.execute("SELECT * FROM families").fetchall()
        writer.start()
        begun.wait()
        writer.join(0.2)
        assert writer.is_alive()
        db.execute("UPDATE families SET revoked = 0")
    writer.join()


def test_a_failed_transaction_leaves_nothing_behind(browser: Browser) -> None:
    """All or nothing, and the next one works."""
    storage = services(browser.app).storage
    browser.tokens()

    def fail_half_way() -> None:
        with storage.transaction() as db:
            db.execute("DELETE FROM families")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_half_way()
    with storage.transaction() as db:
        assert db.execute("SELECT count(*) FROM families").fetchone() == (1,)


def test_expired_state_is_forgotten_at_a_start(make: MakeBrowser, clock: Clock) -> None:
    """A file that is used for months doesn't grow for ever."""
    browser = make(refresh_token_seconds=1000)
    browser.tokens()
    browser.sign_in()
    clock.forward(4000)
    with services(make().app).storage.transaction() as db:
        for table in ("families", "refresh_tokens", "authorization_codes", "browser_sessions"):
            assert db.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,), table


def test_used_code_is_remembered_while_its_family_lives(make: MakeBrowser, clock: Clock) -> None:
    """Reuse is noticed long after the code's five minutes, over a restart as well."""
    browser = make()
    code = browser.sign_in()
    tokens = browser.redeem(code).get_json()
    clock.forward(3600)
    again = make()
    assert again.redeem(code).status_code == 400
    assert again.refresh(tokens["refresh_token"]).status_code == 400


def test_test_users_are_always_there(browser: Browser) -> None:
    """The contract's two, with subjects that never change."""
    users = {user.email: (user.password, user.groups) for user in TEST_USERS}
    assert users == {
        ALICE: (PASSWORD, ("readers",)),
        ADMIN: (PASSWORD, ("admins", "readers")),
    }
    for user in TEST_USERS:
        assert decode(browser.tokens(user.email)["access_token"])[1]["sub"] == user.sub


def test_changes_to_a_test_user_outlive_a_restart(make: MakeBrowser) -> None:
    """A start adds missing users only, and tokens carry the groups of the day."""
    browser = make()
    token = browser.tokens()["refresh_token"]
    with services(browser.app).storage.transaction() as db:
        db.execute("UPDATE accounts SET groups = '[]' WHERE email = ?", (ALICE,))
    after = make().refresh(token).get_json()
    assert "cognito:groups" not in decode(after["access_token"])[1]
