"""Refresh tokens: rotation, grace, reuse detection, revocation."""

from itertools import pairwise

import pytest

from tests.dev_idp.conftest import MakeBrowser
from tests.dev_idp.flow import ADMIN, Browser, Clock, decode
from tests.dev_idp.test_code_flow import in_threads


def test_refresh_gives_new_tokens_of_the_same_sign_in(browser: Browser, clock: Clock) -> None:
    """Same subject, sign-in time and family, no nonce, a new refresh token."""
    before = browser.tokens()
    clock.forward(100)
    after = browser.refresh(before["refresh_token"]).get_json()
    assert set(after) == set(before)
    assert after["refresh_token"] != before["refresh_token"]
    for name in ("access_token", "id_token"):
        old, new = decode(before[name])[1], decode(after[name])[1]
        assert "nonce" not in new
        assert new["iat"] == old["iat"] + 100
        assert new["exp"] == old["exp"] + 100
        assert new["jti"] != old["jti"]
        for same in ("sub", "auth_time", "origin_jti", "event_id", "iss"):
            assert new[same] == old[same]


def test_without_rotation_the_answer_has_no_refresh_token(make: MakeBrowser) -> None:
    """As at Cognito, and the old one goes on working."""
    browser = make(refresh_rotation=False)
    refresh_token = browser.tokens()["refresh_token"]
    for _ in range(2):
        answer = browser.refresh(refresh_token).get_json()
        assert "refresh_token" not in answer
        assert {"access_token", "id_token"} <= set(answer)


def test_rotated_token_lives_for_the_remaining_time_only(make: MakeBrowser, clock: Clock) -> None:
    """Refreshing doesn't prolong the family."""
    browser = make(refresh_token_seconds=1000)
    token = browser.tokens()["refresh_token"]
    clock.forward(999)
    token = browser.refresh(token).get_json()["refresh_token"]
    clock.forward(1)
    assert browser.refresh(token).get_json()["error"] == "invalid_grant"


def test_reuse_without_grace_revokes_the_family(browser: Browser) -> None:
    """RFC 9700 section 4.14.2: the thief's token and the victim's both end."""
    first = browser.tokens()
    second = browser.refresh(first["refresh_token"]).get_json()
    assert browser.refresh(first["refresh_token"]).get_json()["error"] == "invalid_grant"
    assert browser.refresh(second["refresh_token"]).get_json()["error"] == "invalid_grant"
    assert browser.user_info(second["access_token"]).status_code == 401


def test_reuse_is_noticed_with_the_clock_set_back(browser: Browser, clock: Clock) -> None:
    """Strict rotation doesn't depend on the time of day."""
    first = browser.tokens()
    browser.refresh(first["refresh_token"])
    clock.forward(-60)
    assert browser.refresh(first["refresh_token"]).get_json()["error"] == "invalid_grant"


def test_reuse_within_grace_gives_tokens_again(make: MakeBrowser, clock: Clock) -> None:
    """Both answers' refresh tokens work; the grace counts from the first use."""
    browser = make(refresh_grace_seconds=30)
    first = browser.tokens()["refresh_token"]
    answers = [browser.refresh(first).get_json()]
    clock.forward(29)
    answers.append(browser.refresh(first).get_json())
    rotated = {answer["refresh_token"] for answer in answers}
    assert len(rotated) == 2
    for token in rotated:
        assert browser.refresh(token).status_code == 200
    clock.forward(1)
    assert browser.refresh(first).get_json()["error"] == "invalid_grant"
    newest = browser.refresh(answers[0]["refresh_token"])
    assert newest.get_json()["error"] == "invalid_grant"


def test_families_are_independent(browser: Browser) -> None:
    """The end of one sign-in leaves another of the same user alone."""
    one, other = browser.tokens(), browser.tokens()
    browser.refresh(one["refresh_token"])
    browser.refresh(one["refresh_token"])
    assert browser.refresh(other["refresh_token"]).status_code == 200


def test_strict_rotation_lets_exactly_one_thread_win(browser: Browser) -> None:
    """One token redeemed by many threads at once: one answer with tokens."""
    refresh_token = browser.tokens()["refresh_token"]
    answers = in_threads(8, lambda: browser.refresh(refresh_token).status_code)
    assert sorted(answers) == [200] + [400] * 7


