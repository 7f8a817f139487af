"""nginx with the configuration of docker-compose.scale.yml, in front of nodes on this machine."""

from __future__ import annotations

import getpass
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from benchmarks.proxy.programs import free_port
from tests.support.wire import until

CONFIGURATION = Path(__file__).parents[2] / "deploy" / "compose" / "nginx" / "nginx.conf"
NO_NGINX = (
    "nginx is not on this machine; to run these tests, install it (Debian and Ubuntu: apt install nginx)"
)


def _configured(ports: tuple[int, int], port: int, folder: str, changes: dict[str, str]) -> str:
    text = CONFIGURATION.read_text()
    places = {
        "bff-1:5003": f"127.0.0.1:{ports[0]}",
        "bff-2:5003": f"127.0.0.1:{ports[1]}",
        "listen 8080;": f"listen 127.0.0.1:{port};",
        "listen 127.0.0.1:8081;": f"listen 127.0.0.1:{free_port()};",
        "worker_processes auto;": "worker_processes 1;",
        " /tmp/": f" {folder}/",
        "/dev/stdout": f"{folder}/access.log",
        "/dev/stderr": f"{folder}/error.log",
    }
    for old, new in (places | changes).items():
        assert old in text, old
        text = text.replace(old, new)
    return re.sub(r"\Z", "\n", text)


@contextmanager
def nginx(ports: tuple[int, int], changes: dict[str, str] | None = None) -> Iterator[int]:
    """Its port, for the length of a block; `changes` are made to the text of the configuration."""
    program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        pytest.skip(NO_NGINX)
    port = free_port()
    with TemporaryDirectory() as folder:
        file = Path(folder) / "nginx.conf"
        file.write_text(_configured(ports, port, folder, changes or {}))
        user = f"user {getpass.getuser()};" if os.geteuid() == 0 else ""  # the folder is ours alone
        command = [program, "-p", folder, "-c", str(file), "-g", f"daemon off; {user}"]
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        try:
            assert until(lambda: _listens(port), within=20), "nginx does not listen"
            yield port
        finally:
            process.terminate()
            process.wait(10)


def _listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False
