"""The issuer's keys against a real HTTP server: how often they are fetched, and how long they last."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from flask import Flask

from bff.resource_api import JWTValidator
from bff.resource_api.jwt.fetching import FetchLimits
from bff.resource_api.jwt.jwks import MAX_PATIENT, CachePolicy
from tests.forge import Forge, signer
from tests.resource_api.conftest import Clock, bearer, build_app
from tests.resource_api.issuer import DISCOVERY, JWKS, LocalIssuer, send
from tests.support import wire
from tests.support.stopwatch import Stopwatch

POLICY = CachePolicy()


class Stand:
    """The weather API, its issuer and the clock by which keys age."""

    def __init__(self, policy: CachePolicy = POLICY) -> None:
        self.issuer = LocalIssuer()
        self.forge = Forge(self.issuer.issuer)
        self.issuer.jwks = self.forge.jwks()
        self.clock = Clock(1000.0)
        self.app: Flask = build_app(self.forge, cache_policy=policy, monotonic=self.clock)

    def get(self, token: str | None = None, path: str = "/weather") -> Any:
        """One request, by default with a good token."""
        headers = bearer(token or self.forge.access_token())
        return self.app.test_client().get(path, headers=headers)

    def status(self, token: str | None = None) -> int:
        """The status of one request."""
        return int(self.get(token).status_code)

    def rotate(self, key_id: str) -> Forge:
        """The issuer drops its access key and signs with a new one."""
        forge = Forge(self.issuer.issuer, access_signer=signer(key_id))
        self.issuer.jwks = forge.jwks()
        return forge


@pytest.fixture(autouse=True)
def _slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """An issuer of these tests may take longer than others: machines stand still."""
    limits = FetchLimits(connect=15, read=15, total=30)
    monkeypatch.setattr("bff.resource_api.jwt.validator.FetchLimits", lambda: limits)


@pytest.fixture
def stand() -> Iterator[Stand]:
    """A fresh one for each test."""
    made = Stand()
    yield made
    made.issuer.close()


def until(condition: Callable[[], bool]) -> None:
    """Wait for what happens beside the requests."""
    assert wire.until(condition, within=10), "it did not happen in time"


def unknown(stand: Stand, number: int) -> str:
    """A token under a kid that nobody has heard of."""
    return stand.forge.access_token(stand.forge.header(kid=f"unknown-{number}"))


def test_nothing_is_fetched_before_a_token_comes(stand: Stand) -> None:
    """Starting up, health checks and anonymous callers ask nothing of the issuer."""
    client = stand.app.test_client()
    assert client.get("/health").status_code == 200
    assert client.get("/weather").status_code == 401
    assert stand.issuer.asked == []


def test_many_requests_at_once_take_one_fetch(stand: Stand) -> None:
    """Single flight: a cold start under load asks once, and everybody gets an answer."""
    with ThreadPoolExecutor(20) as pool:
        statuses = list(pool.map(lambda _: stand.status(), range(40)))
    assert statuses == [200] * 40
    assert (stand.issuer.discoveries, stand.issuer.fetches) == (1, 1)


def test_keys_are_cached_while_fresh(stand: Stand) -> None:
    """Until the time to refresh has come nothing is asked again."""
    for _ in range(5):
        assert stand.status() == 200
    stand.clock.now += POLICY.refresh_after - 1
    assert stand.status() == 200
    assert stand.issuer.fetches == 1


def test_refresh_runs_beside_the_requests(stand: Stand) -> None:
    """Ahead of expiry keys are renewed, and no request waits for it."""
    assert stand.status() == 200
    stand.clock.now += POLICY.refresh_after
    stand.issuer.gate.clear()
    began = Stopwatch()
    assert [stand.status() for _ in range(10)] == [200] * 10
    assert began.own < 1
    stand.issuer.gate.set()
    until(lambda: stand.issuer.fetches == 2)


def test_a_flood_of_unknown_kids_is_one_fetch_per_cooldown() -> None:
    """However many kids an attacker invents, the issuer hears of it once per cooldown."""
    stand = Stand(CachePolicy(max_wait=20, short_wait=20))
    assert stand.status() == 200
    for round_ in (1, 2, 3):
        stand.clock.now += POLICY.cooldown
        with ThreadPoolExecutor(8) as pool:
            statuses = list(pool.map(lambda n: stand.status(unknown(stand, n)), range(100)))
        assert statuses == [401] * 100
        assert stand.issuer.fetches == 1 + round_
    stand.issuer.close()


def test_a_token_of_another_issuer_causes_no_fetch(stand: Stand) -> None:
    """The issuer is compared before its keys are asked for."""
    assert stand.status(stand.forge.access_token(iss="https://evil.example")) == 401
    assert stand.issuer.asked == []


def test_a_new_key_is_found_at_once(stand: Stand) -> None:
    """The issuer rotates: the first token under the new kid is accepted, and fetches once."""
    assert stand.status() == 200
    stand.clock.now += POLICY.cooldown
    rotated = stand.rotate("access-2")
    assert stand.status(rotated.access_token()) == 200
    assert stand.issuer.fetches == 2


def test_a_new_key_is_found_by_a_crowd() -> None:
    """However many come with it at once: the few who wait long are not the only ones who wait."""
    stand = Stand(CachePolicy(max_wait=20, short_wait=20))
    assert stand.status() == 200
    stand.clock.now += POLICY.cooldown
    token = stand.rotate("access-2").access_token()
    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(lambda _: stand.status(token), range(32))) == [200] * 32
    assert stand.issuer.fetches == 2
    stand.issuer.close()


def test_a_new_key_in_an_outage_is_no_bad_token(stand: Stand) -> None:
    """Whether the issuer knows the kid cannot be told: 503 with Retry-After, and known keys serve on."""
    assert stand.status() == 200
    stand.clock.now += POLICY.cooldown
    token = stand.rotate("access-2").access_token()
    stand.issuer.down = True
    for _ in range(2):  # the fetch that fails, and the cooldown after it
        refused = stand.get(token)
        assert (refused.status_code, refused.headers["Retry-After"]) == (503, "5")
        assert stand.status() == 200
    stand.issuer.down = False
    stand.clock.now += POLICY.cooldown
    until(lambda: stand.status(token) == 200)
    assert stand.status(unknown(stand, 1)) == 401


def test_few_wait_for_kids_that_may_be_invented() -> None:
    """Behind a slow issuer two threads are held, not all of a process; the others say 503 soon."""
    stand = Stand(CachePolicy(max_wait=20, short_wait=0.1))
    assert stand.status() == 200
    for _ in range(2):
        stand.clock.now += POLICY.cooldown
        stand.issuer.gate.clear()
        with ThreadPoolExecutor(12) as pool:
            asked = [pool.submit(stand.status, unknown(stand, number)) for number in range(12)]
            until(lambda: sum(each.done() for each in asked) >= 12 - MAX_PATIENT)  # noqa: B023 -- used at once
            assert stand.status() == 200
            stand.issuer.gate.set()
        statuses = sorted(each.result() for each in asked)
        assert statuses == [401] * MAX_PATIENT + [503] * (12 - MAX_PATIENT)
    stand.issuer.close()


def test_those_who_wait_for_kids_wait_for_a_bounded_time() -> None:
    """The two that are held as well."""
    stand = Stand(CachePolicy(max_wait=0.5, short_wait=0.1))
    until(lambda: stand.status() == 200)
    stand.clock.now += POLICY.cooldown
    stand.issuer.gate.clear()
    began = Stopwatch()
    assert stand.status(unknown(stand, 0)) == 503
    assert began.own < 3
    assert began.elapsed > 0.4
    stand.issuer.close()


def test_a_removed_key_does_not_live_on_a_slow_issuer() -> None:
    """Beyond the lifetime an answer that is still to come is waited for, or 503; it is no outage yet."""
    stand = Stand(CachePolicy(max_wait=0.2, short_wait=0.1))
    until(lambda: stand.status() == 200)
    stand.rotate("access-2")
    stand.clock.now += POLICY.lifetime
    stand.issuer.gate.clear()
    assert [stand.status() for _ in range(2)] == [503] * 2
    stand.issuer.gate.set()
    until(lambda: stand.status() == 401)
    stand.issuer.close()


def test_an_issuer_that_hangs_is_an_outage_once_that_is_known() -> None:
    """When its fetch has been given up, the old keys serve, as they do when it is down."""
    stand = Stand(CachePolicy(max_wait=0.2, short_wait=0.1))
    until(lambda: stand.status() == 200)
    stand.clock.now += POLICY.lifetime
    stand.issuer.gate.clear()
    assert stand.status() == 503
    stand.clock.now += POLICY.overdue
    assert [stand.status() for _ in range(3)] == [200] * 3
    stand.issuer.close()


def test_a_new_key_under_the_old_kid_is_found_within_the_lifetime(stand: Stand) -> None:
    """Some issuers reuse a kid: the old key is out after the lifetime, the new one in."""
    assert stand.status() == 200
    replaced = signer("access-2")
    stand.issuer.jwks = {"keys": [replaced.jwk(kid="access-1")]}
    stand.clock.now += POLICY.lifetime
    assert stand.status() == 401
    forge = Forge(stand.issuer.issuer, access_signer=replaced)
    assert stand.status(forge.access_token(forge.header(kid="access-1"))) == 200


def test_a_removed_key_is_refused_after_the_lifetime(stand: Stand) -> None:
    """Even without traffic in between the first request after the lifetime judges by new keys."""
    assert stand.status() == 200
    stand.rotate("access-2")
    stand.clock.now += POLICY.lifetime
    assert stand.status() == 401


def test_a_removed_key_is_refused_soon_under_traffic(stand: Stand) -> None:
    """With requests coming in, half the lifetime is enough."""
    assert stand.status() == 200
    stand.rotate("access-2")
    stand.clock.now += POLICY.refresh_after
    stand.status()
    until(lambda: stand.status() == 401)


def test_an_emptied_set_is_believed(stand: Stand) -> None:
    """An issuer that takes all its keys back is obeyed."""
    assert stand.status() == 200
    stand.issuer.jwks = {"keys": []}
    stand.clock.now += POLICY.lifetime
    assert stand.status() == 401


def test_an_outage_is_bridged_for_a_bounded_time(stand: Stand) -> None:
    """Old keys serve while the issuer is down, then 503 with Retry-After, then it recovers."""
    assert stand.status() == 200
    stand.issuer.down = True
    stand.clock.now += POLICY.lifetime + 1
    assert [stand.status() for _ in range(5)] == [200] * 5
    stand.clock.now += POLICY.stale - 2
    assert stand.status() == 200
    stand.clock.now += POLICY.cooldown
    refused = stand.get()
    assert refused.status_code == 503
    assert refused.content_type == "application/problem+json"
    assert refused.get_json()["code"] == "provider_unavailable"
    assert 1 <= int(refused.headers["Retry-After"]) <= POLICY.cooldown
    stand.issuer.down = False
    stand.clock.now += POLICY.cooldown
    until(lambda: stand.status() == 200)


def test_an_outage_is_not_hammered(stand: Stand) -> None:
    """A thousand requests in an outage are one attempt per cooldown."""
    assert stand.status() == 200
    stand.issuer.down = True
    stand.clock.now += POLICY.lifetime
    for _ in range(100):
        assert stand.status() == 200
    assert stand.issuer.discoveries == 2


def test_down_at_start_and_back_again(stand: Stand) -> None:
    """Health stays 200, the weather is 503 until the issuer answers, readiness says the same."""
    stand.issuer.down = True
    client = stand.app.test_client()
    assert client.get("/health").status_code == 200
    answer = stand.get()
    assert answer.status_code == 503
    assert answer.headers["Retry-After"] == "5"
    assert "WWW-Authenticate" not in answer.headers
    ready = client.get("/health/ready")
    assert (ready.status_code, ready.content_type) == (503, "application/problem+json")
    assert "Retry-After" in ready.headers
    assert stand.issuer.issuer not in ready.text
    stand.issuer.down = False
    stand.clock.now += POLICY.cooldown
    until(lambda: stand.status() == 200)
    assert client.get("/health/ready").status_code == 200


def test_readiness_fetches_by_itself(stand: Stand) -> None:
    """A readiness probe is enough to bring the keys in, before any token comes."""
    client = stand.app.test_client()
    until(lambda: client.get("/health/ready").status_code == 200)
    assert stand.issuer.fetches == 1


def test_an_issuer_that_hangs_holds_no_thread_for_long(stand: Stand) -> None:
    """It answers nothing: requests give up after seconds, and once it has failed, at once."""
    stand.issuer.gate.clear()
    began = Stopwatch()
    with ThreadPoolExecutor(10) as pool:
        statuses = list(pool.map(lambda _: stand.status(), range(10)))
    assert statuses == [503] * 10
    assert began.own < POLICY.max_wait + 5
    for _ in range(2):
        stand.clock.now += POLICY.cooldown
        began = Stopwatch()
        assert [stand.status() for _ in range(3)] == [503] * 3
        assert began.own < 3 * POLICY.short_wait + 4


def test_late_comers_wait_only_for_the_rest() -> None:
    """The wait counts from the fetch's beginning: a steady stream of requests is no queue of full waits."""
    stand = Stand(CachePolicy(max_wait=1.5))
    stand.issuer.gate.clear()
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(stand.status)
        until(lambda: stand.issuer.asked != [])
        stand.clock.now += 1.4
        began = Stopwatch()
        assert stand.status() == 503
        assert began.own < 0.7
        assert first.result() == 503
    stand.issuer.close()


