"""Redis down, hanging, restarted, read-only and full, seen through a running server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.processes.fleet import Fleet, Node, answers, asked, fleet
from tests.support.browser import error_page
from tests.support.stopwatch import Stopwatch
from tests.support.wire import until

pytestmark = [pytest.mark.e2e, pytest.mark.redis_server]


@pytest.fixture(scope="module")
def own() -> Iterator[Fleet]:
    """One node with a Redis that nobody else has."""
    with fleet(1, patient=False, provider_timeout_seconds="2") as found:
        yield found


@contextmanager
def within(seconds: float) -> Iterator[None]:
    began = Stopwatch()
    yield
    assert began.own < seconds


def assert_live(node: Node) -> None:
    with within(0.5):
        assert node.alive()


@pytest.mark.parametrize(("kind", "seconds"), [("down", 1.0), ("hanging", 3.0)])
def test_redis_is_away(own: Fleet, kind: str, seconds: float) -> None:
    """With Redis down or hanging, every request that needs a session gets 503 in time and keeps its cookie,
    also fifty at once; the process counts as alive, and goes on by itself with the same session."""
    node, visitor = own.nodes[0], own.plant("fresh")
    assert node.get("/weather", visitor).text == visitor.first
    with own.redis.trouble(kind):
        for target in ("/weather", "/bff/user"):
            with within(seconds):
                answer = node.get(target, visitor)
            assert (answer.status, answer.code) == (503, "store_unavailable")
            assert int(answer.get("retry-after")) > 0
            assert not answer.all("set-cookie")
            assert_live(node)
        with within(seconds), asked((node, visitor) for _ in range(50)) as lines:
            assert_live(node)
            found = answers(lines)
        assert {(each.status, each.code) for each in found} == {(503, "store_unavailable")}
    assert until(lambda: node.get("/weather", visitor).status == 200, within=10)
    assert node.get("/bff/user", visitor).status == 200
    assert until(node.ready)


def test_many_who_ask_who_they_are(own: Fleet) -> None:
    """With Redis hanging, fifty requests at once for /bff/user get 503 in time as well, and the process
    counts as alive meanwhile."""
    node, visitor = own.nodes[0], own.plant("fresh")
    everybody = [(node, visitor)] * 50
    with own.redis.trouble("hanging"), within(3), asked(everybody, "/bff/user") as lines:
        assert_live(node)
        found = answers(lines)
    assert {(each.status, each.code) for each in found} == {(503, "store_unavailable")}


def test_redis_comes_back_with_its_data(own: Fleet) -> None:
    """After a restart of Redis with its data, sessions go on, are refreshed and can be ended: scripts and
    connections are made anew by themselves."""
    node, fresh, dead = own.nodes[0], own.plant("fresh"), own.plant("dead")
    own.redis.stop()
    assert node.get("/weather", fresh).status == 503
    own.redis.start()
    assert until(lambda: node.get("/weather", fresh).text == fresh.first)
    assert node.get("/weather", dead).text == dead.newest != dead.first
    assert node.post("/bff/logout", fresh).status == 200
    assert node.get("/weather", fresh).status == 401


def test_redis_comes_back_empty(own: Fleet) -> None:
    """After a restart of Redis without its data, everybody is signed out, and can sign in again."""
    node, visitor = own.nodes[0], own.plant("fresh")
    own.redis.stop(lose=True)
    assert node.get("/weather", visitor).status == 503
    own.redis.start()
    assert until(lambda: node.get("/weather", visitor).status != 503)
    answer = node.get("/weather", visitor)
    assert (answer.status, answer.code) == (401, "session_expired")
    browser, done = own.sign_in(node)
    assert done.status == 200
    assert browser.api("/weather").status == 200


@pytest.mark.parametrize("kind", ["read-only", "full"])
def test_redis_takes_no_writes(own: Fleet, kind: str) -> None:
    """With Redis read-only or full, signing in gets 503 and sets no session, reading goes on, and everything
    works when it is over."""
    node, visitor = own.nodes[0], own.plant("fresh")
    with own.redis.trouble(kind):
        with within(1):
            browser, done = own.sign_in(node)
        assert error_page(done, 503) == "store_unavailable"
        assert browser.session is None
        with within(1):
            assert node.get("/weather", visitor).text == visitor.first
        assert node.get("/bff/user?slide=false", visitor).status == 200
        assert_live(node)
    assert own.sign_in(node)[1].status == 200
    assert node.get("/bff/user", visitor).status == 200


@pytest.mark.parametrize("kind", ["read-only", "full"])
@pytest.mark.parametrize("target", ["/weather", "/bff/user"])
def test_a_slide_that_cannot_be_written(own: Fleet, target: str, kind: str) -> None:
    """Where Redis takes no writes, a slide that is due stops no request: reading goes on."""
    node, visitor = own.nodes[0], own.plant("fresh")
    own.age(visitor, 120)
    with own.redis.trouble(kind):
        assert node.get(target, visitor).status == 200


def test_signing_out_of_a_full_redis(own: Fleet) -> None:
    """A full Redis stops nobody from signing out."""
    node, visitor = own.nodes[0], own.plant("fresh")
    with own.redis.trouble("full"):
        assert node.post("/bff/logout", visitor).status == 200
        assert node.get("/weather", visitor).status == 401
    assert own.keys(visitor) == []


@pytest.mark.parametrize("kind", ["read-only", "full"])
def test_a_refresh_without_writes(own: Fleet, kind: str) -> None:
    """Where Redis takes no writes, no refresh token is redeemed: it could not be saved. A due token stays in
    use, a dead one gets 503, and both are renewed when it is over."""
    node, due, dead = own.nodes[0], own.plant("due"), own.plant("dead")
    with own.redis.trouble(kind):
        with within(1):
            answer = node.get("/weather", dead)
        assert (answer.status, answer.code) == (503, "store_unavailable")
        assert node.get("/weather", due).text == due.first
        assert (due.family.redeems, dead.family.redeems) == (0, 0)
    assert node.get("/weather", dead).text == dead.newest != dead.first
    assert until(lambda: node.get("/weather", due).status == 200 and own.saved(due))
