"""How a cluster is asked: each key's primary, wherever it goes."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from typing import Any

import pytest
from redis.crc import key_slot
from redis.exceptions import ClusterDownError, MovedError, RedisError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from bff.sessions.cluster_wire import ClusterWire
from bff.sessions.wiring import wire_to
from bff.settings import parse_redis_url
from tests.support.redis_peer import HANG, HANG_UP, Command, Peer, array, bulk, echo, peer
from tests.support.stopwatch import Stopwatch
from tests.support.wire import happens

HALF = 8192
LOW, HIGH = "{b}", "{a}"  # slots 3300 and 15495
SLOTS = [b"CLUSTER", b"SLOTS"]


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, 10))


def test_the_keys_of_these_tests() -> None:
    """Lie in one half of the slots each."""
    assert key_slot(LOW.encode()) < HALF <= key_slot(HIGH.encode())


class Stage:
    """Nodes of a make-believe cluster, each with a script for what is not the map."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self._stack = stack
        self.nodes: list[Peer] = []
        self.holders: list[int] = []
        self.host = "127.0.0.1"
        self.map: bytes | None = None

    async def start(self, number: int) -> ClusterWire:
        """So many nodes, of which the first two hold the slots, and a wire to them."""
        for _ in range(number):
            self.nodes.append(await self._stack.enter_async_context(peer()))
            self.play(len(self.nodes) - 1)
        self.holders = [0, 1]
        hosts = ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)
        wire = wire_to(parse_redis_url(f"redis+cluster://{hosts}"))
        assert isinstance(wire, ClusterWire)
        self._stack.push_async_callback(wire.close)
        return wire

    def play(self, number: int, answer: bytes | None = None) -> None:
        """What a node answers besides the map: an echo, or always the same."""

        def script(command: Command) -> bytes:
            if command == SLOTS:
                return self.slots() if self.map is None else self.map
            return b"+OK\r\n" if command == [b"ASKING"] else (echo(command) if answer is None else answer)

        self.nodes[number].script = script

    def slots(self) -> bytes:
        low, high = (self.nodes[number].port for number in self.holders)
        host = bulk(self.host)
        return array(
            array(b":0\r\n", b":%d\r\n" % (HALF - 1), array(host, b":%d\r\n" % low, bulk("id"))),
            array(
                b":%d\r\n" % HALF,
                b":16383\r\n",
                array(host, b":%d\r\n" % high, bulk("id")),
                array(host, b":1\r\n", bulk("a replica")),
            ),
        )

    def asked(self, number: int) -> list[Command]:
        """What came to a node, the map apart."""
        return [command for command in self.nodes[number].commands if command != SLOTS]

    def moved(self, to: int, host: str = "127.0.0.1") -> bytes:
        return b"-MOVED 3300 %s:%d\r\n" % (host.encode(), self.nodes[to].port)


@pytest.mark.parametrize("host", ["127.0.0.1", "", "?"])
def test_each_key_goes_to_its_primary(host: str) -> None:
    """By the slot of its hash tag, for commands and for scripts; one connection each, the map read once. A
    node that does not know its own name is where it was asked."""

    async def test() -> None:
        async with AsyncExitStack() as stack:
            stage = Stage(stack)
            wire = await stage.start(2)
            stage.host = host
            if host != "127.0.0.1":
                stage.holders = [0, 0]
                stage.nodes[1].script = lambda _command: HANG_UP
            questions: list[tuple[bytes | str | int, ...]] = [(b"GET", f"x:{half}") for half in (LOW, HIGH)]
            questions += [(b"EVALSHA", "sha", 1, f"y:{half}:lease") for half in (LOW, HIGH)]
            questions *= 20
            answers = await asyncio.gather(*(wire.ask(*question) for question in questions))
            assert answers == [str(question[-1]).encode() for question in questions]
            if host == "127.0.0.1":
                assert {command[-1] for command in stage.asked(0)} == {b"x:{b}", b"y:{b}:lease"}
                assert {command[-1] for command in stage.asked(1)} == {b"x:{a}", b"y:{a}:lease"}
                assert [node.connections for node in stage.nodes] == [1, 1]

    run(test())


@pytest.mark.parametrize("host", ["127.0.0.1", ""])
def test_moved(host: str) -> None:
    """A slot that has moved is followed and remembered, the map is read anew; no host is the same host."""

    async def test() -> None:
        async with AsyncExitStack() as stack:
            stage = Stage(stack)
            wire = await stage.start(3)
            assert await wire.ask(b"GET", LOW) == LOW.encode()
            stage.holders = [2, 1]
            stage.play(0, stage.moved(2, host))
            before = len(stage.asked(0))
            for _ in range(3):
                assert await wire.ask(b"GET", LOW) == LOW.encode()
                await asyncio.sleep(0.15)
            assert len(stage.asked(0)) == before + 1
            assert len(stage.asked(2)) == 3
            stage.play(2, b"-ERR not here\r\n")
            with pytest.raises(ResponseError):
                await wire.ask(b"GET", "other:{b}")

    run(test())