def test_an_issuer_that_drips_for_ever_collects_no_threads(issuer: LocalIssuer) -> None:
    """Every fetch ends, though its answer does not: a day of this leaves nothing behind."""
    clock = Clock(1000.0)
    validator = JWTValidator(
        issuer.issuer,
        audience="api",
        cache_policy=CachePolicy(max_wait=0.1, short_wait=0.1),
        fetch_limits=FetchLimits(total=1),
        monotonic=clock,
    )

    def drip(handler: Any) -> None:
        handler.wfile.write(b"HTTP/1.0 200 OK\r\nX-Drip: ")
        while True:
            handler.wfile.write(b"x")
            time.sleep(0.05)

    issuer.answers["/pool" + DISCOVERY] = drip
    before = len(issuer.asked)
    for number in range(3):
        assert not validator.ready()
        until(lambda: len(issuer.asked) == before + number + 1)  # noqa: B023 -- used at once
        clock.now += POLICY.overdue
    until(lambda: not fetching())
    issuer.answers.clear()


def fetching() -> list[threading.Thread]:
    """The fetches under way, given up or not."""
    return [thread for thread in threading.enumerate() if thread.name == "jwks-fetch"]


def test_a_fetch_that_never_ends_is_given_up() -> None:
    """A drip of headers passes every read timeout: the next fetch begins without it."""
    stand = Stand(CachePolicy(max_wait=0.2, short_wait=0.1))
    release = threading.Event()

    def drip(handler: Any) -> None:
        handler.wfile.write(b"HTTP/1.0 200 OK\r\nX-Drip: ")
        while not release.wait(0.05):
            handler.wfile.write(b"x")
            handler.wfile.flush()

    stand.issuer.answers[DISCOVERY] = drip
    assert stand.status() == 503
    stand.clock.now += POLICY.overdue
    stand.issuer.answers.clear()
    until(lambda: stand.status() == 200)
    release.set()
    stand.issuer.close()


