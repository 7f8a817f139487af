"""The audit log: every event with what an operator needs of it, and never a secret."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bff.sessions.record import digest, user_hash
from tests.support.browser import CSRF, Browser
from tests.support.log import Lines
from tests.support.provider import ABSENT, SUBJECT, Reply
from tests.support.stack import Stack, Store, running, store
from tests.support.wire import Answer, until

ROOT = Path(__file__).parent.parent

Events = Callable[[], list[dict[str, Any]]]


@pytest.fixture(scope="module")
def module_store() -> Iterator[Store]:
    with store() as found:
        yield found


@pytest.fixture
def stack(module_store: Store) -> Iterator[Stack]:
    with running(module_store, sessions_per_user="2", trusted_proxies="127.0.0.1/32") as found:
        yield found


@pytest.fixture
def events(lines: Lines) -> Events:
    """The lines of the audit log up to now."""
    return lambda: lines("bff.audit")


def sign_out(_stack: Stack, browser: Browser) -> None:
    browser.request("POST", "/bff/logout", CSRF)


def revoke_others(stack: Stack, _browser: Browser) -> None:
    assert stack.sign_in(stack.browser()).request("DELETE", "/bff/sessions", CSRF).status == 204


def reach_the_cap(stack: Stack, _browser: Browser) -> None:
    for _ in range(2):
        stack.sign_in(stack.browser())


def be_logged_out(stack: Stack, _browser: Browser) -> None:
    token = stack.provider.logout_token()
    assert stack.browser().post("/bff/backchannel", logout_token=token).status == 200


def sign_in_again(stack: Stack, browser: Browser) -> None:
    stack.sign_in(browser)


def lose_the_grant(stack: Stack, browser: Browser) -> None:
    stack.provider.replies["token"] = Reply(400, {"error": "invalid_grant"})
    stack.clock.ahead += 400
    assert browser.api("/weather").code == "session_expired"


@pytest.mark.parametrize(
    ("act", "event", "more"),
    [
        (lambda _stack, _browser: None, "signed_in", {}),
        (sign_out, "signed_out", {}),
        (revoke_others, "session_revoked", {"by": "revoked"}),
        (reach_the_cap, "session_revoked", {"by": "cap"}),
        (be_logged_out, "session_revoked", {"by": "provider"}),
        (sign_in_again, "session_revoked", {"by": "replaced"}),
        (lose_the_grant, "session_ended", {"reason": "invalid_grant"}),
    ],
)
def test_events_of_sessions(
    stack: Stack, events: Events, act: Callable[[Stack, Browser], None], event: str, more: dict[str, str]
) -> None:
    """Each names the user by a hash, the session by its public name, and the request."""
    with stack.store.client() as client:
        client.flushall()
    browser = stack.sign_in(stack.browser())
    session = digest(browser.session or "")[:16]
    act(stack, browser)
    assert until(lambda: any(found["event"] == event and found["session"] == session for found in events()))
    found = next(found for found in events() if found["event"] == event and found["session"] == session)
    assert found["user"] == user_hash(stack.provider.issuer, SUBJECT)[:16]
    assert re.fullmatch(r"[0-9a-f]{32}", found["request_id"])
    assert found["address"] == "127.0.0.1"
    assert more.items() <= found.items()


def test_a_sign_in_that_fails(stack: Stack, events: Events) -> None:
    """Its code, the reason in our words, and who asked."""
    browser = stack.browser()
    asked = browser.get("/bff/login")
    response = stack.provider.authorize(asked.get("location"), code=ABSENT, error="access_denied")
    browser.callback(response)
    (found,) = events()
    assert (found["event"], found["code"], found["address"]) == (
        "sign_in_failed",
        "access_denied",
        "127.0.0.1",
    )
    assert found["request_id"]


def doubled(stack: Stack) -> Answer:
    sid = stack.plant()
    return stack.browser().get("/weather", CSRF | {"Cookie": f"bff={sid}; bff={sid}"})


def planted(stack: Stack) -> Answer:
    return stack.browser().get("/bff/user", CSRF | {"Cookie": "bff=planted"})


def doubled_attempt(stack: Stack) -> Answer:
    browser = stack.browser()
    response = stack.provider.authorize(browser.get("/bff/login").get("location"))
    ((name, value),) = browser.attempts.items()
    target = f"/bff/callback?state={response['state']}&code={response['code']}"
    return stack.browser().get(target, {"Cookie": f"{name}={value}; {name}=x"})


@pytest.mark.parametrize(
    ("ask", "reason"),
    [(doubled, "it came twice"), (planted, "its value is none of ours"), (doubled_attempt, "it came twice")],
)
def test_cookies_that_may_have_been_planted(
    stack: Stack, events: Events, ask: Callable[[Stack], Answer], reason: str
) -> None:
    """A cookie of ours that came twice, or that we cannot have set, is told, without its value."""
    assert ask(stack).status in (400, 401)
    (found,) = [event for event in events() if event["event"] == "cookie_refused"]
    assert (found["reason"], found["address"], found["method"]) == (reason, "127.0.0.1", "GET")


def test_no_cookie_is_no_event(stack: Stack, events: Events) -> None:
    """Somebody who is signed out, or whose session has ended, is nobody's attack."""
    stack.browser().api("/weather")
    stack.browser().api("/bff/user")
    stack.browser().get("/weather", CSRF | {"Cookie": f"bff={'x' * 43}"})
    stack.browser().get("/bff/callback?state=x&code=y")
    assert [event["event"] for event in events()] == ["sign_in_failed"]


