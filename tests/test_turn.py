"""Taking turns: one at a time, for nobody longer than bearable."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from bff.turn import Turn, aside
from tests.support.stopwatch import Stopwatch


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bff.turn.PATIENCE_SECONDS", 30)


@pytest.mark.usefixtures("patient")
def test_one_at_a_time() -> None:
    """Also where what is done fails."""
    turn, inside, most = Turn(), 0, 0

    def work(number: int) -> None:
        nonlocal inside, most
        try:
            with turn:
                inside += 1
                most = max(most, inside)
                time.sleep(0.01)
                inside -= 1
                if number % 2:
                    raise ValueError
        except ValueError:
            pass

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(16)))
    assert most == 1


@pytest.mark.usefixtures("patient")
def test_aside() -> None:
    """Whoever waits lets the next one have the turn, and waits for it again; also where the waiting fails."""
    turn, order = Turn(), []
    waits, done = threading.Event(), threading.Event()

    def first() -> None:
        with turn:
            try:
                with aside():
                    waits.set()
                    done.wait(10)
                    raise ValueError
            except ValueError:
                order.append("first")

    def second() -> None:
        waits.wait(10)
        with turn:
            done.set()
            time.sleep(0.1)
            order.append("second")

    with ThreadPoolExecutor(2) as pool:
        for each in [pool.submit(first), pool.submit(second)]:
            each.result()
    assert order == ["second", "first"]


def test_aside_without_a_turn() -> None:
    """Is nothing at all: a sign-in asks the provider in the same way as a refresh."""
    with aside():
        pass
    turn = Turn()
    with turn:
        pass
    with aside(), turn:
        pass


def test_nobody_waits_for_ever() -> None:
    """Whoever does not get the turn in time goes on without, and takes nothing from who has it."""
    turn, go_on = Turn(), threading.Event()

    def hold() -> None:
        with turn:
            go_on.wait(10)

    with ThreadPoolExecutor(2) as pool:
        holder = pool.submit(hold)
        time.sleep(0.05)
        watch = Stopwatch()
        with turn, aside():
            pass
        assert watch.own < 4
        assert not holder.done()
        go_on.set()
        holder.result()
    with turn:  # it is free again
        pass
