"""Signing out, while other processes are busy with the session."""

from __future__ import annotations

import threading
import time

import pytest

from tests.processes.fleet import Fleet, asked, outcomes
from tests.processes.rotation import Fault
from tests.support.stopwatch import Stopwatch
from tests.support.upstream import Request, Wire, ok
from tests.support.wire import until

pytestmark = [pytest.mark.e2e, pytest.mark.redis_server]


def test_signing_out_during_a_refresh_of_another_process(patient: Fleet) -> None:
    """A sign-out while another process refreshes ends the session on both at once; who waits gets 401, and
    the tokens that come home are revoked and never used."""
    refreshing, other = patient.nodes
    comes = threading.Event()
    visitor = patient.plant("dead", Fault(hold=comes))
    with asked((node, visitor) for node in [refreshing, other] * 5) as lines:
        assert until(lambda: len(visitor.family.tokens) == 2)
        done = other.post("/bff/logout", visitor)
        assert (done.status, "logout_url" in done.json()) == (200, True)
        began = Stopwatch()
        for node in patient.nodes:
            assert node.get("/weather", visitor).code == "session_expired"
            assert node.get("/bff/user", visitor).status == 401
        assert began.own < 4
        assert patient.keys(visitor) == []
        comes.set()
        assert outcomes(lines) == {(401, "session_expired")}
    old, new = visitor.family.tokens
    assert until(lambda: new in patient.provider.revocations)
    assert patient.provider.revocations.count(old) == patient.provider.revocations.count(new) == 1
    assert visitor.family.redeems == 1
    assert patient.keys(visitor) == []
    assert patient.upstream.requests == []


def test_signing_out_during_a_slow_request(patient: Fleet) -> None:
    """A slow request, a slide and a refresh that end after a sign-out bring nothing back into Redis."""
    busy, other = patient.nodes
    visitor = patient.plant("due", Fault(after=0.6))
    patient.age(visitor, 120)

    def slow(wire: Wire, request: Request) -> object:
        wire.body(request)
        time.sleep(0.8)
        wire.send(ok(request.get("authorization").encode()))
        return True

    patient.upstream.script = slow
    user = patient.record(visitor)
    with asked([(busy, visitor)]) as lines:
        assert until(lambda: patient.upstream.requests and len(visitor.family.tokens) == 2)
        assert other.post("/bff/logout", visitor).status == 200
        assert patient.keys(visitor) == []
        assert outcomes(lines) == {(200, visitor.first)}
    assert until(lambda: visitor.family.tokens[1] in patient.provider.revocations)
    assert patient.keys(visitor) == []
    assert user is not None
    assert visitor.digest not in patient.store.index.of(user.meta.user)
    assert {node.get("/weather", visitor).status for node in patient.nodes} == {401}