def test_a_forged_request(stack: Stack, events: Events) -> None:
    """The page that sent it and the address that its proxy tells."""
    stack.browser().get(
        "/weather", {"Origin": "https://evil.example", "X-CSRF": "1", "X-Forwarded-For": "192.0.2.9"}
    )
    (found,) = events()
    assert (found["event"], found["path"]) == ("csrf_refused", "/weather")
    assert (found["origin"], found["address"]) == ("https://evil.example", "192.0.2.9")
    stack.browser().get("/weather", {"Origin": "https://" + "e" * 5000})
    assert len(events()[-1]["origin"]) == 100


def test_a_rate_limited_address(module_store: Store, events: Events) -> None:
    """Who is stopped, and where."""
    with running(module_store, rate_limit_per_minute="1") as stack:
        for _ in range(2):
            stack.browser().get("/bff/login")
        (found,) = events()
    assert (found["event"], found["path"], found["address"]) == ("rate_limited", "/bff/login", "127.0.0.1")


def test_no_line_holds_a_secret(stack: Stack, events: Events) -> None:
    """Nor the cookie, nor the user's name: only hashes."""
    browser = stack.sign_in(stack.browser())
    sid = browser.session or ""
    browser.api("/weather")
    browser.request("POST", "/bff/logout", CSRF)
    text = json.dumps(events())
    assert "signed_out" in text
    for secret in {sid, SUBJECT, "alice", *browser.cookies.values(), *stack.provider.secrets}:
        assert secret not in text


def test_the_documented_events_are_those_of_the_code() -> None:
    """docs/operations.md has a row for each event that the code can write, and for no other."""
    files = [ROOT / "bff" / name for name in ("audit.py", "backchannel.py", "operations.py")]
    code = "".join(file.read_text() for file in [*files, *(ROOT / "bff/auth").glob("*.py")])
    written = set(re.findall(r"(?:\blog\.\w+|self\._refused)\(\s*\"(\w+)\"", code))
    written -= {"slide_failed", "oldest_session_not_ended", "replaced_session_not_ended"}
    text = (ROOT / "docs/operations.md").read_text()
    table = text[text.index("## The audit log") :].split("\n## ", 1)[0]
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == written
