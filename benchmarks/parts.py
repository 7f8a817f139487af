"""What each part of a proxied request costs: CPU microseconds in one process, without sockets.

    python -m benchmarks.parts

The server's own connections, data plane and upstream connections run as they are, on transports that hand
bytes over in memory; Redis and the upstream are answers that were written before. What remains to the figures
of `make bench` is the system's: calls that send, receive and wait, and others in the processor's caches.
The figures are the best of many rounds, as everything else on a machine only makes them worse.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import msgspec
import uvicorn
import uvloop
from uvicorn.server import ServerState

from bff.app import create_app
from bff.connection import Protocol
from bff.sealing import Keyring, new_key
from bff.sessions.line import Line
from bff.sessions.record import Codec, Meta, digest, new_sid
from bff.sessions.wire import Wire
from bff.settings import load
from bff.tokens import TokenSet
from bff.upstream.connection import Connection
from bff.upstream.origin import Origin

CONNECTIONS, REQUESTS, ROUNDS = 16, 1000, 40
ROUTES = """
[[routes]]
path = "/weather"
upstream = "http://127.0.0.1:9"

[[routes]]
path = "/open"
upstream = "http://127.0.0.1:9"
token = "none"
anonymous = true
"""
ANSWER = (
    b"HTTP/1.1 200 OK\r\nServer: nginx\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT\r\n"
    b"Content-Type: application/json\r\nContent-Length: 1000\r\nConnection: keep-alive\r\n\r\n" + b"x" * 1000
)
KINDS = {
    "/health/live": "answered at once: parser, path, Host, guard, answer",
    "/open": "and passed upstream: headers both ways, exchange, body",
    "/weather": "and with a session: cookie, question to Redis, token",
}


class Memory(asyncio.Transport):
    """A transport whose peer is a function."""

    def __init__(self, peer: Callable[[bytes], object]) -> None:
        super().__init__({"peername": ("127.0.0.1", 9), "sockname": ("127.0.0.1", 5003)})
        self.write = peer  # type: ignore[method-assign,assignment]

    def is_closing(self) -> bool:
        return False

    def pause_reading(self) -> None:
        """There is always room."""

    def resume_reading(self) -> None:
        """Likewise."""

    def close(self) -> None:
        """Nothing is open."""

    abort = close


def settings(folder: Path, keys: str, **more: str) -> Any:
    """Of a server that nobody reaches over a network."""
    config = folder / "bff.toml"
    config.write_text(ROUTES)
    environ = {
        "BFF_ENV": "development",
        "BFF_CONFIG": str(config),
        "BFF_PUBLIC_URL": "http://localhost:5003",
        "BFF_OIDC_ISSUER": "http://127.0.0.1:9",
        "BFF_OIDC_CLIENT_ID": "client",
        "BFF_OIDC_CLIENT_SECRET": "secret",
        "BFF_REDIS_URL": "redis://127.0.0.1:9/0",
        "BFF_SECRET_KEYS": keys,
    }
    return load(environ | more)


class Bench:
    """One server, and its clients."""

    def __init__(self, folder: Path, **more: str) -> None:
        keys = new_key()
        self._loop = asyncio.get_running_loop()
        loaded = settings(folder, keys, **more)
        codec = Codec(Keyring(loaded.keys), loaded.redis_prefix)
        self._sid, now = new_sid(), time.time()
        key, head = codec.key(digest(self._sid)), msgspec.msgpack.encode(Meta(now, now, "user"))
        tokens = TokenSet(
            access_token="a" * 1100, refresh_token="r" * 1800, obtained_at=now, expires_at=now + 3600
        )
        sealed = codec.seal_tokens(key, head, tokens)
        self.unsealing = microseconds(lambda: codec._open_tokens(key, head, sealed))  # noqa: SLF001
        fields = [head, repr(now).encode(), b"1", sealed]
        self._session = b"*4\r\n" + b"".join(b"$%d\r\n%b\r\n" % (len(field), field) for field in fields)
        with mock.patch("bff.app.wire_to", return_value=Wire(self._line)):
            self._config = uvicorn.Config(create_app(loaded), ws="none", proxy_headers=False)
        self._config.load()

    async def _line(self) -> Line:
        line = Line(self._loop)

        def answer(asked: bytes) -> None:
            self._loop.call_soon(line.data_received, self._session * asked.count(b"HMGET"))

        line.connection_made(Memory(answer))
        return line

    async def round(self, path: str) -> float:
        """Microseconds of one request for `path`. Raises RuntimeError where the answer is not 200."""
        lines = [
            f"GET {path} HTTP/1.1",
            "Host: localhost:5003",
            "X-CSRF: 1",
            f"Cookie: bff={self._sid}",
            "",
            "",
        ]
        request, left, done = "\r\n".join(lines).encode(), REQUESTS, self._loop.create_future()

        def client(connection: Protocol) -> Callable[[bytes], None]:
            def take(answer: bytes) -> None:
                nonlocal left
                left -= 1
                if done.done():
                    return
                if not answer.startswith(b"HTTP/1.1 200 "):
                    done.set_exception(RuntimeError(answer[:200].decode()))
                elif left:
                    self._loop.call_soon(connection.data_received, request)
                else:
                    done.set_result(None)

            return take

        connections = [Protocol(self._config, ServerState(), {}, self._loop) for _ in range(CONNECTIONS)]
        for connection in connections:
            connection.connection_made(Memory(client(connection)))
        began = time.process_time()
        for connection in connections:
            self._loop.call_soon(connection.data_received, request)
        await done
        used = time.process_time() - began
        await asyncio.sleep(0.01)
        for connection in connections:
            connection.connection_lost(None)
        return used / REQUESTS * 1e6


async def upstream(_origin: Origin) -> Connection:
    """A connection to an upstream that says the same each time."""
    loop = asyncio.get_running_loop()
    made = Connection(loop)
    made.connection_made(Memory(lambda _asked: loop.call_soon(made.data_received, ANSWER)))
    return made


def microseconds(call: Callable[[], object], calls: int = 200) -> float:
    """The best of many rounds."""

    def once() -> float:
        began = time.process_time()
        for _ in range(calls):
            call()
        return (time.process_time() - began) / calls * 1e6

    return min(once() for _ in range(ROUNDS))


async def measure(folder: Path) -> None:
    """Measure and print."""
    with mock.patch.object(Origin, "_connect", upstream):
        plain, before = Bench(folder), 0.0
        print("| a request …                                               |    µs | more |")
        print("| --------------------------------------------------------- | ----: | ---: |")
        for path, what in KINDS.items():
            await plain.round(path)
            found = min([await plain.round(path) for _ in range(ROUNDS)])
            print(f"| {what:57} | {found:5.1f} | {found - before:4.1f} |")
            before = found
        measured = Bench(folder, BFF_METRICS_BIND="127.0.0.1:9")
        await measured.round("/weather")
        found = min([await measured.round("/weather") for _ in range(ROUNDS)])
        print(f"| {'and with metrics':57} | {found:5.1f} | {found - before:4.1f} |")
        what = "and where the tokens are not open yet: decrypted"
        print(f"| {what:57} | {'':5} | {plain.unsealing:4.1f} |")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.environ.setdefault("PROMETHEUS_MULTIPROC_DIR", folder)
        uvloop.run(measure(Path(folder)))


if __name__ == "__main__":
    main()
