"""One id for a request: in the log, upstream, and on our own errors."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.support.browser import CSRF
from tests.support.log import Lines
from tests.support.provider import Reply
from tests.support.stack import Stack, Store, running, store
from tests.support.upstream import ok

GIVEN = {"X-Request-Id": "caller-0001"}
OURS = re.compile(r"[0-9a-f]{32}")


@pytest.fixture(scope="module")
def module_store() -> Iterator[Store]:
    with store() as found:
        yield found


@pytest.fixture(scope="module")
def stack(module_store: Store) -> Iterator[Stack]:
    with running(module_store) as found:
        yield found


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("/weather", 401),
        ("/nothing", 404),
        ("/bff/user", 401),
        ("/bff/callback?state=x&code=y", 400),
        ("/bff/login?returnUrl=//evil.example", 400),
        ("/a/../b", 400),
    ],
)
def test_errors_tell_the_id(stack: Stack, target: str, status: int) -> None:
    """Whoever complains can say which line of the log is meant; in both planes, pages and documents alike."""
    answer = stack.browser().get(target, CSRF | GIVEN)
    assert (answer.status, answer.get("x-request-id")) == (status, "caller-0001")
    answer = stack.browser().get(target, CSRF | {"X-Request-Id": "<script>alert(1)</script>"})
    assert OURS.fullmatch(answer.get("x-request-id"))


def test_a_head_that_is_refused_has_an_id(stack: Stack) -> None:
    """Even where nothing of the request can be believed."""
    answer = stack.browser().request("GET", "http://evil.example/", GIVEN)
    assert answer.status == 400
    assert OURS.fullmatch(answer.get("x-request-id"))


def test_the_upstream_is_told_the_same(stack: Stack) -> None:
    """One id for all that is sent for a request, a repetition included, and for its error."""
    browser = stack.sign_in(stack.browser())
    stack.upstream.answers(ok(b"no", status=b"401 Unauthorized"))
    browser.api("/weather")
    first, second = stack.upstream.requests[-2:]
    assert first.get("x-request-id") == second.get("x-request-id")
    stack.upstream.answers(b"", close=True)
    answer = browser.api("/weather")
    assert answer.status == 502
    assert answer.get("x-request-id") == stack.upstream.requests[-1].get("x-request-id")


def test_an_upstreams_own_id_passes(stack: Stack) -> None:
    """Its answer is its own; ours is for our errors."""
    browser = stack.sign_in(stack.browser())
    stack.upstream.answers(ok(b"yes", b"x-request-id: upstream-0001"))
    assert browser.get("/weather", CSRF | GIVEN).get("x-request-id") == "upstream-0001"


def test_a_refresh_in_the_pool_knows_its_request(module_store: Store, lines: Lines) -> None:
    """What goes wrong in another thread bears the id of the request that set it off."""
    with running(module_store) as stack:
        browser = stack.sign_in(stack.browser())
        stack.provider.replies["token"] = Reply(503)
        stack.clock.ahead += 400
        assert browser.get("/weather", CSRF | GIVEN).status == 503
    assert [(line["event"], line["request_id"]) for line in lines("bff.refresh")] == [
        ("refresh_failed", "caller-0001")
    ]
