"""The load: sessions that are signed in and ask again and again, by turns at each node, and what they get."""

from __future__ import annotations

import asyncio
import enum
import json
import random
import time
from collections import Counter
from dataclasses import dataclass, field

from benchmarks.chaos.front import leave_no_trace
from benchmarks.chaos.stage import Stage
from benchmarks.proxy.programs import CannotMeasure
from benchmarks.proxy.signing_in import cookies_for, sign_in
from benchmarks.proxy.systems.ours import session_cookies

PATIENCE_SECONDS = 20.0


class Kind(enum.StrEnum):
    """What became of a request."""

    GOOD = "200"
    STORE = "503 store"
    PROVIDER = "503 provider"
    API = "502"
    REFUSED = "refused"
    RESET = "cut off"
    SIGNED_OUT = "401"
    OTHER = "other"


_CODES = {
    (503, "store_unavailable"): Kind.STORE,
    (503, "provider_unavailable"): Kind.PROVIDER,
    (502, "upstream_unreachable"): Kind.API,
    (401, "session_expired"): Kind.SIGNED_OUT,
}


@dataclass(frozen=True)
class Lost:
    """A session that ended without anybody's wish."""

    session: int
    phase: str
    at: float


@dataclass
class Phase:
    """What was seen from the beginning of a fault to the beginning of the next one. Times as of one clock."""

    name: str
    began: float
    over: float
    """When the fault was over: what was killed runs again, what stood still goes on."""
    kinds: Counter[Kind] = field(default_factory=Counter)
    others: list[str] = field(default_factory=list)
    slowest: float = 0.0
    first_failure: float | None = None
    last_failure: float | None = None

    def note(self, kind: Kind, words: str, began: float, now: float) -> None:
        """One more request."""
        self.kinds[kind] += 1
        self.slowest = max(self.slowest, now - began)
        if kind is Kind.OTHER:
            self.others.append(words)
        if kind is not Kind.GOOD:
            self.first_failure = self.first_failure or now
            self.last_failure = now

    @property
    def recovery(self) -> float:
        """Seconds from the end of the fault to the last request that failed."""
        return max(0.0, (self.last_failure or 0.0) - self.over)


class Visitors:
    """All of them."""

    def __init__(self, stage: Stage, *, pause: float) -> None:
        """Each rests for `pause` seconds between two requests, more or less."""
        self._stage = stage
        self._pause = pause
        self._signing_in = asyncio.Lock()
        self._tasks: list[asyncio.Task[None]] = []
        self._served: dict[int, float] = {}
        self.phases: list[Phase] = []
        self.lost: list[Lost] = []

    @property
    def phase(self) -> Phase:
        return self.phases[-1]

    def enter(self, name: str) -> Phase:
        """A new phase begins."""
        now = time.monotonic()
        self.phases.append(Phase(name, now, now))
        return self.phase

    async def sign_in(self, number: int) -> None:
        """So many sessions, one after the other: the ledger numbers them in the same order."""
        self.enter("signing in")
        port = self._stage.nodes[0].port
        cookies = await asyncio.to_thread(session_cookies, port, "bff", number)
        self._tasks = [
            asyncio.create_task(self._visit(session, cookie)) for session, cookie in enumerate(cookies, 1)
        ]
        self._served = dict.fromkeys(range(1, number + 1), 0.0)

    async def all_served(self, since: float, within: float) -> bool:
        """Wait until every one of them has been answered well at a time after `since`; False where that takes
        longer than `within` seconds."""
        until = time.monotonic() + within
        while min(self._served.values()) < since:
            if time.monotonic() > until:
                return False
            await asyncio.sleep(0.1)
        return True

    async def leave(self) -> None:
        """No more requests; a visitor that has failed itself is told of."""
        for task in self._tasks:
            task.cancel()
        found = await asyncio.gather(*self._tasks, return_exceptions=True)
        for each in found:
            if isinstance(each, Exception):
                raise each

    async def _visit(self, session: int, cookie: str) -> None:
        visitor = turn = session
        while True:
            await asyncio.sleep(self._pause * random.uniform(0.5, 1.5))
            turn += 1
            node = self._stage.nodes[turn % len(self._stage.nodes)]
            began = time.monotonic()
            kind, words = await ask(node.port, self._stage.origin, cookie)
            self.phase.note(kind, words, began, time.monotonic())
            if kind is Kind.GOOD:
                self._served[visitor] = time.monotonic()
            elif kind is Kind.SIGNED_OUT:
                self.lost.append(Lost(session, self.phase.name, time.monotonic()))
                session, cookie = await self._again()

    async def _again(self) -> tuple[int, str]:
        """Sign in anew, as soon as that goes; the session's number and cookie."""
        async with self._signing_in:
            while True:
                try:
                    browser = await asyncio.to_thread(sign_in, f"{self._stage.origin}/bff/login", "bff")
                except (CannotMeasure, OSError):  # requests' errors are OSErrors
                    await asyncio.sleep(0.5)
                    continue
                if cookie := cookies_for(browser, f"{self._stage.origin}/weather"):
                    return self._stage.front.ledger.sign_ins, cookie


async def ask(port: int, origin: str, cookie: str) -> tuple[Kind, str]:
    """GET /weather on a connection of its own; what came of it, and the words for what should not come."""
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            return judge(await _exchange(port, origin, cookie))
    except ConnectionRefusedError:
        return Kind.REFUSED, ""
    except OSError as error:
        return (Kind.OTHER, "no answer") if isinstance(error, TimeoutError) else (Kind.RESET, "")


async def _exchange(port: int, origin: str, cookie: str) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    leave_no_trace(writer)
    try:
        host = origin.partition("://")[2]
        lines = (
            "GET /weather HTTP/1.1",
            f"Host: {host}",
            "X-CSRF: 1",
            f"Cookie: {cookie}",
            "Connection: close",
        )
        writer.write("\r\n".join(lines).encode() + b"\r\n\r\n")
        return await reader.read()
    finally:
        writer.transport.abort()


def judge(answer: bytes) -> tuple[Kind, str]:
    """What kind of answer these bytes are."""
    head, separator, body = answer.partition(b"\r\n\r\n")
    if not separator:
        return Kind.RESET, ""
    status = int(head[9:12])
    length = next(
        (line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), b":-1"
    )
    if int(length.partition(b":")[2]) != len(body):
        return Kind.RESET, ""
    try:
        document = json.loads(body)
    except ValueError:
        document = None
    if status == 200 and isinstance(document, list):
        return Kind.GOOD, ""
    code = document.get("code", "") if isinstance(document, dict) else ""
    kind = _CODES.get((status, code), Kind.OTHER)
    if kind in (Kind.STORE, Kind.PROVIDER) and b"\r\nretry-after: " not in head.lower():
        return Kind.OTHER, f"{status} {code} without Retry-After"
    return kind, f"{status} {code}"
