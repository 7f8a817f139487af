"""The one connection that all proxied requests share: nothing gets lost, mixed up or stuck on it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoPermissionError, NoScriptError, ReadOnlyError, RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from bff.sessions.line import pack, pack_core
from bff.sessions.record import CORE
from bff.sessions.wire import PAUSE_SECONDS
from bff.sessions.wiring import wire_to
from bff.settings import parse_redis_url
from tests.support.redis_peer import HANG, HANG_UP, Command, Peer, echo, peer
from tests.support.stack import be_patient_with_redis
from tests.support.stopwatch import Stopwatch


def url(found: Peer, credentials: str = "", rest: str = "") -> str:
    return f"redis://{credentials}127.0.0.1:{found.port}{rest}"


def run(test: Coroutine[Any, Any, None]) -> None:
    """A test that is a coroutine."""
    asyncio.run(asyncio.wait_for(test, 60))


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    be_patient_with_redis(monkeypatch)


@contextmanager
def impatient(seconds: float = 0.1) -> Iterator[None]:
    """An answer is waited for so long, for the length of a block."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr("bff.sessions.line.ANSWER_SECONDS", seconds)
        yield


@pytest.mark.parametrize("key", ["bff:{" + "a" * 64 + "}", "", "é" * 300])
def test_the_short_way_to_pack_a_question(key: str) -> None:
    """Gives the same bytes as the long one."""
    assert pack_core(key) == pack(b"HMGET", key, *CORE)


def test_everybody_gets_their_own_answer_on_one_connection() -> None:
    """Many at once, before the connection stands and after: one connection, and no answer is mixed up."""

    async def test() -> None:
        async with peer() as found:
            wire = wire_to(parse_redis_url(url(found)))
            for _ in range(2):
                words = [f"w{number}" for number in range(200)]
                answers = await asyncio.gather(*(wire.ask("ECHO", word) for word in words))
                assert answers == [word.encode() for word in words]
            assert found.connections == 1
            await wire.close()

    run(test())


def test_an_answer_that_comes_in_pieces() -> None:
    """A large answer, in as many reads as it takes."""

    async def test() -> None:
        async with peer() as found:
            wire = wire_to(parse_redis_url(url(found)))
            large = b"x" * 3_000_000
            assert await wire.ask("ECHO", large) == large
            await wire.close()

    run(test())


def test_who_has_gone_leaves_the_answer_to_nobody() -> None:
    """Where a waiter is cancelled after its question was sent, its answer is dropped and not another's."""

    async def test() -> None:
        held, over = asyncio.Event(), asyncio.Event()

        class Slow(Peer):
            async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                data = b""
                while data.count(b"ECHO") < 3:
                    data += await reader.read(1000)
                held.set()
                await asyncio.sleep(0.05)
                writer.write(b"$5\r\nfirst\r\n$6\r\nsecond\r\n$5\r\nthird\r\n")
                await reader.read()
                writer.close()
                await writer.wait_closed()
                over.set()

        slow = Slow(echo)
        server = await asyncio.start_server(slow.serve, "127.0.0.1", 0)
        slow.port = server.sockets[0].getsockname()[1]
        wire = wire_to(parse_redis_url(url(slow)))
        first, second, third = (asyncio.ensure_future(wire.ask("ECHO", word)) for word in ("1", "2", "3"))
        await held.wait()
        first.cancel()
        third.cancel()
        assert await second == b"second"
        assert first.cancelled()
        await wire.close()
        await over.wait()
        server.close()

    run(test())


def test_who_has_gone_while_connecting_takes_nothing_from_others() -> None:
    """The connection that one of many waiters began belongs to all of them."""

    async def test() -> None:
        async with peer() as found:
            wire = wire_to(parse_redis_url(url(found)))
            first, second = (asyncio.ensure_future(wire.ask("ECHO", word)) for word in ("1", "2"))
            await asyncio.sleep(0)
            first.cancel()
            assert await second == b"2"
            assert found.connections == 1
            await wire.close()

    run(test())


