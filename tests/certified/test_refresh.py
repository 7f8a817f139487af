"""Refresh tokens that a certified provider rotates, and whose reuse it punishes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.certified.stage import Stage
from tests.certified.visitor import Visitor
from tests.e2e.stack import CSRF
from tests.support.wire import until

pytestmark = [pytest.mark.e2e, pytest.mark.redis_server]


@pytest.mark.parametrize("name", ["basic", "key"])
def test_rotation(stage: Stage, name: str) -> None:
    """Under requests at once the access token changes again and again, and no refresh token is used twice."""
    visitor = Visitor(stage.bff(name)).sign_in("ada")
    provider, mark, bearers = visitor.bff.provider, visitor.bff.provider.mark(), [visitor.bearer()]

    def changed() -> bool:
        with ThreadPoolExecutor(4) as pool:
            seen = set(pool.map(lambda _: visitor.bearer(), range(4)))
        bearers.extend(seen - set(bearers))
        return len(bearers) >= 3

    assert until(changed, within=15), bearers
    assert provider.user_info(visitor.bearer()).status_code == 200

    def rotated() -> list[object]:
        return [each["number"] for each in provider.events(mark) if each["event"] == "refresh token rotated"]

    def granted() -> int:
        return provider.count("granted", mark, type="refresh_token")

    assert until(lambda: len(rotated()) == granted()), "none is under way any more"
    assert len(rotated()) == len(set(rotated())) >= 2
    assert provider.troubles(mark) == []
    assert provider.count("grant revoked", mark) == 0
    assert visitor.claims()["email"] == "ada@example.com"


@pytest.mark.parametrize("name", ["basic", "form"])
def test_a_second_sign_in(stage: Stage, name: str) -> None:
    """Signing in again in the same browser, where the provider has one session and one grant for both, leaves
    a session that is renewed: what it replaces is not revoked."""
    visitor = Visitor(stage.bff(name)).sign_in("ada")
    provider, mark = visitor.bff.provider, visitor.bff.provider.mark()
    old, sessions = visitor.bearer(), visitor.get("/bff/sessions", headers=CSRF).json()
    visitor.finish(visitor.begin())
    first = visitor.bearer()
    assert first != old
    assert until(lambda: visitor.bearer() != first, within=15)
    assert provider.user_info(visitor.bearer()).status_code == 200
    assert provider.count("grant revoked", mark) == 0
    assert provider.troubles(mark) == []
    assert len(visitor.get("/bff/sessions", headers=CSRF).json()) == len(sessions)


def test_an_ended_grant(stage: Stage) -> None:
    """A grant that the provider has ended ends the session at the next refresh."""
    visitor = Visitor(stage.bff("basic")).sign_in("ada")
    provider, mark = visitor.bff.provider, visitor.bff.provider.mark()
    assert visitor.bearer()
    provider.end_grants()
    assert until(lambda: visitor.weather().status_code == 401, within=10)
    assert visitor.user().json()["code"] == "session_expired"
    assert provider.count("grant refused", mark, error="invalid_grant") == 1
