"""Side by side: the CPU time, rate and latency of one system under one load."""

from __future__ import annotations

import resource
from collections.abc import Callable

from benchmarks.proxy import proc
from benchmarks.proxy.load import Load, run
from benchmarks.proxy.programs import CannotMeasure
from benchmarks.proxy.result import Run
from benchmarks.proxy.systems.system import System
from benchmarks.proxy.world import BODY, World


def once(world: World, system: System, number: int, connections: int, seconds: int) -> Run:
    """Load a system. Every answer must have been a 200 and must have come from the upstream: its counter
    and the bytes that came are held against it. Raises CannotMeasure."""
    system.check()
    asked = world.upstream_requests()
    load, cpu, strangers = _watched(
        world, system, lambda: run(f"{system.url}/weather", system.headers, connections, seconds)
    )
    answered = world.upstream_requests() - asked
    if load.wrong or not load.requests:
        raise CannotMeasure(f"{system.title}: {load.wrong} wrong answers beside {load.requests} good ones")
    if answered < load.requests or load.bytes < load.requests * len(BODY):
        raise CannotMeasure(f"{system.title}: {load.requests} answers, but the upstream gave {answered}")
    return Run(
        system=system.key,
        round=number,
        connections=connections,
        requests=load.requests,
        rate=load.rate,
        p50=load.p50,
        p99=load.p99,
        broken=load.broken,
        cpu=cpu["system"] / load.requests * 1e6,
        redis_cpu=cpu["redis"] / load.requests * 1e6,
        strangers=strangers,
    )


def _watched(world: World, system: System, call: Callable[[], Load]) -> tuple[Load, dict[str, float], float]:
    """The load, the CPU seconds of each group, and how many CPUs strangers used meanwhile."""
    groups = {"system": system.program, "redis": world.redis, "upstream": world.upstream}
    before = {name: proc.cpu_seconds(program.group) for name, program in groups.items()}
    before_all, before_wrk = proc.busy_seconds(), _wrk_seconds()
    load = call()
    cpu = {name: proc.cpu_seconds(program.group) - before[name] for name, program in groups.items()}
    others = proc.busy_seconds() - before_all - sum(cpu.values()) - (_wrk_seconds() - before_wrk)
    return load, cpu, max(0.0, others / load.seconds)


def _wrk_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