def test_a_slot_that_is_just_moving() -> None:
    """ASK is followed once, with ASKING before it on the same connection, and not remembered."""

    async def test() -> None:
        async with AsyncExitStack() as stack:
            stage = Stage(stack)
            wire = await stage.start(3)
            stage.play(0, b"-ASK 3300 127.0.0.1:%d\r\n" % stage.nodes[2].port)
            answers = await asyncio.gather(*(wire.ask(b"GET", f"{n}{LOW}") for n in range(5)))
            assert answers == [b"%d{b}" % n for n in range(5)]
            assert stage.asked(2)[::2] == [[b"ASKING"]] * 5
            assert len(stage.asked(2)) == 10
            stage.play(0)
            assert await wire.ask(b"GET", LOW) == LOW.encode()
            assert len(stage.asked(2)) == 10

    run(test())


@pytest.mark.parametrize(
    "trouble", [HANG_UP, b"-CLUSTERDOWN The cluster is down\r\n", b"-TRYAGAIN later\r\n"]
)
def test_a_failover(trouble: bytes) -> None:
    """Where the primary has gone or the cluster is not sure, the map is read again, and its new word counts;
    the other half of the slots goes on meanwhile."""

    async def test() -> None:
        async with AsyncExitStack() as stack:
            stage = Stage(stack)
            wire = await stage.start(3)
            assert await wire.ask(b"GET", LOW) == LOW.encode()
            stage.play(0, trouble)
            waiting = asyncio.ensure_future(wire.ask(b"GET", LOW))
            await asyncio.sleep(0.15)
            assert await wire.ask(b"GET", HIGH) == HIGH.encode()
            stage.holders = [2, 1]
            assert await waiting == LOW.encode()
            assert stage.asked(2) == [[b"GET", LOW.encode()]]

    run(test())


@pytest.mark.parametrize(
    ("trouble", "kind"),
    [
        (HANG_UP, RedisConnectionError),
        (b"-CLUSTERDOWN The cluster is down\r\n", ClusterDownError),
        (b"-MOVED 3300 127.0.0.1:PORT\r\n", MovedError),
        (HANG, RedisTimeoutError),
    ],
)
def test_what_does_not_pass_is_given_up(trouble: bytes, kind: type[RedisError]) -> None:
    """After some tries, and within three seconds; the map is not read in a storm."""

    async def test() -> None:
        async with AsyncExitStack() as stack:
            stage = Stage(stack)
            wire = await stage.start(2)
            stage.play(0, trouble.replace(b"PORT", str(stage.nodes[0].port).encode()))
            began = Stopwatch()
            outcomes = await asyncio.gather(
                *(wire.ask(b"GET", LOW) for _ in range(50)), return_exceptions=True
            )
            assert {type(outcome) for outcome in outcomes} == {kind}
            assert began.own < 3
            read = sum(node.commands.count(SLOTS) for node in stage.nodes)
            assert read <= 40

    run(test())


@pytest.mark.parametrize(
    "answer", [b"*0\r\n", b"-ERR This instance has cluster support disabled\r\n", HANG_UP]
)
def test_nodes_that_know_no_map(answer: bytes) -> None:
    """One that does is enough; without any, it is told."""

    async def test() -> None:
        async with AsyncExitStack() as stack:
            stage = Stage(stack)
            wire = await stage.start(3)
            stage.nodes[2].script = lambda _command: answer
            assert await wire.ask(b"GET", LOW) == LOW.encode()
            stage.map = answer
            other = wire_to(parse_redis_url(f"redis+cluster://127.0.0.1:{stage.nodes[2].port}"))
            with pytest.raises(RedisError):
                await other.ask(b"GET", LOW)
            await other.close()

    run(test())


def test_a_slot_that_nobody_holds() -> None:
    """Is an error, not a guess."""

    async def test() -> None:
        async with AsyncExitStack() as stack:
            stage = Stage(stack)
            wire = await stage.start(2)
            port = stage.nodes[1].port
            stage.map = array(
                array(b":%d\r\n" % HALF, b":16383\r\n", array(bulk("127.0.0.1"), b":%d\r\n" % port))
            )
            assert await wire.ask(b"GET", HIGH) == HIGH.encode()
            with pytest.raises(RedisConnectionError, match="slot"):
                await wire.ask(b"GET", LOW)

    run(test())


def test_nodes_that_have_left_are_let_go() -> None:
    """The connection to a node that holds nothing any more is closed."""

    async def test() -> None:
        async with AsyncExitStack() as stack:
            stage = Stage(stack)
            await stage.start(3)
            wire = wire_to(parse_redis_url(f"redis+cluster://127.0.0.1:{stage.nodes[1].port}"))
            assert await wire.ask(b"GET", LOW) == LOW.encode()
            assert stage.nodes[0].open == 1
            stage.holders = [2, 1]
            stage.play(0, stage.moved(2))
            assert await wire.ask(b"GET", LOW) == LOW.encode()
            assert await happens(lambda: [node.open for node in stage.nodes] == [0, 1, 1])
            await wire.close()

    run(test())