def test_the_late_answer_of_a_given_up_fetch_is_thrown_away() -> None:
    """Keys that come after a newer fetch has landed do not bring removed keys back."""
    stand = Stand(CachePolicy(max_wait=0.2, short_wait=0.1))
    old, release = stand.issuer.jwks, threading.Event()

    def late(handler: Any) -> None:
        release.wait(10)
        send(handler, 200, json.dumps(old).encode())

    stand.issuer.answers[JWKS] = late
    assert stand.status() == 503
    rotated = stand.rotate("access-2")
    stand.issuer.answers.clear()
    stand.clock.now += POLICY.overdue
    until(lambda: stand.status(rotated.access_token()) == 200)
    release.set()
    time.sleep(0.2)
    assert stand.status() == 401
    stand.issuer.close()


def test_without_a_thread_it_is_an_outage(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that cannot start a thread answers 503, not 500."""

    def no_thread(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", no_thread)
    headers = bearer(stand.forge.access_token())
    assert stand.app.test_client().get("/weather", headers=headers).status_code == 503


def test_without_a_usable_key_it_is_not_ready(stand: Stand) -> None:
    """An issuer that publishes none lets in nobody: no traffic should come here."""
    stand.issuer.jwks = {"keys": []}
    client = stand.app.test_client()
    assert stand.status() == 401
    assert client.get("/health/ready").status_code == 503
    stand.issuer.jwks = stand.forge.jwks()
    stand.clock.now += POLICY.lifetime
    until(lambda: client.get("/health/ready").status_code == 200)


def test_one_issuer_s_outage_is_not_the_other_s() -> None:
    """Tokens of the one that answers are judged as ever, and for its users the API stays ready."""
    first, second = LocalIssuer("/one"), LocalIssuer("/two")
    one, two = Forge(first.issuer), Forge(second.issuer)
    first.jwks, second.jwks = one.jwks(), two.jwks()
    second.down = True
    client = build_app(one, {"API_ISSUER": f"{first.issuer},{second.issuer}"}).test_client()
    assert client.get("/weather", headers=bearer(two.access_token())).status_code == 503
    assert client.get("/weather", headers=bearer(one.access_token())).status_code == 200
    assert client.get("/health/ready").status_code == 200
    first.close()
    second.close()


def test_several_issuers_are_told_apart() -> None:
    """Each issuer's tokens are verified with its own keys: one cannot speak for the other."""
    first, second = LocalIssuer("/one"), LocalIssuer("/two")
    one = Forge(first.issuer)
    two = Forge(second.issuer, access_signer=signer("access-2"))
    first.jwks, second.jwks = one.jwks(), two.jwks()
    client = build_app(one, {"API_ISSUER": f"{first.issuer}, {second.issuer}"}).test_client()
    for token, status in [
        (one.access_token(), 200),
        (two.access_token(), 200),
        (one.access_token(iss=two.issuer), 401),
        (two.access_token(iss=one.issuer), 401),
    ]:
        assert client.get("/weather", headers=bearer(token)).status_code == status
    first.close()
    second.close()
