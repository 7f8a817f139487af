"""Real Redises as they are deployed: over TLS, with a user of few rights, behind sentinels, as a cluster."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import structlog
from redis.crc import key_slot
from redis.exceptions import RedisError

from bff.errors import StoreUnavailable
from bff.sessions.connect import connect
from bff.sessions.directory import Directory
from bff.sessions.record import digest, new_sid
from bff.sessions.store import Lease, Saved
from bff.sessions.wiring import wire_to
from bff.settings import RedisAddress, parse_redis_url
from tests.fakes import Backend, FakeClock, Rig, meta, token_set
from tests.support.authority import Authority, Signed
from tests.support.redis_servers import Cluster, Replicated, Server, cluster, replicated, servers
from tests.support.stack import be_patient_with_redis
from tests.support.stopwatch import Stopwatch
from tests.support.wire import until

pytestmark = [pytest.mark.e2e, pytest.mark.redis_server]

DOCUMENTED = (Path(__file__).parent.parent / "docs" / "redis.md").read_text()
RIGHTS = re.findall(r" ([-+]\S+)", re.findall(r"ACL SETUSER.*", DOCUMENTED)[0])
ACL = ("--user", "bff", "on", ">a-word", "~test:*", *RIGHTS)


@dataclass
class Deployment:
    """Where it is, and what it consists of."""

    url: str
    replicated: Replicated | None = None
    cluster: Cluster | None = None

    @property
    def address(self) -> RedisAddress:
        return parse_redis_url(self.url)


@contextmanager
def rigged(address: RedisAddress) -> Iterator[Rig]:
    """Sessions there, for the length of a block."""
    with connect(address, connections=4) as client:
        yield Rig(Backend(client, lambda: wire_to(address), address.replicated), FakeClock())


@dataclass(frozen=True)
class Pem:
    """An authority of our own, and a certificate for 127.0.0.1 (not for localhost) that it vouches for."""

    authority: Path
    server: Signed


@pytest.fixture(scope="module")
def pem() -> Iterator[Pem]:
    with TemporaryDirectory() as folder:
        authority = Authority(Path(folder))
        yield Pem(authority.file, authority.sign("redis", "127.0.0.1"))


def tls(pem: Pem) -> tuple[str, ...]:
    """Options of a server that speaks TLS."""
    files = ("--tls-cert-file", str(pem.server.certificate), "--tls-key-file", str(pem.server.key))
    return (*files, "--tls-ca-cert-file", str(pem.authority), "--tls-auth-clients", "optional")


@pytest.fixture(scope="module")
def over_tls(pem: Pem) -> Iterator[Deployment]:
    """One Redis, over TLS alone."""
    if b"libssl" not in libraries():
        pytest.skip("redis-server is missing or has no TLS; install one (Debian: apt install redis-server)")
    with servers() as (folder, started):
        server = Server(folder, *tls(pem), *ACL, tls=True)
        started.append(server)
        url = f"rediss://bff:a-word@127.0.0.1:{server.port}/0?ssl_ca_certs={pem.authority}"
        with connect(parse_redis_url(url), connections=1) as client:
            assert until(lambda: answers(client)), server.log
        yield Deployment(url)


def libraries() -> bytes:
    """What redis-server is linked to; nothing where there is none."""
    program = shutil.which("redis-server")
    if program is None or shutil.which("ldd") is None:
        return b""
    return subprocess.run(["ldd", program], capture_output=True, check=False).stdout


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """A replica may take its time: this machine is busy with other tests."""
    monkeypatch.setattr("bff.sessions.lasting.WAIT_SECONDS", 5)
    be_patient_with_redis(monkeypatch)


def answers(client: object) -> bool:
    try:
        return bool(client.ping())  # type: ignore[attr-defined]
    except RedisError:
        return False


@pytest.fixture(scope="module")
def by_sentinels() -> Iterator[Deployment]:
    """A primary, one replica, and sentinels with a password of their own."""
    with replicated(replicas=1, options=ACL, password="of-sentinels") as found:
        url = found.url.replace("://", "://bff:a-word@") + "?sentinel_password=of-sentinels"
        yield Deployment(url, replicated=found)


@pytest.fixture(scope="module")
def as_cluster() -> Iterator[Deployment]:
    """Three primaries, each with a replica."""
    with cluster(3, 3, *ACL) as found:
        yield Deployment(found.url.replace("://", "://bff:a-word@"), cluster=found)


@pytest.fixture(params=["over_tls", "by_sentinels", "as_cluster"])
def deployment(request: pytest.FixtureRequest) -> Deployment:
    """Each of them."""
    found: Deployment = request.getfixturevalue(request.param)
    return found


def cut_off(rig: Rig, user: str, started_at: float) -> bool:
    """Whether a sign-in that began then would not count."""
    began_at = rig.store.index.redis_clock.at(started_at)
    return rig.store.index.is_cut_off([user], began_at=began_at, started_at=started_at)


@pytest.mark.usefixtures("unhurried")
def test_all_that_sessions_need(deployment: Deployment) -> None:
    """The user of docs/redis.md may do everything that sessions need, from sign-in to sign-out, on both
    planes; writes that must last are acknowledged by a replica where there is one."""
    with rigged(deployment.address) as rig:
        store, name = rig.store, digest("s" * 43)
        store.ping()
        assert store.claim_once("state", 10)
        assert store.claimed("state")
        record = rig.begin(data={"a": 1})
        assert store.overtake(name, ["one", "two"], 10) == set()
        assert not cut_off(rig, record.meta.user, rig.clock())
        assert store.load(name) == record
        assert store.peek(name) == record.meta
        rig.clock.advance(100)
        assert store.slide(record) > 0
        rig.clock.advance(100)
        rig.slide_if_due(record)
        assert store.save_data(record, {"a": None, "b": 2})
        assert store.lease(record, "me", 10) is Lease.YOURS
        rig.renew(record, "me", 20)
        assert store.save_tokens(record, token_set(rig.clock, "2")) is Saved.SAVED
        store.release(record, "me", 1)
        seen = rig.read(name)
        assert seen is not None
        assert (seen.tokens.access_token, seen.last_seen) == ("access-2", rig.clock())
        directory = Directory(store, store.index)
        assert [each.id for each in directory.of(record.meta.user)] == [name]
        assert [each.id for each in directory.everybody()] == [name]
        assert not store.end_if_current(record)
        (ended,) = directory.end_user(record.meta.user)
        assert ended.record is not None
        assert ended.record.tokens.access_token == "access-2"
        assert rig.read(name) is None
        assert cut_off(rig, record.meta.user, rig.clock() - 300)
        pending = store.begin(name, record.meta, record.tokens, {}, pending=True)
        assert rig.read(name) is None
        assert store.settle(pending)
        assert store.end(name) == pending
        assert store.lasting.missing == 0


def test_who_is_not_who_it_says(over_tls: Deployment, pem: Pem) -> None:
    """A certificate of an unknown authority, or for another host, is refused by both planes."""
    url = over_tls.url
    wrong = [
        url.split("?")[0],
        url.replace("127.0.0.1", "localhost"),
        url.replace("rediss:", "redis:").split("?")[0],
        url.replace("a-word", "another"),
    ]
    for each in wrong:
        with rigged(parse_redis_url(each)) as rig:
            with pytest.raises(StoreUnavailable):
                rig.store.load("x")
            with pytest.raises(StoreUnavailable):
                rig.read("x")
    for option in (
        "ssl_check_hostname=false",
        f"ssl_certfile={pem.server.certificate}&ssl_keyfile={pem.server.key}",
    ):
        with rigged(parse_redis_url(f"{url}&{option}")) as rig:
            assert rig.store.load("x") is None
            assert rig.read("x") is None


@pytest.mark.parametrize(
    "change", [("a-word", "wrong"), ("of-sentinels", "wrong"), ("/sessions/", "/others/")]
)
def test_wrong_words_for_sentinels(by_sentinels: Deployment, change: tuple[str, str]) -> None:
    """A wrong password, of Redis or of the sentinels, or a service that they do not know, is a failure as
    any other, on both planes."""
    with rigged(parse_redis_url(by_sentinels.url.replace(*change))) as rig:
        with pytest.raises(StoreUnavailable):
            rig.store.load("x")
        with pytest.raises(StoreUnavailable):
            rig.read("x")


def test_a_replica_that_does_not_acknowledge(
    by_sentinels: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sign-out waits for it 200 ms, the next one does not; each is counted and logged, and none fails. When
    the replica is back, it is waited for again."""
    redises = by_sentinels.replicated
    assert redises is not None
    be_patient_with_redis(monkeypatch)
    (replica,) = [each for each in redises.redises if each is not redises.primary]
    with rigged(by_sentinels.address) as rig, structlog.testing.capture_logs() as logs:
        rig.begin("a" * 43)
        rig.begin("b" * 43)
        replica.hang()
        try:
            watch = Stopwatch()
            assert rig.store.end(digest("a" * 43)) is not None
            assert watch.own < 0.5
            assert watch.elapsed > 0.19
            watch = Stopwatch()
            assert rig.store.end(digest("b" * 43)) is not None
            assert watch.own < 0.15
        finally:
            replica.go_on()
        assert rig.store.lasting.missing == 2
        told = [(each["event"], each["write"], each["log_level"]) for each in logs]
        assert told == [("write_not_replicated", "end", "warning")] * 2
        time.sleep(1.1)
        monkeypatch.setattr("bff.sessions.lasting.WAIT_SECONDS", 5)  # it may be busy with what it has missed
        rig.begin("c" * 43)
        assert rig.store.end(digest("c" * 43)) is not None
        assert rig.store.lasting.missing == 2


