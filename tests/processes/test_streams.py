"""Streams over several nodes: they end wherever they are open, and many of them cost little."""

from __future__ import annotations

import asyncio
import contextlib
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bff.sessions.ending import Reason
from bff.sessions.record import Meta, digest, new_sid
from bff.tokens import TokenSet
from tests.processes.fleet import HOST, Fleet, Node, Visitor, fleet
from tests.support.events import feed
from tests.support.stopwatch import Stopwatch
from tests.support.websocket import TEXT, echo_frames, websocket
from tests.support.wire import happens

MANY = 2000
MOST_BYTES = 150 * 1024 * 1024
ROUTES = """
[[routes]]
path = "/events"
upstream = "http://127.0.0.1:PORT"
stream = "sse"
timeout_seconds = 90

[[routes]]
path = "/socket"
upstream = "UPSTREAM"
stream = "websocket"
"""


class SilentUpstream:
    """Begins a stream of events for everybody and says nothing more, in a thread of its own."""

    def __init__(self) -> None:
        self.port = 0
        self.open = 0
        self._writers: set[asyncio.StreamWriter] = set()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        self._thread.start()
        assert self._ready.wait(20)

    async def _serve(self) -> None:
        self._loop, self._done = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._answer, "127.0.0.1", 0, backlog=MANY)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._done.wait()
        server.close()
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.sleep(0.1)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n: hello\n\n")
            self.open += 1
            await reader.read()
            self.open -= 1
        self._writers.discard(writer)
        writer.close()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._done.set)
        self._thread.join(5)


@pytest.fixture(scope="module")
def silent() -> Iterator[SilentUpstream]:
    upstream = SilentUpstream()
    yield upstream
    upstream.close()


@pytest.fixture(scope="module")
def nodes(silent: SilentUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    config = tmp_path_factory.mktemp("streams") / "bff.toml"
    config.touch()
    with fleet(0, config=str(config)) as found:
        routes = ROUTES.replace("PORT", str(silent.port)).replace("UPSTREAM", found.upstream.url)
        config.write_text(routes)
        found.nodes = found.start(2)
        yield found


def sent(cookie: str) -> dict[str, str]:
    return {"Host": HOST, "Origin": f"http://{HOST}", "Cookie": f"bff={cookie}"}


def plant_many(nodes: Fleet) -> list[str]:
    """The cookies of a tenth as many sessions: ten streams are for each."""
    cookies, now = [new_sid() for _ in range(MANY // 10)], time.time()
    tokens = TokenSet(access_token="a" * 1100, refresh_token="r", obtained_at=now, expires_at=now + 300)
    for number, cookie in enumerate(cookies):
        nodes.store.begin(digest(cookie), Meta(now, now, f"user{number}"), tokens, {})
    return cookies * 10


def sign_out(there: Fleet, visitor: Visitor) -> str:
    assert there.nodes[1].post("/bff/logout", visitor).status == 200
    return "signed_out"


def revoke(there: Fleet, visitor: Visitor) -> str:
    assert there.store.end(visitor.digest, Reason.REVOKED)
    return "revoked"


@pytest.mark.parametrize("end", [sign_out, revoke])
def test_all_streams_on_all_nodes_end(nodes: Fleet, end: object) -> None:
    """Whatever node ends a session, its streams on all nodes end within two seconds, with the reason."""
    visitor = nodes.plant("fresh")
    nodes.upstream.script = echo_frames
    with contextlib.ExitStack() as streams:
        told = [
            streams.enter_context(feed(node.port, "/bff/events", sent(visitor.cookie)))
            for node in nodes.nodes
        ]
        proxied = [
            streams.enter_context(feed(node.port, "/events", sent(visitor.cookie))) for node in nodes.nodes
        ]
        sockets = [
            streams.enter_context(websocket(node.port, "/socket", dict(sent(visitor.cookie))))
            for node in nodes.nodes
        ]
        for each in sockets:
            each.send(b"x", TEXT)
            assert each.receive() == (True, TEXT, b"x")
        assert [each.status for each in [*told, *proxied]] == [200] * 4
        reason = end(nodes, visitor)  # type: ignore[operator]
        watch = Stopwatch()
        assert all(each.ends_within(2) for each in [*told, *proxied])
        assert all(each.line.closed(2) for each in sockets)
        assert watch.own < 2.1
        for stream in told:
            assert [event.data for event in stream.named()] == [{"reason": reason}]


async def open_all(port: int, cookies: list[str], opened: list[asyncio.StreamWriter]) -> list[bytes]:
    """So many streams at once, into `opened`; the heads that were not those of a stream. A node that cannot
    ask Redis in time, on a busy machine, says 503: then it is tried again, as front ends do."""
    gate = asyncio.Semaphore(50)

    async def one(cookie: str) -> bytes:
        lines = ["GET /events HTTP/1.1", *(f"{name}: {value}" for name, value in sent(cookie).items())]
        async with gate:
            for _ in range(5):
                reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
                opened.append(writer)
                writer.write("\r\n".join([*lines, "", ""]).encode())
                head = await reader.readuntil(b"\r\n\r\n")
                if b" 503 " not in head:
                    break
                await asyncio.sleep(1)
            return head

    heads = await asyncio.gather(*map(one, cookies))
    return [head for head in heads if b" 200 " not in head]


def memory(node: Node) -> int:
    """What the worker holds: its own memory, and its share of what it shares."""
    text = Path(f"/proc/{node.worker}/smaps_rollup").read_text()
    found = re.search(r"^Pss: +(\d+) kB", text, re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


def cpu_seconds(node: Node) -> float:
    fields = Path(f"/proc/{node.worker}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


@pytest.mark.timeout(240)
def test_many_idle_streams(nodes: Fleet, silent: SilentUpstream) -> None:
    """Two thousand idle streams of two hundred sessions fit into one worker, hardly busy with them."""
    node = nodes.nodes[0]
    cookies = plant_many(nodes)

    async def hold() -> tuple[int, float]:
        opened: list[asyncio.StreamWriter] = []
        try:
            assert await open_all(node.port, cookies, opened) == [], (silent.open, node.output[-2000:])
            assert await happens(lambda: silent.open == MANY)
            before = cpu_seconds(node)
            await asyncio.sleep(3)
            return memory(node), (cpu_seconds(node) - before) / 3
        finally:
            for writer in opened:
                writer.close()
            await asyncio.gather(*(writer.wait_closed() for writer in opened))

    held, load = asyncio.run(hold())
    assert held < MOST_BYTES
    assert load < 0.3
