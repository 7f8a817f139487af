"""What a request costs Redis, counted by Redis."""

from __future__ import annotations

import pytest

from tests.processes.fleet import Fleet
from tests.support.wire import exchange

pytestmark = [pytest.mark.e2e, pytest.mark.redis_server]


def spent(before: dict[str, int], after: dict[str, int]) -> dict[str, int]:
    return {
        name: calls - before.get(name, 0) for name, calls in after.items() if calls != before.get(name, 0)
    }


def test_a_proxied_request_costs_one_round_trip(quick: Fleet) -> None:
    """Each proxied request of a live session is one command to Redis, and nothing else runs beside it."""
    visitor = quick.plant("fresh")
    for node in quick.nodes:
        node.get("/weather", visitor)
    before = quick.redis.commands()
    for number in range(60):
        assert quick.nodes[number % 2].get("/weather", visitor).text == visitor.first
    assert spent(before, quick.redis.commands()) == {"cmdstat_hmget": 60}


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("/weather", 401),
        ("/bff/user", 401),
        ("/bff/login", 302),
        ("/", 200),
        ("/static/bff.js", 200),
        ("/health/live", 200),
        ("/nowhere", 404),
    ],
)
@pytest.mark.parametrize("cookie", ["", "bff=no-session-id", "other=1"])
def test_who_is_not_signed_in_costs_nothing(quick: Fleet, target: str, status: int, cookie: str) -> None:
    """Anonymous requests, pages and static files do not reach Redis."""
    before = quick.redis.commands()
    lines = [f"GET {target} HTTP/1.1", "Host: localhost:5003", "X-CSRF: 1", "Connection: close"]
    lines += [f"Cookie: {cookie}"] if cookie else []
    for node in quick.nodes:
        answer = exchange(node.port, "\r\n".join(lines).encode() + b"\r\n\r\n")
        assert answer.status == status
    assert spent(before, quick.redis.commands()) == {}


@pytest.mark.parametrize("target", ["/", "/static/bff.js", "/health/live", "/nowhere"])
def test_pages_cost_nothing_with_a_session(quick: Fleet, target: str) -> None:
    """Pages and static files look up no session, even where one is signed in."""
    visitor = quick.plant("fresh")
    before = quick.redis.commands()
    for node in quick.nodes:
        node.get(target, visitor)
    assert spent(before, quick.redis.commands()) == {}
