"""A peer that speaks Redis's protocol as a test wants it to, in the test's own event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import hiredis

Command = list[bytes]
HANG = b""
HANG_UP = b"hang up"


class Peer:
    """Answers each command with the bytes that `script` gives: HANG is none, HANG_UP ends the connection."""

    def __init__(self, script: Callable[[Command], bytes]) -> None:
        self.script = script
        self.commands: list[Command] = []
        self.connections = 0
        self.open = 0
        self.port = 0
        self._writers: list[asyncio.StreamWriter] = []

    @property
    def place(self) -> tuple[str, int]:
        return ("127.0.0.1", self.port)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, to its end."""
        self.connections += 1
        self.open += 1
        self._writers.append(writer)
        try:
            await self._answer(reader, writer)
        except ConnectionError:
            pass
        finally:
            self.open -= 1
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        parser = hiredis.Reader()
        while data := await reader.read(65536):
            parser.feed(data)
            while (command := parser.gets()) is not False:
                self.commands.append(command)
                answer = self.script(command)
                if answer == HANG_UP:
                    writer.transport.abort()
                    return
                writer.write(answer)

    def close(self) -> None:
        """End all connections."""
        for writer in self._writers:
            writer.transport.abort()


def bulk(text: str | bytes) -> bytes:
    """A string as Redis answers it."""
    raw = text.encode() if isinstance(text, str) else text
    return b"$%d\r\n%s\r\n" % (len(raw), raw)


def array(*items: bytes) -> bytes:
    """A list of answers."""
    return b"*%d\r\n%s" % (len(items), b"".join(items))


def echo(command: Command) -> bytes:
    """Answers with the command's last word."""
    return b"+OK\r\n" if command[0] in (b"AUTH", b"SELECT") else bulk(command[-1])


@asynccontextmanager
async def peer(script: Callable[[Command], bytes] = echo, path: str | None = None) -> AsyncIterator[Peer]:
    """One for the length of a block, on loopback or on a socket."""
    made = Peer(script)
    if path is None:
        server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
        made.port = server.sockets[0].getsockname()[1]
    else:
        server = await asyncio.start_unix_server(made.serve, path)
    try:
        yield made
    finally:
        server.close()
        made.close()
        await asyncio.sleep(0.02)  # also for whoever has only just been accepted
