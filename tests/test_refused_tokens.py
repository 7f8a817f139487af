"""An upstream's 401: one forced refresh and one retry where that can help, and no storm where it cannot."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from bff.rejections import IN_A_ROW
from tests.support.browser import CSRF, Browser
from tests.support.provider import Reply
from tests.support.stack import Stack, Store, running, store
from tests.support.upstream import Request, Wire, ok

TOML = """
[[routes]]
path = "/api"
upstream = "UPSTREAM"
methods = ["GET", "POST"]

[[routes]]
path = "/service"
upstream = "UPSTREAM"
token = "client"
scope = "jobs"
"""


@pytest.fixture(scope="module")
def module_store() -> Iterator[Store]:
    with store() as found:
        yield found


@pytest.fixture
def stack(module_store: Store) -> Iterator[Stack]:
    with running(module_store, toml=TOML) as found:
        yield found


REFUSAL = ok(b"no", b'www-authenticate: Bearer error="invalid_token"', status=b"401 Unauthorized")


def refusing(stack: Stack, *refused: str) -> None:
    """The upstream answers 401 to these tokens; with none of them named, to every one."""

    def script(wire: Wire, request: Request) -> object:
        wire.body(request)
        bad = not refused or request.get("authorization").removeprefix("Bearer ") in refused
        wire.send(REFUSAL if bad else ok(b"yes"))
        return True

    stack.upstream.script = script


def signed_in(stack: Stack) -> tuple[Browser, str]:
    """A browser whose token is old enough to be renewed, and the token."""
    browser = stack.sign_in(stack.browser())
    browser.api("/api")
    token = stack.upstream.requests[-1].get("authorization").removeprefix("Bearer ")
    stack.upstream.requests.clear()
    stack.provider.seen.clear()
    return browser, token


def test_a_new_token_helps(stack: Stack) -> None:
    """A token that is good by its dates and refused all the same is renewed, and the request sent again."""
    browser, token = signed_in(stack)
    refusing(stack, token)
    answer = browser.api("/api/x?y=1")
    assert (answer.status, answer.text) == (200, "yes")
    assert [request.target for request in stack.upstream.requests] == ["/api/x?y=1"] * 2
    assert stack.provider.count("token") == 1
    assert browser.api("/api").status == 200
    assert len(stack.upstream.requests) == 3, "the new token was kept"


def test_many_at_once_cause_one_refresh(stack: Stack) -> None:
    """Requests that are refused together wait for the same refresh."""
    browser, token = signed_in(stack)
    refusing(stack, token)
    threads = [threading.Thread(target=browser.api, args=("/api",)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert [answer.status for answer in browser.transcript[-8:]] == [200] * 8
    assert stack.provider.count("token") == 1


def test_a_refusal_that_survives(stack: Stack) -> None:
    """The upstream's own 401 passes as it is, and the provider is asked once, not at every request."""
    browser, _ = signed_in(stack)
    refusing(stack)
    for _ in range(5):
        answer = browser.api("/api")
        assert (answer.status, answer.text) == (401, "no")
        assert answer.get("www-authenticate") == 'Bearer error="invalid_token"'
        assert answer.all("set-cookie") == []
    assert stack.provider.count("token") == 1
    assert len(stack.upstream.requests) == 6
    assert browser.api("/bff/user").status == 200, "still signed in"


def test_an_upstream_that_refuses_everybody(stack: Stack) -> None:
    """It does not send every session to the provider."""
    browsers = [signed_in(stack)[0] for _ in range(IN_A_ROW + 3)]
    stack.provider.seen.clear()
    refusing(stack)
    assert {browser.api("/api").status for browser in browsers} == {401}
    assert stack.provider.count("token") == IN_A_ROW


def test_a_request_with_a_body_is_not_repeated(stack: Stack) -> None:
    """Its body has been passed on and is gone: the 401 passes."""
    browser, token = signed_in(stack)
    refusing(stack, token)
    answer = browser.request("POST", "/api", CSRF, body=b"one")
    assert answer.status == 401
    assert (len(stack.upstream.requests), stack.provider.count("token")) == (1, 0)


def test_a_post_without_a_body_is_repeated(stack: Stack) -> None:
    """What was answered 401 was not done."""
    browser, token = signed_in(stack)
    refusing(stack, token)
    assert browser.request("POST", "/api", CSRF).status == 200


@pytest.mark.parametrize(
    ("reply", "status"),
    [
        (Reply(400, {"error": "invalid_grant"}), 401),
        (Reply(500), 401),
        (Reply(drop=True), 401),
    ],
)
def test_a_refresh_that_fails(stack: Stack, reply: Reply, status: int) -> None:
    """Where the provider has ended the session, our own code says so; else the upstream's 401 passes."""
    browser, token = signed_in(stack)
    refusing(stack, token)
    stack.provider.replies["token"] = reply
    answer = browser.api("/api")
    assert answer.status == status
    ended = reply.status == 400
    assert (answer.json()["code"] == "session_expired") if ended else (answer.text == "no")
    assert browser.api("/bff/user").status == (401 if ended else 200)


def test_without_a_refresh_token(stack: Stack) -> None:
    """There is nothing to renew: the 401 passes."""
    browser = stack.browser()
    browser.cookies["bff"] = stack.plant()
    refusing(stack)
    assert browser.api("/api").text == "no"
    assert (len(stack.upstream.requests), stack.provider.count("token")) == (1, 0)


def test_the_clients_own_token(stack: Stack) -> None:
    """A refused client token is fetched anew, unless it is too young to be the cause."""
    browser, _ = signed_in(stack)
    assert browser.api("/service").status == 200
    token = stack.upstream.requests[-1].get("authorization").removeprefix("Bearer ")
    refusing(stack, token)
    assert browser.api("/service").status == 401
    assert stack.provider.count("token") == 1
    stack.clock.ahead += 6
    assert browser.api("/service").status == 200
    assert stack.provider.count("token") == 2
