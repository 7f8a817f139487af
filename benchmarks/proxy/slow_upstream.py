"""An upstream that answers `/slow` after one second, and `/stream` with an event stream that stays idle.

    python -m benchmarks.proxy.slow_upstream PORT

It reads heads and knows no bodies: the benchmark sends none.
"""

from __future__ import annotations

import asyncio
import sys
from typing import cast

import uvloop

from benchmarks.proxy.world import BODY

SECONDS = 1.0
SLOW = (
    f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(BODY)}\r\n\r\n{BODY}"
).encode()
STREAM = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-store\r\n"
    b"Transfer-Encoding: chunked\r\n\r\nf\r\ndata: welcome\n\n\r\n"
)
TOKENS = (b"\r\nauthorization:", b"\r\noidc_access_token:", b"\r\nx-forwarded-access-token:")
"""The headers that a proxy may send the access token in; without one the answer is 403."""
REFUSED = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"
MISSING = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"


class Upstream(asyncio.Protocol):
    """One connection."""

    def __init__(self) -> None:
        self._read = b""
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.WriteTransport", transport)  # uvloop's own is no subclass

    def connection_lost(self, _reason: Exception | None) -> None:
        self._transport = None

    def data_received(self, data: bytes) -> None:
        self._read += data
        while b"\r\n\r\n" in self._read:
            head, _, self._read = self._read.partition(b"\r\n\r\n")
            path = head.split(b" ", 2)[1]
            if not any(name in head.lower() for name in TOKENS):
                self._send(REFUSED)
            elif path == b"/slow":
                asyncio.get_running_loop().call_later(SECONDS, self._send, SLOW)
            else:
                self._send(STREAM if path == b"/stream" else MISSING)

    def _send(self, answer: bytes) -> None:
        if self._transport is not None:
            self._transport.write(answer)


async def serve(port: int) -> None:
    """Listen until the process ends."""
    server = await asyncio.get_running_loop().create_server(Upstream, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
