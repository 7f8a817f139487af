"""What all systems share in a run: one upstream, one slow upstream, one Redis, one identity provider."""

from __future__ import annotations

import json
import os
import shutil
import sys
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import requests

from benchmarks.proxy.programs import CannotMeasure, Program, free_port

ROOT = Path(__file__).parent.parent.parent
SCOPE = "openid email profile api://weather/access"
CLIENT_ID, CLIENT_SECRET = "benchmark", "a-secret-that-lives-as-long-as-this-run"
BODY = json.dumps(
    [
        {
            "date": f"2026-01-{day:02}",
            "temperatureC": day - 5,
            "summary": "Mild, with a light wind from the west",
        }
        for day in range(1, 12)
    ]
)
"""The upstream's answer, about 1 KB."""
PYTHON = {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}

NGINX = """
daemon off; pid {name}.pid; error_log {name}.error.log; worker_processes {workers};
events {{ worker_connections 8192; }}
http {{
  access_log off; keepalive_timeout 600; keepalive_requests 1000000000; underscores_in_headers on;
  client_body_temp_path {name}.body; proxy_temp_path {name}.proxy; fastcgi_temp_path {name}.fastcgi;
  uwsgi_temp_path {name}.uwsgi; scgi_temp_path {name}.scgi;
  {content}
}}
"""
# A request without an access token is refused, so that a 200 proves that the proxy sent one.
UPSTREAM = """
  map "$http_authorization$http_oidc_access_token$http_x_forwarded_access_token" $token {{ "" 0; default 1; }}
  server {{
    listen 127.0.0.1:{port};
    location = /weather {{
      default_type application/json;
      if ($token = 0) {{ return 403; }}
      return 200 '{body}';
    }}
    location = /counted {{ stub_status; }}
  }}
"""


def require(program: str, hint: str) -> str:
    """The path of a program. Raises CannotMeasure with the hint where it is missing."""
    places = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
    found = shutil.which(program, path=places)
    if found is None:
        raise CannotMeasure(f"{program} is missing: {hint}")
    return found


@dataclass(frozen=True)
class Provider:
    """An identity provider of this run."""

    program: Program
    issuer: str


@dataclass
class World:
    """What a run has started. `close` ends it all."""

    directory: Path
    python: str = sys.executable
    """Runs our own server: the interpreter of an installation without what only tests need."""
    _stack: ExitStack = field(default_factory=ExitStack)
    redis: Program = field(init=False)
    upstream: Program = field(init=False)
    slow: Program = field(init=False)

    def __post_init__(self) -> None:
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    def _start(self) -> None:
        redis = require("redis-server", "apt install redis-server")
        require("wrk", "apt install wrk")
        port = free_port()
        options = f"--port {port} --bind 127.0.0.1 --appendonly no --daemonize no".split()
        self.redis = self.start("redis", [redis, *options, "--save", ""], port)
        port = free_port()
        self.upstream = self.start_nginx("upstream", port, UPSTREAM.format(port=port, body=BODY), workers=1)
        port = free_port()
        argv = [sys.executable, "-m", "benchmarks.proxy.slow_upstream", str(port)]
        self.slow = self.start("slow-upstream", argv, port, PYTHON)

    @property
    def redis_url(self) -> str:
        return f"redis://127.0.0.1:{self.redis.port}/0"

    def start(self, name: str, argv: list[str], port: int, environ: dict[str, str] | None = None) -> Program:
        """Start a program that ends with this world."""
        program = Program(name, argv, port, self.directory, environ or {})
        self._stack.callback(program.stop)
        return program.start()

    def start_nginx(self, name: str, port: int, content: str, workers: int) -> Program:
        """Start nginx with the content of its `http` block."""
        nginx = require("nginx", "apt install nginx")
        file = self.directory / f"{name}.conf"
        file.write_text(NGINX.format(name=name, workers=workers, content=content))
        return self.start(name, [nginx, "-p", str(self.directory), "-c", str(file)], port)

    def start_provider(
        self,
        callbacks: list[str],
        token_seconds: int,
        name: str = "provider",
        *,
        public_port: int | None = None,
    ) -> Provider:
        """Start a local identity provider that knows these redirect URIs, and is known by its own port or by
        that of who is in front of it."""
        port = free_port()
        public_port = public_port or port
        issuer = f"http://localhost:{public_port}/local_pool"
        environ = {
            "IDP_BIND": f"127.0.0.1:{port}",
            "IDP_ISSUER": issuer,
            "IDP_PUBLIC_URL": f"http://127.0.0.1:{public_port}",
            "IDP_CLIENT_ID": CLIENT_ID,
            "IDP_CLIENT_SECRET": CLIENT_SECRET,
            "IDP_REDIRECT_URIS": ",".join(callbacks),
            "IDP_LOGOUT_URIS": "http://localhost/",
            "IDP_ACCESS_TOKEN_SECONDS": str(token_seconds),
            "IDP_LOG_LEVEL": "debug",
        }
        program = self.start(name, [sys.executable, "-m", "bff", "idp"], port, PYTHON | environ)
        return Provider(program, issuer)

    def upstream_requests(self) -> int:
        """How many requests the upstream has had."""
        text = requests.get(f"http://127.0.0.1:{self.upstream.port}/counted", timeout=10).text
        return int(text.splitlines()[2].split()[2])

    def close(self) -> None:
        self._stack.close()
