"""The processes of `bff dev`: how they are waited for."""

from __future__ import annotations

import time

import pytest

from bff.devstack.processes import START_SECONDS, Console, Part, Stack, StackFailed


class Time:
    """A clock that moves when somebody sleeps."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)
        monkeypatch.setattr(time, "sleep", self.sleep)

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def waiting(ready_at: float, clock: Time) -> tuple[Stack, list[float]]:
    """A stack whose one part is ready at that second, and when it was asked."""
    asked: list[float] = []

    def ready() -> bool:
        asked.append(clock.now)
        return clock.now >= ready_at

    stack = Stack(Console())
    stack._parts.append(Part("bff", [], {}, ready))
    return stack, asked


def test_who_starts_fast_is_found_ready_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A part that needs a second is not kept waiting for another."""
    clock = Time(monkeypatch)
    stack, _ = waiting(1.0, clock)
    stack.await_ready()
    assert clock.now < 1.3


def test_who_cannot_start_is_not_asked_a_hundred_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """A BFF whose provider is away logs so at every question: its lines must stay readable."""
    clock = Time(monkeypatch)
    stack, asked = waiting(float("inf"), clock)
    with pytest.raises(StackFailed, match="bff does not answer"):
        stack.await_ready()
    assert START_SECONDS <= clock.now <= START_SECONDS + 1.5
    assert len(asked) < 50
