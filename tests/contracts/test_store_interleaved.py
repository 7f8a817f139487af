"""Two clients that do as they please with the same sessions, against a model of what must come of it."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from bff.sessions.record import SessionRecord, digest
from bff.sessions.store import Lease, Saved
from tests.fakes import ABSOLUTE, IDLE, Backend, FakeClock, Rig, token_set

SIDS = ["a" * 43, "b" * 43]
CLIENTS = ["one", "two"]


@dataclass
class Model:
    """What a session must be."""

    created: float
    last_seen: float
    tokens: str = "1"
    generation: int = 1
    data: dict[str, Any] = field(default_factory=dict)
    lease: str | None = None

    @property
    def ends_at(self) -> float:
        return min(self.last_seen + IDLE, self.created + ABSOLUTE)


class Interleaving(RuleBasedStateMachine):
    """Each client keeps what it has read, however old that has become, and acts on it later."""

    backend: Backend

    def __init__(self) -> None:
        super().__init__()
        self.backend.client.flushall()
        self.rig = Rig(self.backend, FakeClock())
        self.runner = asyncio.Runner()
        self.models: dict[str, Model] = {}
        self.held: dict[tuple[str, str], SessionRecord] = {}
        self.minted = 1

    def teardown(self) -> None:
        self.runner.close()

    CLIENT = st.sampled_from(CLIENTS)
    SESSION = st.sampled_from([SIDS[0]] * 4 + [SIDS[1]])  # most of it happens to one session
    DATA = st.dictionaries(
        st.sampled_from(["x", "y", "z"]), st.one_of(st.none(), st.integers(0, 9)), max_size=3
    )

    def model(self, sid: str, record: SessionRecord) -> Model | None:
        """The session that `record` was read from, if it is still that one."""
        model = self.models.get(sid)
        return model if model is not None and model.created == record.meta.created else None

    def mine(self, client: str, sid: str) -> tuple[SessionRecord, Model | None] | None:
        """What a client holds of a session, and what has become of it."""
        record = self.held.get((client, sid))
        return None if record is None else (record, self.model(sid, record))

    @initialize(client=CLIENT)
    def begin_one(self, client: str) -> None:
        """It starts with a session that both clients have just read, and one of them refreshes."""
        self.sign_in(SIDS[0])
        self.ask_for_lease(client, SIDS[0])

    @rule(sid=SESSION)
    def begin(self, sid: str) -> None:
        """A sign-in; ids are random, so one that is taken does not come up."""
        if sid not in self.models:
            self.sign_in(sid)

    def sign_in(self, sid: str) -> None:
        """Both clients see the new session, and forget an older one of that id, which cannot be."""
        record = self.rig.begin(sid, token_set(self.rig.clock, "1", lives=1e6), {"x": 0})
        for each in CLIENTS:
            self.held[each, sid] = record
        now = self.rig.clock()
        self.models[sid] = Model(created=now, last_seen=now, data={"x": 0})

    @rule(client=CLIENT, sid=SESSION)
    def load(self, client: str, sid: str) -> None:
        """The control plane sees exactly the model."""
        record, model = self.rig.store.load(digest(sid)), self.models.get(sid)
        assert (record is None) is (model is None)
        if record is not None and model is not None:
            assert record.data == model.data
            self.agree(record, model)
            self.held[client, sid] = record

    @rule(client=CLIENT, sid=SESSION)
    def read(self, client: str, sid: str) -> None:
        """So does the data plane."""

        async def ask() -> SessionRecord | None:
            reader = self.rig.reader()
            try:
                return await reader.load(digest(sid))
            finally:
                await reader.close()

        record, model = self.runner.run(ask()), self.models.get(sid)
        assert (record is None) is (model is None)
        if record is not None and model is not None:
            self.agree(record, model)
            self.held[client, sid] = record

    def agree(self, record: SessionRecord, model: Model) -> None:
        """What both planes see."""
        assert record.tokens.access_token == f"access-{model.tokens}"
        assert (record.generation, record.last_seen) == (model.generation, model.last_seen)

    @rule(client=CLIENT, sid=SESSION, changes=DATA)
    def save_data(self, client: str, sid: str, changes: dict[str, Any]) -> None:
        """Changed keys are written, whatever the client knew; nothing where the session is gone."""
        if (mine := self.mine(client, sid)) is None:
            return
        record, model = mine
        assert self.rig.store.save_data(record, changes) is (model is not None)
        if model is not None:
            merged = model.data | changes
            model.data = {name: value for name, value in merged.items() if value is not None}

    @rule(client=CLIENT, sid=SESSION)
    def slide(self, client: str, sid: str) -> None:
        """A visit counts, and nothing else changes."""
        if (mine := self.mine(client, sid)) is None:
            return
        record, model = mine
        self.rig.store.slide(record)
        if model is not None:
            model.last_seen = self.rig.clock()

    @rule(client=CLIENT, sid=SESSION)
    def lease(self, client: str, sid: str) -> None:
        """One of the two refreshes, and only what is still current."""
        self.ask_for_lease(client, sid)

    def ask_for_lease(self, client: str, sid: str) -> None:
        """What the store says must be what the model says."""
        if (mine := self.mine(client, sid)) is None:
            return
        record, model = mine
        answer = self.rig.store.lease(record, client, 1e6)
        if model is None:
            assert answer is Lease.GONE
        elif record.generation != model.generation:
            assert answer is Lease.NEWER
        elif model.lease in (None, client):
            assert answer is Lease.YOURS
            model.lease = client
        else:
            assert answer is Lease.HELD

    @rule(client=CLIENT, sid=SESSION)
    def release(self, client: str, sid: str) -> None:
        """Its owner's alone to give back."""
        if (mine := self.mine(client, sid)) is None:
            return
        record, model = mine
        self.rig.store.release(record, client)
        if model is not None and model.lease == client:
            model.lease = None

    @rule(client=CLIENT, sid=SESSION)
    def save_tokens(self, client: str, sid: str) -> None:
        """A refresh comes home, with a lease or long after it: the generation decides."""
        if (mine := self.mine(client, sid)) is None:
            return
        record, model = mine
        self.minted += 1
        tokens = token_set(self.rig.clock, str(self.minted), lives=1e6)
        saved = self.rig.store.save_tokens(record, tokens)
        if model is None:
            assert saved is Saved.GONE
        elif record.generation != model.generation:
            assert saved is Saved.NEWER
        else:
            assert saved is Saved.SAVED
            model.generation, model.tokens = model.generation + 1, str(self.minted)

    @rule(client=CLIENT, sid=SESSION)
    def grant_ended(self, client: str, sid: str) -> None:
        """`invalid_grant` ends the session unless its tokens have been replaced."""
        if (mine := self.mine(client, sid)) is None:
            return
        record, model = mine
        current = model is not None and model.generation == record.generation
        assert self.rig.store.end_if_current(record) is current
        if current:
            del self.models[sid]

    @rule(sid=SESSION)
    def sign_out(self, sid: str) -> None:
        """What was held last comes back, once."""
        record, model = self.rig.store.end(digest(sid)), self.models.pop(sid, None)
        assert (record is None) is (model is None)
        if record is not None and model is not None:
            self.agree(record, model)

    @precondition(lambda self: self.models)
    @rule(seconds=st.sampled_from([1, 59, 61, 600, 600, 600, IDLE - 1, IDLE]))
    def time_passes(self, seconds: float) -> None:
        """Our clock moves, and Redis deletes what is over by it."""
        self.rig.clock.advance(seconds)
        for sid, model in list(self.models.items()):
            if self.rig.clock() >= model.ends_at:
                assert self.rig.store.load(digest(sid)) is None
                key = self.rig.codec.key(digest(sid))
                self.rig.client.delete(key, key + ":lease")
                del self.models[sid]

    @invariant()
    def redis_holds_the_living_alone(self) -> None:
        """Nothing ended is there, and everything has its expiry, at the moment when it ends."""
        sessions = {self.rig.codec.key(digest(sid)): model for sid, model in self.models.items()}
        keys = {key.decode() for key in self.rig.in_redis()}
        leases = {f"{key}:lease" for key, model in sessions.items() if model.lease is not None}
        assert keys == set(sessions) | leases
        for key, model in sessions.items():
            before = time.time()
            left = self.rig.client.pttl(key) / 1000
            assert model.ends_at - time.time() - 1 < left < model.ends_at - before + 1


def test_two_clients_never_lose_or_revive_anything(backend: Backend) -> None:
    """Begin, load, save, refresh, sign out and expire in any order, on knowledge of any age."""
    machine = type("Interleaving", (Interleaving,), {"backend": backend})
    limits = settings(
        max_examples=20 if backend.replicated else 80,  # a cluster is slower to empty
        stateful_step_count=40,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    run_state_machine_as_test(machine, settings=limits)