def test_a_redis_that_hangs() -> None:
    """All who wait are told in time, and the next question goes over a new connection, where no late answer
    of the old one can come."""

    async def test() -> None:
        async with peer(lambda _command: HANG) as found:
            wire = wire_to(parse_redis_url(url(found)))
            began = Stopwatch()
            with impatient():
                outcomes = await asyncio.gather(
                    *(wire.ask("ECHO", "x") for _ in range(20)), return_exceptions=True
                )
            assert {type(each) for each in outcomes} == {RedisTimeoutError}
            assert began.own < 4
            assert began.elapsed > 0.05
            found.script = echo
            assert await wire.ask("ECHO", "again") == b"again"
            assert found.connections == 2
            await wire.close()

    run(test())


def test_newer_questions_give_a_hanging_redis_no_more_time() -> None:
    """The oldest question counts, however many come after it."""

    async def test() -> None:
        async with peer() as found:
            wire = wire_to(parse_redis_url(url(found)))
            with impatient(1.5):
                assert await wire.ask("ECHO", "1") == b"1"
                found.script = lambda _command: HANG
                began = Stopwatch()
                late = asyncio.ensure_future(wire.ask("ECHO", "never"))
                others = []
                while not late.done():
                    others.append(asyncio.ensure_future(wire.ask("ECHO", "x")))
                    await asyncio.sleep(0.01)
            assert began.own < 6
            assert began.elapsed > 1.4
            assert isinstance(late.exception(), RedisTimeoutError)
            await asyncio.gather(*others, return_exceptions=True)
            await wire.close()

    run(test())


def test_a_lost_connection_is_made_again_at_once() -> None:
    """Whoever was waiting is asked for once more, on a new connection; nobody hears of it."""

    async def test() -> None:
        async with peer() as found:
            wire = wire_to(parse_redis_url(url(found)))
            assert await wire.ask("ECHO", "1") == b"1"
            found.script = lambda command: HANG_UP if found.connections == 1 else echo(command)
            assert await asyncio.gather(*(wire.ask("ECHO", str(n)) for n in range(9))) == [
                b"%d" % n for n in range(9)
            ]
            assert found.connections == 2
            found.close()
            await asyncio.sleep(0.05)
            assert await wire.ask("ECHO", "2") == b"2"
            await wire.close()

    run(test())


def test_a_connection_that_is_always_lost_is_given_up() -> None:
    """Two tries, and not for ever."""

    async def test() -> None:
        async with peer(lambda _command: HANG_UP) as found:
            wire = wire_to(parse_redis_url(url(found)))
            with pytest.raises(RedisConnectionError):
                await wire.ask("ECHO", "1")
            assert found.connections == 2
            await wire.close()

    run(test())


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (b"-ERR something\r\n", ResponseError),
        (b"-NOSCRIPT No matching script.\r\n", NoScriptError),
        (b"-NOPERM this user has no permissions\r\n", NoPermissionError),
        (b"-LOADING Redis is loading the dataset in memory\r\n", ResponseError),
        (b"-MOVED where\r\n", ResponseError),
        (b"-\r\n", ResponseError),
    ],
)
def test_errors_of_redis(answer: bytes, kind: type[RedisError]) -> None:
    """An error is told to who asked, and nobody else; the connection stays."""

    async def test() -> None:
        async with peer(lambda command: answer if command[-1] == b"bad" else echo(command)) as found:
            wire = wire_to(parse_redis_url(url(found)))
            outcomes = await asyncio.gather(
                *(wire.ask("ECHO", word) for word in ("1", "bad", "2")), return_exceptions=True
            )
            assert (outcomes[0], outcomes[2]) == (b"1", b"2")
            assert type(outcomes[1]) is kind
            assert found.connections == 1
            await wire.close()

    run(test())


