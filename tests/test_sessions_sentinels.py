"""How the primary is found: whatever some sentinels say, or do not say."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from bff.sessions.wiring import wire_to
from bff.settings import parse_redis_url
from tests.support.redis_peer import HANG, HANG_UP, Command, Peer, array, bulk, echo, peer
from tests.support.stopwatch import Stopwatch
from tests.support.wire import happens

PRIMARY, REPLICA = (
    array(bulk("master"), b":0\r\n", array()),
    array(bulk("slave"), bulk("127.0.0.1"), b":1\r\n"),
)
Script = Callable[[Command], bytes]


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, 10))


def as_role(role: bytes) -> Script:
    """A Redis in that role, which echoes."""
    return lambda command: role if command[0] == b"ROLE" else echo(command)


def naming(found: Peer) -> Script:
    """A sentinel that names this Redis."""

    def script(command: Command) -> bytes:
        if command[0] == b"AUTH":
            return b"+OK\r\n"
        assert command == [b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", b"sessions"]
        return array(bulk("127.0.0.1"), bulk(str(found.port)))

    return script


class Stage:
    """Sentinels and Redises, which end with the test."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self._stack = stack

    async def put(self, script: Script) -> Peer:
        return await self._stack.enter_async_context(peer(script))


def url(sentinels: list[Peer], credentials: str = "", rest: str = "") -> str:
    hosts = ",".join(f"127.0.0.1:{each.port}" for each in sentinels)
    return f"redis+sentinel://{credentials}{hosts}/sessions/{rest}"


