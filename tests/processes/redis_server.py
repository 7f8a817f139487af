"""A redis-server of our own that can hang, die and come back, with its data or without."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import redis

from tests.conftest import NO_REDIS
from tests.support.wire import until


class RedisServer:
    """Keeps an append-only file that is written with every command."""

    def __init__(self, program: str, folder: Path) -> None:
        self._program = program
        self._folder = folder
        self.url = f"unix://{folder}/redis.sock"
        self.start()

    def start(self) -> None:
        options = ["--port", "0", "--unixsocket", str(self._folder / "redis.sock"), "--save", ""]
        options += ["--appendonly", "yes", "--appendfsync", "always", "--dir", str(self._folder)]
        self._process = subprocess.Popen([self._program, *options], stdout=subprocess.DEVNULL)
        assert until(self._answers, within=20), "Redis did not start"

    def _answers(self) -> bool:
        with contextlib.suppress(redis.RedisError), self.client() as client:
            return bool(client.ping())
        return False

    def stop(self, *, lose: bool = False) -> None:
        """End it as a crash does; `lose` takes its data, too."""
        self._process.kill()
        self._process.wait()
        if lose:
            shutil.rmtree(self._folder / "appendonlydir")

    def hang(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def client(self) -> redis.Redis:
        return redis.Redis.from_url(self.url)

    def _run(self, command: str) -> None:
        with self.client() as client:
            client.execute_command(*command.split())

    @contextmanager
    def trouble(self, kind: str) -> Iterator[None]:
        """Down (as after a crash), hanging, read-only or full, for the length of a block."""
        begin, end = {
            "down": (self.stop, self.start),
            "hanging": (self.hang, self.go_on),
            "read-only": (lambda: self._run("REPLICAOF 127.0.0.1 1"), lambda: self._run("REPLICAOF NO ONE")),
            "full": (
                lambda: self._run("CONFIG SET maxmemory-policy noeviction maxmemory 1"),
                lambda: self._run("CONFIG SET maxmemory 0"),
            ),
        }[kind]
        begin()
        try:
            yield
        finally:
            end()

    def commands(self) -> dict[str, int]:
        """How often each command was called by others."""
        with self.client() as client:
            stats = client.info("commandstats")
        own = {"cmdstat_info", "cmdstat_config|set", "cmdstat_client|setinfo", "cmdstat_hello"}
        return {name: value["calls"] for name, value in stats.items() if name not in own}


@contextmanager
def redis_server() -> Iterator[RedisServer]:
    """One for the length of a block; skips where there is none to run."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip(NO_REDIS)
    with TemporaryDirectory(prefix="bff-redis-") as folder:  # short: a socket's path has 107 bytes
        server = RedisServer(program, Path(folder))
        try:
            yield server
        finally:
            server.stop()