def test_a_switchover_by_hand(by_sentinels: Deployment) -> None:
    """Where an operator replaces the primary, the old one goes on as if nothing had happened: both planes are
    with the new one within seconds all the same."""
    redises = by_sentinels.replicated
    assert redises is not None
    with rigged(by_sentinels.address) as rig, asyncio.Runner() as runner:
        reader = rig.reader()
        former = redises.primary
        rig.begin()
        assert runner.run(reader.load(digest("s" * 43))) is not None
        redises.sentinels[0].run("SENTINEL", "FAILOVER", "sessions")
        assert until(lambda: redises.primary is not former, 10)
        with former.client() as client:
            assert client.role()[0] == b"master"

        def written() -> bool:
            record = rig.begin("n" * 43)
            with redises.primary.client() as client:
                return bool(client.exists(record.key))

        def read() -> bool:
            runner.run(asyncio.sleep(0.2))
            return runner.run(reader.load(digest("n" * 43))) is not None

        assert until(written)
        assert until(read)
        runner.run(reader.close())


@pytest.mark.usefixtures("unhurried")
def test_all_primaries_are_listed(as_cluster: Deployment) -> None:
    """What operators list and end lies on all nodes."""
    nodes = as_cluster.cluster
    assert nodes is not None
    with rigged(as_cluster.address) as rig:
        names = {digest(new_sid()) for _ in range(40)}
        for name in names:
            rig.store.begin(name, meta(rig.clock), token_set(rig.clock), {})
        counts = [node.run("DBSIZE") for node in nodes.nodes[:3]]
        assert all(isinstance(count, int) and count > 3 for count in counts)
        directory = Directory(rig.store, rig.store.index)
        assert {each.id for each in directory.everybody()} == names
        assert len(list(directory.end_everybody())) == 40
        assert list(directory.everybody()) == []
        assert rig.store.lasting.missing == 0


