"""`docker compose` on a copy of the checkout, so that a run meets what a newcomer meets."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent
COPIED = (
    "Dockerfile",
    ".dockerignore",
    "docker-compose.yml",
    "docker-compose.scale.yml",
    "Makefile",
    "requirements.lock",
    "pyproject.toml",
    "README.md",
    "LICENSE",
    "bff",
    "templates",
    "static",
    "deploy",
)
UP_SECONDS = 240
TOKEN_SECONDS = 20
"""How long access tokens live in these stacks."""


def copy_checkout(folder: Path) -> None:
    """What a fresh checkout has, as far as containers need it; without anybody's secrets."""
    for name in COPIED:
        source, target = ROOT / name, folder / name
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "secrets"))
        else:
            shutil.copy2(source, target)


@dataclass
class Compose:
    """One of the compose files, as a project of its own."""

    folder: Path
    file: str
    project: str
    image: str
    bff_port: int
    idp_port: int
    settings: dict[str, str] = field(default_factory=dict)
    """More of what .env may hold."""

    @property
    def url(self) -> str:
        return f"http://localhost:{self.bff_port}"

    @property
    def idp_url(self) -> str:
        return f"http://127.0.0.1:{self.idp_port}"

    def __call__(self, *arguments: str, check: bool = True, seconds: float = 60) -> str:
        """The output of a `docker compose` command, its errors included."""
        command = ["docker", "compose", "-f", self.file, "--project-name", self.project, *arguments]
        result = subprocess.run(
            command,
            cwd=self.folder,
            env=self.environ(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=seconds,
        )
        assert not check or result.returncode == 0, f"{' '.join(command)}\n{result.stdout}"
        return result.stdout

    def environ(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("BFF_", "API_", "IDP_", "COMPOSE_"))}
        ports = {"BFF_PORT": str(self.bff_port), "IDP_PORT": str(self.idp_port)}
        short = {"IDP_ACCESS_TOKEN_SECONDS": str(TOKEN_SECONDS)}
        return kept | ports | short | {"BFF_IMAGE": self.image} | self.settings

    def up(self, *options: str) -> None:
        """Start what is not running, and wait until it is healthy."""
        try:
            self(
                "up",
                "--detach",
                "--wait",
                "--wait-timeout",
                str(UP_SECONDS),
                *options,
                seconds=UP_SECONDS * 2,
            )
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.logs()}") from None

    def down(self) -> None:
        """Stop everything and forget it."""
        self("down", "--volumes", "--timeout", "10", check=False)

    def logs(self, *services: str) -> str:
        return self("logs", "--no-color", *services, check=False)

    def execute(self, service: str, *command: str, check: bool = True) -> str:
        """The output of a command inside a running container."""
        return self("exec", "-T", service, *command, check=check)

    def redis(self, service: str, *command: str) -> str:
        """The answer of a Redis of the project."""
        script = 'REDISCLI_AUTH=$(cat /run/secrets/redis-password) exec redis-cli --no-auth-warning "$@"'
        return self.execute(service, "sh", "-c", script, "redis-cli", *command)

    def containers(self) -> dict[str, dict[str, Any]]:
        """What the engine knows of each container, by service."""
        ids = self("ps", "--all", "--quiet").split()
        result = subprocess.run(["docker", "inspect", *ids], capture_output=True, text=True, check=True)
        label = "com.docker.compose.service"
        return {found["Config"]["Labels"][label]: found for found in json.loads(result.stdout)}
