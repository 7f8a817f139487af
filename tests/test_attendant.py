"""One task for what is asked on a connection, as long as it is free."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from unittest.mock import Mock
from weakref import ref

import pytest
from structlog.testing import capture_logs

from bff.attendant import Attendant
from bff.exchange import Exchange
from tests.fakes import head

Busy = set[asyncio.Task[None]]


def asked() -> Exchange:
    """A request on a connection that is open."""
    return Exchange(head(), Mock(), Mock(), Mock(), server=None, keep_alive=True, persistent=True)


def with_attendant(
    take: Callable[[Exchange], Awaitable[None]], test: Callable[[Attendant, Busy], Awaitable[None]]
) -> None:
    async def run() -> None:
        busy: Busy = set()
        attendant = Attendant(asyncio.get_running_loop(), take, busy)
        await test(attendant, busy)
        attendant.dismiss()
        await some_rounds()
        assert asyncio.all_tasks() == {asyncio.current_task()}  # nothing stays behind
        assert not busy

    asyncio.run(run())


async def answer(exchange: Exchange) -> None:
    await asyncio.sleep(0)
    exchange.answer(200, [], b"ok")


async def settled(busy: Busy) -> None:
    """After some rounds of the loop nobody is at an exchange."""
    await some_rounds()
    assert not busy


async def some_rounds() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def test_one_after_the_other() -> None:
    """All are answered by one task, which is busy only while it is at one."""

    async def test(attendant: Attendant, busy: Busy) -> None:
        tasks = []
        for _ in range(3):
            exchange = asked()
            attendant.serve(exchange)
            assert busy == {exchange.task}
            await settled(busy)
            assert exchange.response_complete
            tasks.append(exchange.task)
        assert len(set(tasks)) == 1

    with_attendant(answer, test)


def test_the_next_does_not_wait() -> None:
    """Whoever answers may have to tidy up for long: the next request is answered meanwhile, and one task is
    enough again afterwards."""
    tidy = asyncio.Event()

    async def take(exchange: Exchange) -> None:
        exchange.answer(200, [], b"ok")
        if exchange is first:
            await tidy.wait()

    first, second, third, fourth = asked(), asked(), asked(), asked()

    async def test(attendant: Attendant, busy: Busy) -> None:
        attendant.serve(first)
        await asyncio.sleep(0)
        attendant.serve(second)
        await some_rounds()
        assert second.response_complete
        assert busy == {first.task}
        tidy.set()
        await settled(busy)
        for exchange in (third, fourth):
            attendant.serve(exchange)
            await settled(busy)
        assert first.task is not second.task
        assert second.task is third.task is fourth.task

    with_attendant(take, test)


@pytest.mark.parametrize("begun", [False, True])
def test_an_answer_cut_short(begun: bool) -> None:
    """What fails is logged, its connection closed, and the task goes on."""

    async def take(exchange: Exchange) -> None:
        if exchange is broken:
            if begun:
                exchange.begin(200, [(b"content-length", b"9")])
            raise ValueError("its text may have a secret")
        await answer(exchange)

    broken, next_one = asked(), asked()

    async def test(attendant: Attendant, busy: Busy) -> None:
        with capture_logs() as logs:
            attendant.serve(broken)
            await settled(busy)
        assert [(line["event"], line["reason"]) for line in logs] == [("exchange_failed", "ValueError")]
        broken.transport.close.assert_called_once()  # type: ignore[attr-defined]
        attendant.serve(next_one)
        await settled(busy)
        assert next_one.task is broken.task
        next_one.transport.close.assert_not_called()  # type: ignore[attr-defined]

    with_attendant(take, test)


def test_cancelled() -> None:
    """A task that was cancelled answers nothing more, also where the cancelling was borne: what it awaits
    next could not tell one from another."""

    async def take(exchange: Exchange) -> None:
        if exchange is bearing:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                exchange.answer(503, [], b"")
                return
        if exchange is gone:
            await asyncio.sleep(60)
        await answer(exchange)

    gone, bearing, last = asked(), asked(), asked()

    async def test(attendant: Attendant, busy: Busy) -> None:
        for exchange in (gone, bearing):
            attendant.serve(exchange)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            exchange.task.cancel()
            await settled(busy)
        attendant.serve(last)
        await settled(busy)
        assert len({gone.task, bearing.task, last.task}) == 3
        assert last.response_complete
        gone.transport.close.assert_called_once()  # type: ignore[attr-defined]

    with_attendant(take, test)


def test_dismissed_while_busy() -> None:
    """What is under way is brought to its end; then the task ends as well."""

    async def test(attendant: Attendant, busy: Busy) -> None:
        exchange = asked()
        attendant.serve(exchange)
        await asyncio.sleep(0)
        attendant.dismiss()
        await settled(busy)
        assert exchange.response_complete
        assert exchange.task.done()

    with_attendant(answer, test)


def test_nothing_of_the_last_one() -> None:
    """A task that is made within a request, for one that was pipelined, knows nothing of what that one was
    about, a span for instance; nor do those that come to it later."""
    about: ContextVar[str] = ContextVar("about", default="")
    known = []

    async def take(exchange: Exchange) -> None:
        known.append(about.get())
        if exchange is first:
            about.set("the first")
            attendant_of_it.serve(second)
        await answer(exchange)

    first, second = asked(), asked()
    attendant_of_it: Attendant

    async def test(attendant: Attendant, busy: Busy) -> None:
        nonlocal attendant_of_it
        attendant_of_it = attendant
        attendant.serve(first)
        await settled(busy)
        assert known == ["", ""]
        assert first.task is not second.task

    with_attendant(take, test)


@pytest.mark.parametrize("cut_short", [False, True])
def test_what_is_kept(cut_short: bool) -> None:
    """Of what was answered nothing waits for the collector, also where the connection is lost on an answer
    that was cut short, whose task is idle by then."""

    async def take(exchange: Exchange) -> None:
        if not cut_short:
            exchange.answer(200, [], b"ok")

    async def test(attendant: Attendant, busy: Busy) -> None:
        exchange: Exchange | None = asked()
        assert exchange is not None
        kept = ref(exchange)
        attendant.serve(exchange)
        await settled(busy)
        if cut_short:
            exchange.task.cancel()
        else:
            attendant.serve(asked())
        exchange = None
        await settled(busy)
        assert kept() is None

    gc.collect()
    gc.disable()
    try:
        with_attendant(take, test)
    finally:
        gc.enable()