@pytest.mark.usefixtures("unhurried")
def test_slots_that_move(as_cluster: Deployment) -> None:
    """While its slot is moving to another node, and when it has moved, a session is read, refreshed and ended
    as ever; nothing of it stays behind."""
    nodes = as_cluster.cluster
    assert nodes is not None
    with rigged(as_cluster.address) as rig, asyncio.Runner() as runner:
        reader = rig.reader()
        record = rig.begin()
        slot, name = key_slot(record.key.encode()), digest("s" * 43)
        source, target = nodes.holder(slot), next(n for n in nodes.nodes[:3] if n is not nodes.holder(slot))
        assert runner.run(reader.load(name)) is not None
        nodes.begin_move(slot, source, target)
        assert runner.run(reader.load(name)) is not None
        source.run("MIGRATE", "127.0.0.1", target.port, record.key, 0, 1000)
        seen = runner.run(reader.load(name))
        assert seen is not None
        assert rig.store.load(name) is not None
        assert rig.store.save_tokens(record, token_set(rig.clock, "2")) is Saved.SAVED
        nodes.end_move(slot, source, target)
        seen = runner.run(reader.load(name))
        assert seen is not None
        assert seen.tokens.access_token == "access-2"
        rig.clock.advance(100)
        assert reader.slide_due(seen)
        runner.run(reader.slide(seen))
        ended = rig.store.end(name)
        assert ended is not None
        assert ended.last_seen == rig.clock()
        assert rig.store.lasting.missing == 1, "nobody was asked while the slot was moving"
        assert runner.run(reader.load(name)) is None
        assert [node.run("EXISTS", record.key) for node in (target,)] == [0]
        runner.run(reader.close())


@pytest.mark.parametrize(
    "kind", ["redis+sentinel://127.0.0.1:1,127.0.0.1:2/sessions/0", "redis+cluster://127.0.0.1:1"]
)
def test_nobody_there(kind: str) -> None:
    """Nothing is asked before it is needed, a failure is told soon, and again."""
    with rigged(replace(parse_redis_url(kind))) as rig:
        for _ in range(2):
            began = Stopwatch()
            with pytest.raises(StoreUnavailable):
                rig.store.load("x")
            with pytest.raises(StoreUnavailable):
                rig.read("x")
            assert began.own < 1
