"""What the compose files promise can be read from them, engine or not."""

from __future__ import annotations

import re
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from bff.sealing import parse_key
from tests.containers.compose import ROOT, copy_checkout

ALONE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SCALED: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.scale.yml").read_text())
IMAGE = "${BFF_IMAGE:-bff:local}"
SERVICES = [(file, name) for file in (ALONE, SCALED) for name in file["services"]]


def service(file: dict[str, Any], name: str) -> dict[str, Any]:
    """A service with what it takes from docker-compose.yml."""
    found = file["services"][name]
    base = found.get("extends")
    assert base is None or base["file"] == "docker-compose.yml"
    whole: dict[str, Any] = found if base is None else ALONE["services"][base["service"]] | found
    return whole


def ids(value: Any) -> str | None:
    return value.get("name") if isinstance(value, dict) else None


@pytest.mark.parametrize(("file", "name"), SERVICES, ids=ids)
def test_every_container_is_fenced_in(file: dict[str, Any], name: str) -> None:
    """No service writes to its root, has or gains a capability, is root, or goes without a health check."""
    found = service(file, name)
    assert found["read_only"] is True
    assert found["cap_drop"] == ["ALL"]
    assert found["security_opt"] == ["no-new-privileges:true"]
    assert found["healthcheck"]["test"][0] == "CMD"
    ours = found["image"] == IMAGE  # the Dockerfile says who runs it
    assert ours or found["user"] in {"redis", "nginx"}
    assert not {"privileged", "cap_add", "network_mode", "pid", "devices"} & found.keys()


@pytest.mark.parametrize("file", [ALONE, SCALED], ids=ids)
def test_one_image_is_built_once(file: dict[str, Any]) -> None:
    """All programs run from one image; two builds under one name would differ, and `up` would begin anew."""
    programs = [name for name in file["services"] if service(file, name)["image"] == IMAGE]
    builders = [name for name in programs if "build" in service(file, name)]
    assert len(programs) > 2
    assert len(builders) == 1
    never = [name for name in programs if service(file, name).get("pull_policy") == "never"]
    assert sorted([*never, *builders]) == sorted(programs)


def test_the_image_runs_as_nobody_in_particular() -> None:
    """The last user that the Dockerfile names is a number, and not root's."""
    users = re.findall(r"^USER (\S+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert users == ["10001:10001"]


@pytest.mark.parametrize(
    ("file", "published"), [(ALONE, {"bff", "idp"}), (SCALED, {"nginx", "idp"})], ids=ids
)
def test_only_the_way_in_is_published(file: dict[str, Any], published: set[str]) -> None:
    """Ports are published on loopback alone, by the BFF (or nginx) and the local provider."""
    ports = {name: service(file, name).get("ports", []) for name in file["services"]}
    assert {name for name, open_ports in ports.items() if open_ports} == published
    assert all(port.startswith("127.0.0.1:") for open_ports in ports.values() for port in open_ports)


@pytest.mark.parametrize("file", [ALONE, SCALED], ids=ids)
def test_redis_and_the_api_have_no_way_out(file: dict[str, Any]) -> None:
    """Redis, the sentinels and the API have internal networks alone; only the BFF shares one with Redis."""
    internal = {name for name, network in file["networks"].items() if network.get("internal")}
    on = {name: set(service(file, name)["networks"]) for name in file["services"]}
    for name, networks in on.items():
        if name.startswith(("redis", "sentinel", "api")):
            assert networks <= internal, name
        if "sessions" in networks:
            assert name.startswith(("redis", "sentinel", "bff")), name


def test_a_node_is_the_bff() -> None:
    """The nodes are what `bff` is, apart from the way in, the way to Redis and the trusted proxy."""
    bff = ALONE["services"]["bff"]
    for name in ("bff-1", "bff-2"):
        node = SCALED["services"][name]
        own = {"BFF_REDIS_URL_FILE", "BFF_TRUSTED_PROXIES"}
        shared = {key: value for key, value in bff["environment"].items() if key not in own}
        assert shared == {key: value for key, value in node["environment"].items() if key not in own}
        for key in bff.keys() - {
            "build",
            "environment",
            "pull_policy",
            "ports",
            "networks",
            "depends_on",
            "secrets",
        }:
            assert node[key] == bff[key], key


def test_no_secret_is_in_a_compose_file() -> None:
    """Whatever is secret comes from a file below deploy/compose/secrets."""
    for file in (ALONE, SCALED):
        for given in file["secrets"].values():
            assert given["file"].startswith("deploy/compose/secrets/")
        for name in file["services"]:
            for variable, value in service(file, name).get("environment", {}).items():
                secret = re.search(r"SECRET|PASSWORD|KEYS|REDIS_URL", variable)
                assert not secret or value.startswith("/run/secrets/"), variable


@pytest.fixture
def fresh(tmp_path: Path) -> Path:
    """A checkout without secrets."""
    copy_checkout(tmp_path)
    return tmp_path


def make_secrets(folder: Path) -> str:
    return subprocess.run(
        ["make", "--silent", "secrets"], cwd=folder, check=True, capture_output=True, text=True
    ).stdout


def secrets_of(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in (folder / "deploy/compose/secrets").iterdir()}


def test_one_command_makes_all_secrets(fresh: Path) -> None:
    """Every secret that a compose file names is made, in a folder for its owner alone; none is printed."""
    said = make_secrets(fresh)
    made = secrets_of(fresh)
    assert set(made) == ALONE["secrets"].keys() | SCALED["secrets"].keys()
    assert len(parse_key(made["bff-secret-keys"].strip())) == 32
    assert made["redis-url"] == f"redis://:{made['redis-password'].strip()}@redis:6379/0\n"
    folder = fresh / "deploy/compose/secrets"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o644}
    assert (fresh / ".env").read_text().endswith("COMPOSE_PROFILES=local\n")
    assert not [value for value in made.values() if value.strip() in said]
    assert len(set(made.values())) == len(made)


def test_secrets_are_kept(fresh: Path) -> None:
    """A second run changes nothing; a secret that was removed is made anew, and so is what is made of it."""
    make_secrets(fresh)
    before = secrets_of(fresh)
    assert "nothing to make" in make_secrets(fresh)
    assert secrets_of(fresh) == before
    (fresh / "deploy/compose/secrets/redis-password").unlink()
    make_secrets(fresh)
    after = secrets_of(fresh)
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"redis-password", "redis-url", "redis-sentinel-url"}


def test_what_is_yours_stays(fresh: Path) -> None:
    """An .env that is there, and the address of a Redis elsewhere, are not touched."""
    make_secrets(fresh)
    url = fresh / "deploy/compose/secrets/redis-url"
    url.unlink()
    url.write_text("rediss://app:mine@cache.example.com:6379/0\n")
    (fresh / ".env").write_text("BFF_PORT=8003\n")
    assert "add the line: COMPOSE_PROFILES=local" in make_secrets(fresh)
    assert url.read_text() == "rediss://app:mine@cache.example.com:6379/0\n"
    assert (fresh / ".env").read_text() == "BFF_PORT=8003\n"


def test_secrets_are_committed_and_copied_nowhere() -> None:
    """git ignores them, and the image's build is not even shown them."""
    assert {".env", "deploy/compose/secrets/"} <= set((ROOT / ".gitignore").read_text().split())
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] not in ("", "#")]
    assert lines[0] == "*"
    shown = {line[1:] for line in lines if line.startswith("!")}
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert shown == {source for sources in copied for source in sources.split()}
