"""Stands before the token endpoint, as a load balancer would: keeps the ledger, and can be slow."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
import struct
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from benchmarks.chaos.ledger import Ledger, Redeem

LATENCY_SECONDS = 0.1
"""A provider is not on the same machine: so long takes the way there, and so long the way back."""
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
_SECONDS = 60.0


class Front:
    """The origin that discovery names for token, UserInfo and revocation. Runs in one event loop."""

    def __init__(
        self, port: int, provider_port: int, ledger: Ledger, workers: Callable[[], Iterable[int]]
    ) -> None:
        """`workers` are the processes that may be at the other end of a connection."""
        self.port = port
        self.there = self.back = LATENCY_SECONDS
        self.ledger = ledger
        self._provider_port = provider_port
        self._workers = workers
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._on_the_way: list[Redeem] = []

    async def open(self) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)

    async def close(self) -> None:
        """Be gone, as the provider behind is: no listener, and all connections are cut."""
        if self._server is None:
            return
        for listener in self._server.sockets:
            asyncio.get_running_loop().remove_reader(listener.fileno())
        for _ in range(3):  # asyncio would forget a connection that is between accepted and known
            await asyncio.sleep(0)
        self._server.close()
        self._server = None
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def answer_on_the_way(self, among: Iterable[int], within: float) -> int | None:
        """The id of one of those processes to which tokens are under way; None if there is none in time."""
        wanted, until = set(among), time.monotonic() + within
        while time.monotonic() < until:
            for redeem in self._on_the_way:
                if redeem.process in wanted:
                    return redeem.process
            await asyncio.sleep(0.005)
        return None

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        # Also where it is cancelled before it has begun.
        task.add_done_callback(lambda _: writer.transport.abort())

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = writer.get_extra_info("peername")
        process = await asyncio.to_thread(owner, peer[1], self.port, self._workers())
        try:
            while await self._exchange(reader, writer, process):
                pass
        except (OSError, EOFError, ValueError, TimeoutError):
            pass  # either side has hung up: what that means is in the ledger

    async def _exchange(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, process: int
    ) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        length = _LENGTH.search(head)
        body = await reader.readexactly(int(length[1])) if length else b""
        began = time.monotonic()
        redeem = self._begin(head, body, process, began)
        await asyncio.sleep(self.there)
        async with asyncio.timeout(_SECONDS):
            answer = await self._forward(head, body)
        self._note(head, body, redeem, answer, began)
        await self._way_back(redeem)
        if reader.at_eof() or reader.exception() is not None or writer.is_closing():
            return False
        writer.write(answer)
        await writer.drain()
        if redeem is not None:
            redeem.delivered = time.monotonic()
        return True

    async def _way_back(self, redeem: Redeem | None) -> None:
        if redeem is None or redeem.status != 200:
            await asyncio.sleep(self.back)
            return
        self._on_the_way.append(redeem)
        try:
            await asyncio.sleep(self.back)
        finally:
            self._on_the_way.remove(redeem)

    async def _forward(self, head: bytes, body: bytes) -> bytes:
        """Ask the provider on a connection of its own; the answer as it stands on one that is kept."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._provider_port)
        leave_no_trace(writer)
        try:
            lines = [line for line in head.split(b"\r\n")[:-2] if not line.lower().startswith(b"connection:")]
            writer.write(b"\r\n".join([*lines, b"Connection: close", b"", body]))
            found, _, content = (await reader.read()).partition(b"\r\n\r\n")
        finally:
            writer.transport.abort()
        if not (length := _LENGTH.search(found + b"\r\n")) or int(length[1]) != len(content):
            raise EOFError
        kept = [line for line in found.split(b"\r\n") if not line.lower().startswith(b"connection:")]
        return b"\r\n".join([*kept, b"", content])

    def _begin(self, head: bytes, body: bytes, process: int, now: float) -> Redeem | None:
        form = _form(head, body)
        if form.get("grant_type") != "refresh_token":
            return None
        return self.ledger.begin(form.get("refresh_token", ""), process, now)

    def _note(self, head: bytes, body: bytes, redeem: Redeem | None, answer: bytes, began: float) -> None:
        status, document = int(answer.split(b" ", 2)[1]), _document(answer)
        if redeem is not None:
            self.ledger.answered(redeem, status, document)
        elif status == 200 and _form(head, body).get("grant_type") == "authorization_code":
            self.ledger.signed_in(document, began)


def leave_no_trace(writer: asyncio.StreamWriter) -> None:
    """Close with a reset: thousands of connections in TIME_WAIT make `owner` slow, and the provider
    with it."""
    option = struct.pack("ii", 1, 0)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, option)


def owner(port: int, to: int, among: Iterable[int]) -> int:
    """Which process of those has the connection from this port to that one on loopback; 0: none."""
    wanted = f":{port:04X} ", f":{to:04X} "
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if f"{fields[1]} ".endswith(wanted[0]) and f"{fields[2]} ".endswith(wanted[1]):
            return next((process for process in among if _holds(process, fields[9])), 0)
    return 0


def _holds(process: int, inode: str) -> bool:
    with contextlib.suppress(OSError):
        for entry in Path(f"/proc/{process}/fd").iterdir():
            with contextlib.suppress(OSError):
                if str(entry.readlink()) == f"socket:[{inode}]":
                    return True
    return False


def _form(head: bytes, body: bytes) -> dict[str, str]:
    if not head.startswith(b"POST /oauth2/token "):
        return {}
    return {name: values[0] for name, values in parse_qs(body.decode("ascii", "replace")).items()}


def _document(answer: bytes) -> dict[str, Any]:
    try:
        found = json.loads(answer.partition(b"\r\n\r\n")[2])
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
