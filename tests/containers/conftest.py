"""A Docker engine, the images, and a checkout with fresh secrets; or the reason why there is none."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.containers.compose import ROOT, Compose, copy_checkout
from tests.e2e.chromium import browser, open_page
from tests.e2e.stack import free_ports

__all__ = ["browser", "open_page"]  # fixtures

NO_ENGINE = (
    "needs a Docker engine that answers, and Compose 2.24 or newer "
    "(https://docs.docker.com/engine/install/; then `docker compose ls` must work)"
)
PROJECT = f"bff-test-{os.getpid()}"
IMAGE = f"{PROJECT}:test"


def answers(*command: str) -> bool:
    """Whether a docker command works."""
    if shutil.which("docker") is None:
        return False
    return subprocess.run(["docker", *command], capture_output=True, timeout=600).returncode == 0


@pytest.fixture(scope="session")
def engine() -> Iterator[None]:
    """Skips where there is no engine, or an image that the files name cannot be had."""
    if not (answers("compose", "ls") and answers("version")):
        pytest.skip(NO_ENGINE)
    for image in sorted(foreign_images()):
        if not answers("image", "inspect", image) and not answers("pull", image):
            pytest.skip(f"needs the image {image}, which cannot be pulled here (docker pull {image})")
    yield
    subprocess.run(["docker", "image", "rm", "--force", IMAGE], capture_output=True, check=False)


def foreign_images() -> set[str]:
    """Images that the Dockerfile and the compose files take from elsewhere."""
    named = set(re.findall(r"^FROM (\S+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE))
    for file in ("docker-compose.yml", "docker-compose.scale.yml"):
        named |= set(re.findall(r"^ +image: (\w+:\w+)$", (ROOT / file).read_text(), re.MULTILINE))
    return named


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of this checkout with secrets, made as the README says."""
    folder = tmp_path_factory.mktemp("containers") / "checkout"
    folder.mkdir()
    copy_checkout(folder)
    subprocess.run(["make", "--silent", "secrets"], cwd=folder, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def alone(engine: None, checkout: Path) -> Iterator[Compose]:
    """docker-compose.yml, running."""
    bff_port, idp_port = free_ports(2)
    stack = Compose(checkout, "docker-compose.yml", PROJECT, IMAGE, bff_port, idp_port)
    try:
        stack.up("--build")
        yield stack
    finally:
        stack.down()


@pytest.fixture(scope="module")
def scaled(engine: None, checkout: Path) -> Iterator[Compose]:
    """docker-compose.scale.yml, running."""
    bff_port, idp_port = free_ports(2)
    settings = {"WEB_PREFIX": "172.16.252"}
    name = f"{PROJECT}-scale"
    stack = Compose(checkout, "docker-compose.scale.yml", name, IMAGE, bff_port, idp_port, settings)
    try:
        stack.up("--build")
        yield stack
    finally:
        stack.down()