def test_a_redis_that_has_become_a_replica() -> None:
    """READONLY is asked again over a new connection, which may lead elsewhere, and told where it does not."""

    async def test() -> None:
        async with peer(lambda _command: b"-READONLY You can't write\r\n") as found:
            wire = wire_to(parse_redis_url(url(found)))
            with pytest.raises(ReadOnlyError):
                await wire.ask("EVALSHA", "x")
            assert found.connections == 2
            await wire.close()

    run(test())


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x15\x03\x01\x00\x02\x02\x16"], ids=["http", "tls"]
)
def test_who_does_not_speak_the_protocol(answer: bytes) -> None:
    """Is hung up on, and never believed."""

    async def test() -> None:
        async with peer(lambda _command: answer) as found:
            wire = wire_to(parse_redis_url(url(found)))
            outcomes = await asyncio.gather(
                *(wire.ask("ECHO", "x") for _ in range(5)), return_exceptions=True
            )
            assert {type(each) for each in outcomes} == {RedisConnectionError}
            await wire.close()

    run(test())


def test_an_answer_to_no_question() -> None:
    """Ends the connection: the next question would get an answer that is not its own."""

    async def test() -> None:
        async with peer(lambda command: echo(command) + echo(command)) as found:
            wire = wire_to(parse_redis_url(url(found)))
            for number in range(3):
                assert await wire.ask("ECHO", str(number)) == b"%d" % number
                await asyncio.sleep(0.02)
            assert found.connections == 3
            await wire.close()

    run(test())


@pytest.mark.parametrize(
    ("credentials", "rest", "first"),
    [
        ("", "", []),
        ("", "/0", []),
        ("", "/3", [[b"SELECT", b"3"]]),
        (":p%40ss@", "", [[b"AUTH", b"p@ss"]]),
        ("user:pass@", "/2", [[b"AUTH", b"user", b"pass"], [b"SELECT", b"2"]]),
        ("user:pass@", "?db=4", [[b"AUTH", b"user", b"pass"], [b"SELECT", b"4"]]),
    ],
)
def test_how_it_introduces_itself(credentials: str, rest: str, first: list[Command]) -> None:
    """User, password and database of the address, before the first question."""

    async def test() -> None:
        async with peer() as found:
            wire = wire_to(parse_redis_url(url(found, credentials, rest)))
            assert await wire.ask("ECHO", "1") == b"1"
            assert found.commands == [*first, [b"ECHO", b"1"]]
            await wire.close()

    run(test())


def test_over_a_socket(tmp_path: Path) -> None:
    """The same over a Unix socket."""

    async def test() -> None:
        async with peer(path=f"{tmp_path}/redis.sock") as found:
            wire = wire_to(parse_redis_url(f"unix://:word@{tmp_path}/redis.sock?db=1"))
            assert await wire.ask("ECHO", "1") == b"1"
            assert found.commands[:2] == [[b"AUTH", b"word"], [b"SELECT", b"1"]]
            await wire.close()

    run(test())


def test_who_is_not_let_in_does_not_storm() -> None:
    """A refused password is told to all who ask, and asked for again only after a pause; then it goes on."""

    async def test() -> None:
        async with peer(
            lambda command: b"-WRONGPASS no\r\n" if command[0] == b"AUTH" else echo(command)
        ) as it:
            wire = wire_to(parse_redis_url(url(it, ":wrong@")))
            started = time.monotonic()
            for tries in range(1, 4):
                told = await asyncio.gather(
                    *[wire.ask("ECHO", "1") for _ in range(20)], return_exceptions=True
                )
                assert {str(error) for error in told} == {"WRONGPASS no"}
                assert it.connections == tries
            assert time.monotonic() - started > 2 * PAUSE_SECONDS
            it.script = echo
            assert await wire.ask("ECHO", "1") == b"1"
            await wire.close()

    run(test())


def test_after_hanging_up_a_connection_that_was_coming_is_closed() -> None:
    """Whoever closes the wire leaves no connection behind, not even one that is just being made."""

    async def test() -> None:
        async with peer() as found:
            wire = wire_to(parse_redis_url(url(found, ":word@")))
            asked = asyncio.ensure_future(wire.ask("ECHO", "1"))
            await asyncio.sleep(0)
            await wire.close()
            with pytest.raises(RedisConnectionError):
                await asked

    run(test())
