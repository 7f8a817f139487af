"""The task that answers what is asked on one connection."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import copy_context

import structlog

from bff.exchange import Exchange

log = structlog.get_logger("bff.server")


class Attendant:
    """Answers a connection's exchanges one after the other in one task, which waits in between: to make a
    task for each costs twice as much as to wake one.

    Whoever asks for the next while the last is still being tidied up after does not wait for that: it gets
    a task of its own.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        take: Callable[[Exchange], Awaitable[None]],
        busy: set[asyncio.Task[None]],
    ) -> None:
        """`take` answers an exchange; `busy` gets the tasks that are at one."""
        self._loop = loop
        self._take = take
        self._busy = busy
        self._context = copy_context()  # of the connection alone: the next task may be made within a request
        self._dismissed = False
        self._idle: asyncio.Future[Exchange | None] | None = None
        self._task: asyncio.Task[None] | None = None  # the one that is idle

    def serve(self, exchange: Exchange) -> None:
        """Have it answered, beginning with the next round of the loop."""
        idle, task = self._idle, self._task
        self._idle = self._task = None
        if idle is None or task is None or idle.done():
            task = self._loop.create_task(self._work(exchange), context=self._context.copy())
        else:
            idle.set_result(exchange)
        exchange.task = task
        self._busy.add(task)

    def dismiss(self) -> None:
        """Nothing will be asked any more."""
        self._dismissed = True
        if self._idle is not None and not self._idle.done():
            self._idle.set_result(None)

    async def _work(self, first: Exchange) -> None:
        exchange: Exchange | None = first
        task = first.task
        del first  # the task outlives it
        while exchange is not None:
            try:
                await self._take(exchange)
            except asyncio.CancelledError:  # the task would keep it, with all that was under way
                return
            except Exception as error:  # whoever answers has handled all that is to be expected
                log.exception("exchange_failed", reason=type(error).__name__)
            finally:
                self._busy.discard(task)
                exchange.conclude()
            if self._dismissed or self._idle is not None or task.cancelling():
                return
            self._idle, self._task = self._loop.create_future(), task
            try:
                exchange = await self._idle
            except asyncio.CancelledError:  # for an answer that was cut short; not to be kept, as above
                return
