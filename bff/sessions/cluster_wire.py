"""The wire to a Redis Cluster: one connection to each primary, and a map of who holds which slot.

https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from functools import partial
from typing import Any

from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot
from redis.exceptions import AskError, ClusterDownError, MovedError, RedisError, TryAgainError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from bff.sessions.line import Answer, Dialler, pack, pack_core
from bff.sessions.racing import first
from bff.sessions.wire import Wire

ALL_TRIES_SECONDS = 2.5
AT_ONCE = 4
"""So many nodes are asked for the map at once; one that hangs, or is behind, need not be waited for."""
_HOPS = 5
_MAP_SECONDS = 0.1
"""Between two readings of the map: during a failover everybody wants a new one."""
_ASKING = pack("ASKING")
_SLOTS = pack("CLUSTER", "SLOTS")

Node = tuple[str, int]
_MOVING = (RedisConnectionError, RedisTimeoutError, ClusterDownError, TryAgainError)
"""What a failover or a move of slots looks like from here: look at the map again."""


class ClusterWire:
    """Sends each command to the primary of its key's slot. Lives in one loop."""

    def __init__(self, dialler: Dialler, hosts: Sequence[Node]) -> None:
        """`hosts` are some nodes, of which one must answer to begin with."""
        self._dialler = dialler
        self._hosts = list(hosts)
        self._wires: dict[Node, Wire] = {}
        self._slots: list[Node | None] = [None] * REDIS_CLUSTER_HASH_SLOTS
        self._learning: asyncio.Task[None] | None = None
        self._read_at = 0.0

    async def ask(self, *command: bytes | str | int) -> Answer:
        """The answer to a command with one key, or to a script. Raises RedisError."""
        key = command[3] if command[0] in (b"EVALSHA", b"EVAL") else command[1]
        return await self._ask(str(key), pack(*command))

    async def core(self, key: str) -> Answer:
        """The fields that a proxied request needs of a session. Raises RedisError."""
        return await self._ask(key, pack_core(key))

    async def _ask(self, key: str, packed: bytes) -> Answer:
        slot = key_slot(key.encode())
        try:
            async with asyncio.timeout(ALL_TRIES_SECONDS):
                return await self._send(slot, packed)
        except TimeoutError:
            raise RedisTimeoutError("the cluster does not answer") from None

    async def close(self) -> None:
        """Hang up."""
        if self._learning is not None:
            self._learning.cancel()
        for wire in self._wires.values():
            await wire.close()

    async def _send(self, slot: int, packed: bytes) -> Answer:
        failure: RedisError = RedisConnectionError("no node holds the slot")
        for _ in range(_HOPS):
            node = self._slots[slot] or await self._learn(slot)
            if node is None:
                raise failure
            try:
                return await self._wire(node).send(packed)
            except MovedError as moved:
                failure = moved
                self._slots[slot] = _named(moved, node)
                self._learn_beside()
            except AskError as ask:
                return await self._send_asking(_named(ask, node), packed)
            except _MOVING as error:
                failure = error
                self._slots[slot] = None
        raise failure

    async def _send_asking(self, node: Node, packed: bytes) -> Answer:
        """Once, on a node that is just taking the slot over: it answers only whom the other has sent."""
        line = await self._wire(node).line()
        _, answer = await asyncio.gather(line.ask(_ASKING), line.ask(packed))
        return answer

    def _wire(self, node: Node) -> Wire:
        if node not in self._wires:
            self._wires[node] = Wire(partial(self._dialler.open, node), tries=1)
        return self._wires[node]

    async def _learn(self, slot: int) -> Node | None:
        """Read the map, one reader at a time for all who wait; who holds the slot."""
        await asyncio.shield(self._learn_beside())
        return self._slots[slot]

    def _learn_beside(self) -> asyncio.Task[None]:
        if self._learning is None:
            self._learning = asyncio.ensure_future(self._read_map())
            self._learning.add_done_callback(self._learnt)
        return self._learning

    def _learnt(self, done: asyncio.Task[None]) -> None:
        self._learning = None
        if not done.cancelled():
            done.exception()  # told to those who waited, if any

    async def _read_map(self) -> None:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(max(0.0, self._read_at + _MAP_SECONDS - loop.time()))
        self._read_at = loop.time()
        known = [node for node in self._wires if node not in self._hosts]
        nodes = random.sample(known, min(len(known), AT_ONCE)) + self._hosts[:AT_ONCE]
        ranges = await first([self._ask_for_map(node) for node in nodes], drop=lambda _ranges: None)
        for begin, end, node in ranges:
            self._slots[begin : end + 1] = [node] * (end + 1 - begin)
        holders = {node for _, _, node in ranges}
        for node in [each for each in self._wires if each not in holders and each not in self._hosts]:
            self._wires.pop(node).hang_up()

    async def _ask_for_map(self, node: Node) -> list[tuple[int, int, Node]]:
        """Slots from and to, and who holds them, as a node says."""
        answer: list[Any] = await self._wire(node).send(_SLOTS)
        if not answer:
            raise ClusterDownError("the node knows of no slots")
        ranges = []
        for begin, end, primary, *_ in answer:
            host = (primary[0] or b"").decode()
            ranges.append((begin, end, (host if host not in ("", "?") else node[0], primary[1])))
        return ranges


def _named(error: AskError, node: Node) -> Node:
    """The node that an answer names; one without a host is the same host at another port."""
    return (error.host or node[0], error.port)
