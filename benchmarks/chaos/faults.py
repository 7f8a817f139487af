"""What can go wrong, and what of it users may notice."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from benchmarks.chaos.stage import TOKEN_SECONDS, Stage
from benchmarks.chaos.visitors import Kind
from benchmarks.proxy.programs import Program

ON_THE_WAY_SECONDS = 3.0
"""For how long a kill waits until new tokens are on their way to its victim: the worst moment there is."""
DOWN_SECONDS = 2.0
FROZEN_SECONDS = 3.0
NOTHING: frozenset[Kind] = frozenset()
LATE = frozenset({Kind.PROVIDER})
"""A refresh fails, or takes longer than the provider's deadline, and the old token is dead."""
CUT = frozenset({Kind.RESET, Kind.PROVIDER})
"""A process died: its answers break off, and sessions whose refresh it held wait for their lease to end."""
STORE = frozenset({Kind.STORE, Kind.PROVIDER})
"""Redis is away: whoever waits for a refresh hears of the refresh."""


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong and is mended again: `happen` takes as long as both do."""

    name: str
    happen: Callable[[Stage], Awaitable[None]]
    allowed: frozenset[Kind]
    """Failures that users may see meanwhile; all others break a promise."""


async def _kill_worker(stage: Stage) -> None:
    workers = stage.workers()
    found = await stage.front.answer_on_the_way(workers, ON_THE_WAY_SECONDS)
    stage.kill_worker(workers[0] if found is None else found)


async def _kill_node(stage: Stage) -> None:
    await _kill(stage, stage.nodes[1], DOWN_SECONDS)


async def _kill_redis(stage: Stage) -> None:
    await _kill(stage, stage.redis, DOWN_SECONDS)


async def _kill_provider(stage: Stage) -> None:
    await _kill(stage, stage.provider, DOWN_SECONDS)


async def _kill_api(stage: Stage) -> None:
    await _kill(stage, stage.api, DOWN_SECONDS)


async def _kill(stage: Stage, program: Program, seconds: float) -> None:
    victims = stage.workers([program]) if program in stage.nodes else stage.workers()
    await stage.front.answer_on_the_way(victims, ON_THE_WAY_SECONDS)
    await stage.kill(program)
    await asyncio.sleep(seconds)
    await stage.revive(program)


async def _freeze_worker(stage: Stage) -> None:
    await stage.freeze(stage.workers()[0], FROZEN_SECONDS)


async def _freeze_worker_long(stage: Stage) -> None:
    """For longer than its lease and the moment after it: somebody else redeems meanwhile."""
    workers = stage.workers()
    found = await stage.front.answer_on_the_way(workers, ON_THE_WAY_SECONDS)
    await stage.freeze(workers[0] if found is None else found, stage.deadline + 5 + 5 + 4)


async def _freeze_node(stage: Stage) -> None:
    await stage.freeze(stage.nodes[1], FROZEN_SECONDS)


async def _freeze_redis(stage: Stage) -> None:
    await stage.freeze(stage.redis, FROZEN_SECONDS)


async def _freeze_provider(stage: Stage) -> None:
    """For longer than the deadline that it is given."""
    await stage.freeze(stage.provider, stage.deadline + 2)


async def _freeze_api(stage: Stage) -> None:
    await stage.freeze(stage.api, FROZEN_SECONDS)


async def _slow_provider(stage: Stage) -> None:
    """So long takes half of a token's life: it arrives half spent, and the next refresh is due at once."""
    usual = stage.front.there, stage.front.back
    stage.front.there = stage.front.back = TOKEN_SECONDS / 4
    try:
        await asyncio.sleep(5)
    finally:
        stage.front.there, stage.front.back = usual


async def _failing_provider(stage: Stage) -> None:
    await stage.provider_fault({"kind": "status", "status": 503}, FROZEN_SECONDS)


WORKER = Fault("a worker is killed", _kill_worker, CUT)
NODE = Fault("a node is killed", _kill_node, CUT | {Kind.REFUSED})
REDIS = Fault("Redis is killed", _kill_redis, STORE)
PROVIDER = Fault("the provider is killed", _kill_provider, LATE)
FAULTS = (
    WORKER,
    NODE,
    REDIS,
    PROVIDER,
    Fault("the API is killed", _kill_api, frozenset({Kind.API})),
    Fault("a worker stands still, 3 s", _freeze_worker, LATE),
    Fault("a worker stands still beyond its lease", _freeze_worker_long, LATE),
    Fault("a node stands still, 3 s", _freeze_node, LATE),
    Fault("Redis stands still, 3 s", _freeze_redis, STORE),
    Fault("the provider stands still beyond its deadline", _freeze_provider, LATE),
    Fault("the API stands still, 3 s", _freeze_api, NOTHING),
    Fault("the provider takes 1.5 s", _slow_provider, NOTHING),
    Fault("the provider answers 503", _failing_provider, LATE),
)
