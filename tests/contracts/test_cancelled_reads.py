"""A browser that hangs up cancels a read of Redis half way: the connection must not be used again."""

from __future__ import annotations

import asyncio
import random

from bff.sessions.record import digest
from tests.fakes import Backend, FakeClock, Rig, token_set

SESSIONS = [letter * 43 for letter in "abcdefgh"]


def test_a_cancelled_read_leaves_its_answer_to_nobody(backend: Backend) -> None:
    """Reads that are cancelled at random never give one session's record to another's request."""
    rig = Rig(backend, FakeClock())
    for sid in SESSIONS:
        rig.begin(sid, token_set(rig.clock, sid[0]))
    chance = random.Random(7)

    async def soak() -> int:
        reader = rig.reader()
        right = 0
        for _ in range(60):
            tasks = {asyncio.create_task(reader.load(digest(sid))): sid for sid in SESSIONS}
            await asyncio.sleep(chance.random() * 0.002)
            for task in chance.sample(list(tasks), 4):
                task.cancel()
            for task, sid in tasks.items():
                (outcome,) = await asyncio.gather(task, return_exceptions=True)
                if not isinstance(outcome, asyncio.CancelledError):
                    assert not isinstance(outcome, BaseException)
                    assert outcome is not None
                    assert outcome.tokens.access_token == f"access-{sid[0]}"
                    right += 1
        await reader.close()
        return right

    assert asyncio.run(soak()) >= 240
