"""The primary dies under load: with Sentinel and in a Cluster, nobody is signed out."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import pytest

from tests.processes.fleet import Fleet, Node, Visitor, fleet
from tests.support.redis_servers import cluster, replicated
from tests.support.wire import Answer, Closed, until

pytestmark = [pytest.mark.e2e, pytest.mark.redis_server]


@dataclass
class Load:
    """Signed-in requests without a pause, and what came of each."""

    node: Node
    visitors: list[Visitor]
    stop: threading.Event = field(default_factory=threading.Event)
    outcomes: list[tuple[float, int, str]] = field(default_factory=list)
    """When, which status, and the token that reached the API or the code."""

    def work(self, target: str) -> None:
        number = 0
        while not self.stop.is_set():
            number += 1
            visitor = self.visitors[number % len(self.visitors)]
            try:
                answer = self.node.get(target, visitor)
            except (Closed, OSError) as failure:
                self.outcomes.append((time.monotonic(), 0, type(failure).__name__))
            else:
                said = answer.code if answer.status != 200 else "ok"
                self.outcomes.append((time.monotonic(), answer.status, said))

    @contextmanager
    def running(self) -> Iterator[None]:
        threads = [
            threading.Thread(target=self.work, args=(target,))
            for target in ("/weather", "/weather", "/weather", "/bff/user")
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self.stop.set()
            for thread in threads:
                thread.join()

    def seen(self) -> set[tuple[int, str]]:
        return {(status, said) for _, status, said in list(self.outcomes)}

    def seconds_of_503(self) -> float:
        """From the first to the last."""
        times = [at for at, status, _ in list(self.outcomes) if status == 503]
        return times[-1] - times[0] if times else 0.0

    def well_since(self, moment: float, within: float) -> bool:
        """Whether all requests of half a second are answered with 200, some time after that moment."""

        def well() -> bool:
            recent = [(at, status) for at, status, _ in list(self.outcomes) if at > time.monotonic() - 0.5]
            return time.monotonic() > moment + 0.6 and len(recent) > 20 and {s for _, s in recent} == {200}

        return until(well, within)


def fail_over(found: Fleet, kill: Callable[[], None]) -> Load:
    """Kill a primary under load, and wait until all is well without a restart."""
    node = found.nodes[0]
    visitors = [found.plant("fresh") for _ in range(8)]
    due = [found.plant("due") for _ in range(2)]
    gone = found.plant("fresh")
    assert node.post("/bff/logout", gone).status == 200
    load = Load(node, visitors + due)
    with load.running():
        assert load.well_since(time.monotonic(), 10)
        kill()
        assert until(lambda: (503, "store_unavailable") in load.seen(), 10)
        assert load.well_since(time.monotonic(), 30)
    assert load.seen() == {(200, "ok"), (503, "store_unavailable")}
    for visitor in visitors + due:
        assert heard(partial(node.get, "/bff/user", visitor)) == 200
        assert visitor.family.reuses == 0
    assert heard(lambda: node.get("/weather", gone)) == 401
    assert heard(lambda: node.post("/bff/logout", visitors[0])) == 200
    assert heard(lambda: node.get("/weather", visitors[0])) == 401
    browser, done = found.sign_in(node)
    assert done.status == 200
    assert heard(lambda: browser.api("/weather")) == 200
    return load


def heard(ask: Callable[[], Answer]) -> int:
    """The first status that is not 503: either plane finds the new primary by itself, and a Redis that stands
    still on a busy machine is away as well."""
    statuses = [503]

    def answered() -> bool:
        statuses.append(ask().status)
        return statuses[-1] != 503

    assert until(answered, within=15)
    return statuses[-1]


def test_a_failover_by_sentinels(record_property: Callable[[str, object], None]) -> None:
    """Signed-in requests get 503 for some seconds, and nothing else; then everybody is as signed in as
    before, and who had signed out stays signed out."""
    with (
        replicated(down_after=500) as redises,
        fleet(1, redis_url=redises.url, patient=False, workers="2") as found,
    ):
        primary = redises.primary
        load = fail_over(found, primary.kill)
        assert redises.primary is not primary
        tell(record_property, "Sentinel", load)


def test_a_failover_in_a_cluster(record_property: Callable[[str, object], None]) -> None:
    """The same where one of three primaries dies and its replica takes over."""
    with (
        cluster(3, 1, "--cluster-node-timeout", "1000") as nodes,
        fleet(1, redis_url=nodes.url, patient=False, workers="2") as found,
    ):
        load = fail_over(found, nodes.nodes[0].kill)
        tell(record_property, "Cluster", load)


def tell(record_property: Callable[[str, object], None], kind: str, load: Load) -> None:
    """The figure, for the report and for who reads along (pytest -s)."""
    seconds = round(load.seconds_of_503(), 1)
    record_property("seconds_of_503", seconds)
    print(f"\n{kind}: 503 for {seconds} s of {len(load.outcomes)} requests")  # noqa: T201 -- a figure to be seen
