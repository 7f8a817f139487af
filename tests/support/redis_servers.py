"""Real Redis servers on loopback: one, a primary with replicas and sentinels, or a cluster."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import redis

from benchmarks.proxy.programs import free_port
from tests.conftest import NO_REDIS
from tests.support.wire import until

SLOTS = 16384
SERVICE = "sessions"


class Server:
    """One process, `redis-server` or a sentinel, with a folder of its own."""

    def __init__(
        self,
        folder: Path,
        *options: str,
        port: int | None = None,
        tls: bool = False,
        sentinel: str = "",
        password: str | None = None,
    ) -> None:
        """`options` are those of the command line; `sentinel` is the text of a sentinel's configuration;
        `password` is what we use ourselves."""
        program = shutil.which("redis-server")
        if program is None:
            pytest.skip(NO_REDIS)
        self.port = port or free_port()
        self.folder = folder / str(self.port)
        self.folder.mkdir()
        config: list[str] = []
        if sentinel:
            (self.folder / "sentinel.conf").write_text(sentinel)
            config = [str(self.folder / "sentinel.conf"), "--sentinel"]
        self._password = password
        ports = ["--port", "0", "--tls-port", str(self.port)] if tls else ["--port", str(self.port)]
        own = [*ports, "--bind", "127.0.0.1", "--dir", str(self.folder)]
        stored = [] if sentinel else ["--save", "", "--appendonly", "no"]
        self._command = [program, *config, *own, *stored, *options]
        self.start()

    def start(self) -> None:
        """Start it, the first time or again."""
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)

    def kill(self) -> None:
        """As a crash does."""
        self._process.kill()
        self._process.wait()

    def hang(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def client(self) -> redis.Redis:
        return redis.Redis(port=self.port, password=self._password, socket_timeout=20)

    def run(self, *command: str | int) -> object:
        """What it answers to a command of ours."""
        with self.client() as client:
            answer: object = client.execute_command(*command)
            return answer

    def answers(self) -> bool:
        with suppress(redis.RedisError):
            return self.run("PING") is not None
        return False

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()


@contextmanager
def servers() -> Iterator[tuple[Path, list[Server]]]:
    """A folder for servers, and a list to put them into: they end with the block."""
    started: list[Server] = []
    with TemporaryDirectory(prefix="bff-redis-") as folder:
        try:
            yield Path(folder), started
        finally:
            for server in started:
                server.kill()


class Cluster:
    """Nodes of one Redis Cluster. The first ones are primaries; each of the others is a replica of one."""

    def __init__(self, nodes: Sequence[Server], primaries: int) -> None:
        self.nodes = nodes
        self.url = "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in nodes)
        self._primaries = primaries

    def join(self) -> None:
        """Make a cluster of the nodes, and wait until each of them says that it is well."""
        for number, node in enumerate(self.nodes):
            assert until(node.answers, within=20), node.log
            node.run("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            node.run("CLUSTER", "MEET", "127.0.0.1", self.nodes[0].port)
        for number in range(self._primaries):
            begin, end = number * SLOTS // self._primaries, (number + 1) * SLOTS // self._primaries
            self.nodes[number].run("CLUSTER", "ADDSLOTS", *range(begin, end))
        assert until(lambda: all(self.well(node) for node in self.nodes), within=20)
        for number, node in enumerate(self.nodes[self._primaries :]):
            primary = _id(self.nodes[number % self._primaries])
            assert until(lambda node=node, primary=primary: _follows(node, primary), within=20)
        assert until(lambda: all(self.in_step(node) for node in self.nodes[self._primaries :]), within=20)

    def in_step(self, node: Server) -> bool:
        """Whether a replica has its primary's data."""
        with node.client() as client:
            return bool(client.info("replication")["master_link_status"] == "up")

    def well(self, node: Server) -> bool:
        """Whether a node knows all others and finds that every slot is served."""
        said = str(node.run("CLUSTER", "INFO"))
        return "cluster_state:ok" in said and f"cluster_known_nodes:{len(self.nodes)}" in said

    def holder(self, slot: int) -> Server:
        """The primary that has a slot."""
        return self.nodes[slot * self._primaries // SLOTS]

    def begin_move(self, slot: int, source: Server, target: Server) -> None:
        """A slot is on its way: what is no longer in the source is asked for in the target."""
        target.run("CLUSTER", "SETSLOT", slot, "IMPORTING", _id(source))
        source.run("CLUSTER", "SETSLOT", slot, "MIGRATING", _id(target))

    def end_move(self, slot: int, source: Server, target: Server) -> None:
        """It has arrived."""
        for node in (target, source):
            node.run("CLUSTER", "SETSLOT", slot, "NODE", _id(target))

    def empty(self) -> None:
        """Delete all keys."""
        for node in self.nodes[: self._primaries]:
            node.run("FLUSHALL")


def _id(node: Server) -> str:
    name = node.run("CLUSTER", "MYID")
    assert isinstance(name, bytes)
    return name.decode()


def _follows(node: Server, primary: str) -> bool:
    with suppress(redis.ResponseError):  # it does not know the other yet
        node.run("CLUSTER", "REPLICATE", primary)
        return True
    return False


@contextmanager
def cluster(primaries: int = 3, replicas: int = 0, *options: str) -> Iterator[Cluster]:
    """A cluster for the length of a block, with so many replicas in all. Unless an option says otherwise, a
    node that stands still for some seconds, as on a busy machine, is not taken for dead."""
    with servers() as (folder, started):
        for _ in range(primaries + replicas):
            extra = ("--cluster-enabled", "yes", "--cluster-node-timeout", "15000", *options)
            started.append(Server(folder, *extra, port=_cluster_port()))
        made = Cluster(started, primaries)
        made.join()
        yield made


def _cluster_port() -> int:
    """A free port whose bus port, 10,000 above, is free, too."""
    while True:
        port = free_port()
        with suppress(OSError, OverflowError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port + 10_000))
            return port