def test_two_processes_on_one_state_file_share_the_truth(make: MakeBrowser) -> None:
    """A token that one provider rotated is used up at the other."""
    one, other = make(), make()
    refresh_token = one.tokens()["refresh_token"]
    assert other.refresh(refresh_token).status_code == 200
    assert one.refresh(refresh_token).get_json()["error"] == "invalid_grant"


def test_two_processes_at_once_let_one_request_win(make: MakeBrowser) -> None:
    """The state file decides between processes as the lock does between threads."""
    browsers = [make(), make()]
    for _ in range(5):
        refresh_token = browsers[0].tokens()["refresh_token"]
        turns = iter(browsers * 4)
        answers = in_threads(8, lambda: next(turns).refresh(refresh_token).status_code)  # noqa: B023
        assert sorted(answers) == [200] + [400] * 7


def test_rotation_goes_on_and_on(browser: Browser, clock: Clock) -> None:
    """A chain of refreshes never repeats a token."""
    chain = [browser.tokens()["refresh_token"]]
    for _ in range(5):
        clock.forward(200)
        chain.append(browser.refresh(chain[-1]).get_json()["refresh_token"])
    assert all(old != new for old, new in pairwise(chain))
    assert len(set(chain)) == 6


def test_scope_may_be_narrowed_but_not_widened(browser: Browser) -> None:
    """RFC 6749 section 6; narrowing lasts for one answer."""
    token = browser.tokens(scope="openid email")["refresh_token"]
    wide = browser.refresh(token, scope="openid profile")
    assert wide.get_json()["error"] == "invalid_scope"
    narrow = browser.refresh(token, scope="openid").get_json()
    assert decode(narrow["access_token"])[1]["scope"] == "openid"
    again = browser.refresh(narrow["refresh_token"]).get_json()
    assert decode(again["access_token"])[1]["scope"] == "openid email"


def test_another_client_can_neither_use_nor_end_a_family(make: MakeBrowser) -> None:
    """A used token in another client's hands is refused, and revokes nothing."""
    browser = make()
    first = browser.tokens()["refresh_token"]
    second = browser.refresh(first).get_json()["refresh_token"]
    other = make(client_id="another", client_secret="another-secret")
    assert other.refresh(first).get_json()["error"] == "invalid_grant"
    assert other.revoke(second).get_json()["error"] == "invalid_grant"
    assert browser.refresh(second).status_code == 200


@pytest.mark.parametrize("token", ["unknown", "é\x00", "x" * 5000])
def test_unknown_refresh_token(browser: Browser, token: str) -> None:
    """Junk is invalid_grant at the token endpoint and success at the revocation endpoint."""
    assert browser.refresh(token).get_json()["error"] == "invalid_grant"
    assert browser.revoke(token).status_code == 200


@pytest.mark.parametrize("hint", [None, "refresh_token", "access_token", "nonsense"])
def test_revocation_ends_the_family(browser: Browser, hint: str | None) -> None:
    """No refresh and no UserInfo afterwards, other families stay, repeating it is fine."""
    tokens, other = browser.tokens(), browser.tokens(ADMIN)
    more = {"token_type_hint": hint} if hint else {}
    for _ in range(2):
        assert browser.revoke(tokens["refresh_token"], **more).status_code == 200
    assert browser.refresh(tokens["refresh_token"]).get_json()["error"] == "invalid_grant"
    assert browser.user_info(tokens["access_token"]).status_code == 401
    assert browser.user_info(other["access_token"]).status_code == 200


def test_a_rotated_out_token_revokes_its_family_too(browser: Browser) -> None:
    """A client that signs out with an older token still ends everything."""
    first = browser.tokens()["refresh_token"]
    second = browser.refresh(first).get_json()["refresh_token"]
    assert browser.revoke(first).status_code == 200
    assert browser.refresh(second).status_code == 400


def test_access_tokens_cannot_be_revoked(browser: Browser) -> None:
    """As at Cognito: unsupported_token_type, and nothing ends."""
    tokens = browser.tokens()
    response = browser.revoke(tokens["access_token"])
    assert response.status_code == 400
    assert response.get_json()["error"] == "unsupported_token_type"
    assert browser.user_info(tokens["access_token"]).status_code == 200


def test_revocation_needs_the_client(browser: Browser) -> None:
    """Nobody else can end a family."""
    token = browser.tokens()["refresh_token"]
    response = browser.post("/oauth2/revoke", {"token": token})
    assert response.status_code == 401
    assert browser.refresh(token).status_code == 200