@pytest.fixture
def watchful(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sentinels are asked ten times a second."""
    monkeypatch.setattr("bff.sessions.sentinels.LOOK_SECONDS", 0.1)


async def ask(sentinels: list[Peer]) -> object:
    """One question through these sentinels."""
    wire = wire_to(parse_redis_url(url(sentinels)))
    try:
        return await wire.ask("ECHO", "1")
    finally:
        await wire.close()


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("other", [HANG, HANG_UP, b"*-1\r\n", b"-NOAUTH Authentication required.\r\n"])
def test_one_sentinel_that_knows_is_enough(other: bytes, place: int) -> None:
    """Others that hang, are down, know nothing or want a password cost nothing, wherever they stand."""

    async def test() -> None:
        async with AsyncExitStack() as stack:
            stage = Stage(stack)
            primary = await stage.put(as_role(PRIMARY))
            sentinels = [await stage.put(lambda _command: other) for _ in range(2)]
            sentinels.insert(place, await stage.put(naming(primary)))
            began = Stopwatch()
            assert await ask(sentinels) == b"1"
            assert began.own < 0.4

    run(test())


@pytest.mark.parametrize("old", [as_role(REPLICA), lambda _command: HANG, lambda _command: HANG_UP])
def test_a_sentinel_that_has_not_heard_of_the_failover(old: Script) -> None:
    """Whoever is named and is no primary any more is not asked for sessions: it would tell of ended ones."""

    async def test() -> None:
        async with AsyncExitStack() as stack:
            stage = Stage(stack)
            former, primary = await stage.put(old), await stage.put(as_role(PRIMARY))
            sentinels = [await stage.put(naming(former)) for _ in range(2)] + [
                await stage.put(naming(primary))
            ]
            assert await ask(sentinels) == b"1"
            assert [b"ECHO", b"1"] in primary.commands
            assert [b"ECHO", b"1"] not in former.commands

    run(test())


def test_a_user_who_may_not_ask_for_the_role() -> None:
    """Then the sentinels are believed."""

    async def test() -> None:
        async with AsyncExitStack() as stack:
            stage = Stage(stack)
            primary = await stage.put(as_role(b"-NOPERM this user has no permissions\r\n"))
            assert await ask([await stage.put(naming(primary))]) == b"1"

    run(test())


@pytest.mark.parametrize(
    ("script", "kind"),
    [
        (lambda _command: HANG, RedisTimeoutError),
        (lambda _command: HANG_UP, RedisConnectionError),
        (lambda _command: b"*-1\r\n", RedisConnectionError),
        (lambda _command: b"-NOAUTH Authentication required.\r\n", ResponseError),
    ],
)
def test_no_sentinel_knows(script: Script, kind: type[RedisError]) -> None:
    """It is told within a second."""

    async def test() -> None:
        async with AsyncExitStack() as stack:
            stage = Stage(stack)
            sentinels = [await stage.put(script) for _ in range(3)]
            began = Stopwatch()
            with pytest.raises(kind):
                await ask(sentinels)
            assert began.own < 3

    run(test())


def test_the_primary_is_looked_up_again_when_it_is_lost() -> None:
    """After a lost connection, and after READONLY: the sentinels are asked, and their new answer counts."""

    async def test() -> None:
        async with AsyncExitStack() as stack:
            stage = Stage(stack)
            redises = [await stage.put(as_role(PRIMARY)) for _ in range(3)]
            sentinel = await stage.put(naming(redises[0]))
            wire = wire_to(parse_redis_url(url([sentinel])))
            assert await wire.ask("ECHO", "1") == b"1"
            sentinel.script = naming(redises[1])
            redises[0].close()
            assert await wire.ask("ECHO", "2") == b"2"
            assert redises[1].commands[-1] == [b"ECHO", b"2"]
            sentinel.script = naming(redises[2])
            redises[1].script = lambda _command: b"-READONLY You can't write against a read only replica.\r\n"
            assert await wire.ask("ECHO", "3") == b"3"
            assert redises[2].commands[-1] == [b"ECHO", b"3"]
            await wire.close()

    run(test())


def test_each_has_its_own_password() -> None:
    """The address's user is for Redis, `sentinel_…` for the sentinels, who hear no other."""

    async def test() -> None:
        async with AsyncExitStack() as stack:
            stage = Stage(stack)
            primary = await stage.put(as_role(PRIMARY))
            sentinel = await stage.put(naming(primary))
            rest = "2?sentinel_username=watcher&sentinel_password=of%26sentinels"
            wire = wire_to(parse_redis_url(url([sentinel], "app:of-redis@", rest)))
            assert await wire.ask("ECHO", "1") == b"1"
            assert sentinel.commands[0] == [b"AUTH", b"watcher", b"of&sentinels"]
            assert primary.commands == [
                [b"AUTH", b"app", b"of-redis"],
                [b"SELECT", b"2"],
                [b"ROLE"],
                [b"ECHO", b"1"],
            ]
            await wire.close()

    run(test())


@pytest.mark.parametrize(("heard", "moves"), [(1, False), (2, True), (3, True)])
@pytest.mark.usefixtures("watchful")
def test_a_primary_that_was_replaced_by_hand(heard: int, moves: bool) -> None:
    """While it still answers as a primary, it is left once most sentinels name another one; not for one that
    may be behind the times."""

    async def test() -> None:
        async with AsyncExitStack() as stack:
            stage = Stage(stack)
            former, primary = await stage.put(as_role(PRIMARY)), await stage.put(as_role(PRIMARY))
            sentinels = [await stage.put(naming(former)) for _ in range(3)]
            wire = wire_to(parse_redis_url(url(sentinels)))
            assert await wire.ask("ECHO", "1") == b"1"
            for sentinel in sentinels[:heard]:
                sentinel.script = naming(primary)
            for sentinel in sentinels[heard:]:
                sentinel.script = naming(former) if heard == 1 else lambda _command: b"*-1\r\n"
            await asyncio.sleep(0.25)
            if moves:
                assert await happens(lambda: former.open == 0)
            assert await wire.ask("ECHO", "2") == b"2"
            assert [b"ECHO", b"2"] in (primary if moves else former).commands
            await wire.close()

    run(test())


@pytest.mark.usefixtures("watchful")
def test_sentinels_that_fall_silent() -> None:
    """Are no reason to leave a primary that answers."""

    async def test() -> None:
        async with AsyncExitStack() as stack:
            stage = Stage(stack)
            primary = await stage.put(as_role(PRIMARY))
            sentinels = [await stage.put(naming(primary)) for _ in range(3)]
            wire = wire_to(parse_redis_url(url(sentinels)))
            assert await wire.ask("ECHO", "1") == b"1"
            for each in sentinels:
                each.script = lambda _command: HANG_UP
            await asyncio.sleep(0.3)
            assert await wire.ask("ECHO", "2") == b"2"
            assert primary.open == 1
            await wire.close()

    run(test())


@pytest.mark.usefixtures("watchful")
def test_only_one_connection_to_each_stays() -> None:
    """All sentinels lead to the primary; connections that are not needed are closed, in the end all."""

    async def test() -> None:
        async with AsyncExitStack() as stack:
            stage = Stage(stack)
            primary = await stage.put(as_role(PRIMARY))
            sentinels = [await stage.put(naming(primary)) for _ in range(3)]
            wire = wire_to(parse_redis_url(url(sentinels)))
            await asyncio.gather(*(wire.ask("ECHO", "1") for _ in range(20)))
            assert await happens(lambda: [each.open for each in (primary, *sentinels)] == [1, 1, 1, 1])
            await wire.close()
            assert await happens(lambda: [each.open for each in (primary, *sentinels)] == [0, 0, 0, 0])

    run(test())