class Replicated:
    """A primary, replicas of it, and sentinels that watch over them."""

    def __init__(self, redises: list[Server], sentinels: list[Server]) -> None:
        self.redises = redises
        self.sentinels = sentinels
        hosts = ",".join(f"127.0.0.1:{each.port}" for each in sentinels)
        self.url = f"redis+sentinel://{hosts}/{SERVICE}/0"

    @property
    def primary(self) -> Server:
        """The one that the sentinels name."""
        answer = self.sentinels[0].run("SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE)
        assert isinstance(answer, tuple | list)
        return next(each for each in self.redises if each.port == int(answer[1]))

    def ready(self) -> bool:
        """Whether all sentinels know of each other and of all replicas, which acknowledge."""
        others, replicas = len(self.sentinels) - 1, len(self.redises) - 1
        for sentinel in self.sentinels:
            with sentinel.client() as client:
                (known,) = client.sentinel_masters().values()
            if (known["num-other-sentinels"], known["num-slaves"]) != (others, replicas):
                return False
        with self.primary.client() as client:
            client.set("ready", 1, ex=1)
            return bool(client.wait(replicas, 500) == replicas)


@contextmanager
def replicated(
    replicas: int = 2,
    sentinels: int = 3,
    down_after: int = 15_000,
    options: Sequence[str] = (),
    password: str | None = None,
) -> Iterator[Replicated]:
    """They for the length of a block; after `down_after` milliseconds of silence a failover begins. `options`
    are for each Redis, the `password` is the sentinels'."""
    with servers() as (folder, started):
        quick = ("--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1", *options)
        primary = Server(folder, *quick)
        started.append(primary)
        for _ in range(replicas):
            started.append(Server(folder, *quick, "--replicaof", f"127.0.0.1 {primary.port}"))
        redises = list(started)
        assert until(lambda: all(each.answers() for each in redises), within=20), primary.log
        text = (
            f"sentinel monitor {SERVICE} 127.0.0.1 {primary.port} {sentinels // 2 + 1}\n"
            f"sentinel down-after-milliseconds {SERVICE} {down_after}\n"
            f"sentinel failover-timeout {SERVICE} 3000\n"
        ) + (f"requirepass {password}\n" if password else "")
        watchers = [Server(folder, sentinel=text, password=password) for _ in range(sentinels)]
        started.extend(watchers)
        assert until(lambda: all(each.answers() for each in watchers), within=20), watchers[0].log
        found = Replicated(redises, watchers)
        assert until(found.ready, within=20), watchers[0].log
        yield found
