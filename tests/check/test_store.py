"""Redis in all its states."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import fakeredis
import pytest
import redis

from benchmarks.proxy.programs import free_port
from bff.check.store import check_facts, check_url
from bff.settings import Settings, load
from tests.check.conftest import Setup
from tests.conftest import NO_REDIS
from tests.support.stopwatch import Stopwatch
from tests.support.upstream import ScriptedUpstream, says
from tests.support.wire import until
from tests.test_settings import BASE


@pytest.fixture
def server() -> Iterator[redis.Redis]:
    """A Redis of the test's own, which it may spoil."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip(NO_REDIS)
    with TemporaryDirectory(prefix="bff-redis-") as folder:
        path = Path(folder) / "redis.sock"
        port = free_port()
        options = ["--port", str(port), "--bind", "127.0.0.1", "--unixsocket", str(path), "--dir", folder]
        process = subprocess.Popen([program, *options, "--save", ""], stdout=subprocess.DEVNULL)
        try:
            with redis.Redis(unix_socket_path=str(path)) as client:
                assert until(lambda: _answers(client), within=20), "redis-server does not answer"
                client.port = port
                yield client
        finally:
            process.kill()
            process.wait()


def _answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False


def use(setup: Setup, server: redis.Redis, credentials: str = "") -> None:
    setup.set(redis_url=f"redis://{credentials}127.0.0.1:{server.port}/0")  # type: ignore[attr-defined]


def acl(server: redis.Redis, command: str) -> None:
    server.execute_command(f"ACL {command}")  # type: ignore[no-untyped-call]


CONFIGURATIONS = [
    ("maxmemory-policy allkeys-lru", "warning", "allkeys-lru"),
    ("maxmemory-policy volatile-ttl", "warning", "volatile-ttl"),
    ("maxmemory-policy noeviction", "ok", "nothing is evicted"),
    ("appendonly yes", "ok", "append-only file keeps"),
    ("appendonly no", "warning", "appendonly yes"),
    ("save 3600-1", "ok", "snapshots"),
    ("maxmemory 1", "error", "full"),
]


@pytest.mark.parametrize(("command", "level", "part"), CONFIGURATIONS)
def test_configurations(setup: Setup, server: redis.Redis, command: str, level: str, part: str) -> None:
    """What loses sessions is told."""
    name, value = command.split(" ")
    server.config_set(name, value.replace("-", " ") if name == "save" else value)
    use(setup, server)
    assert setup.says(level, "redis", part)


def test_it_leaves_nothing_behind(setup: Setup, server: redis.Redis) -> None:
    """The key that was written is deleted."""
    use(setup, server)
    assert setup.says("ok", "redis", "written, read and deleted")
    assert server.dbsize() == 0


def test_a_replica(setup: Setup, server: redis.Redis) -> None:
    """A read-only replica is no place for sessions."""
    server.replicaof("127.0.0.1", "1")
    use(setup, server)
    assert setup.says("error", "redis", "read-only replica", "primary")


def test_passwords(setup: Setup, server: redis.Redis) -> None:
    """A wrong one, none where one is needed, and the right one."""
    server.config_set("requirepass", "right-password")
    for credentials in ("", ":wrong-password@"):
        use(setup, server, credentials)
        assert setup.says("error", "redis", "password", "BFF_REDIS_URL")
    use(setup, server, ":right-password@")
    assert setup.says("ok", "redis", "Redis answers")


def test_a_user_with_few_rights(setup: Setup, server: redis.Redis) -> None:
    """What may not be asked is said to be unknown; what is needed and forbidden is an error."""
    acl(server, "SETUSER app on >app-password ~bff:* +@all -@dangerous")
    use(setup, server, "app:app-password@")
    assert setup.says("ok", "redis", "could not tell version")
    assert setup.says("ok", "redis", "written, read and deleted")
    acl(server, "SETUSER app +info -config")
    assert setup.says("ok", "redis", "could not tell whether Redis keeps its data")
    acl(server, "SETUSER app -eval")
    assert setup.says("error", "redis", "does not allow EVAL")
    acl(server, "SETUSER app +eval -time")
    assert setup.says("error", "redis", "EVAL (with TIME in it)")
    setup.set(redis_prefix="other:")
    assert setup.says("error", "redis", "does not allow SET", "~other:*")


def test_the_rights_that_the_page_names(setup: Setup, server: redis.Redis) -> None:
    """docs/redis.md gives a user enough, and with two more all is told."""
    page = Path(__file__).parents[2] / "docs" / "redis.md"
    [rights] = re.findall(r"^ACL SETUSER bff on >PASSWORD (.*)$", page.read_text(), re.MULTILINE)
    acl(server, f"SETUSER app on >app-password {rights}")
    use(setup, server, "app:app-password@")
    assert setup.says("ok", "redis", "written, read and deleted")
    acl(server, "SETUSER app +info +config|get")
    assert setup.says("ok", "redis", "version")
    assert setup.says("warning", "redis", "appendonly")


@pytest.mark.parametrize(
    ("url", "part"),
    [
        ("redis://127.0.0.1:{closed}/0", "cannot be reached"),
        ("redis://nowhere.invalid:6379/0", "resolved"),
        ("unix:///nowhere/redis.sock", "cannot be reached"),
        ("redis://127.0.0.1:{server}/99", "database number"),
        ("rediss://127.0.0.1:{server}/0", "TLS"),
    ],
)
def test_not_reached(setup: Setup, server: redis.Redis, url: str, part: str) -> None:
    """The cause is told in words; nothing else of Redis is guessed."""
    setup.set(redis_url=url.format(closed=free_port(), server=server.port))  # type: ignore[attr-defined]
    assert setup.says("error", "redis", part)
    assert not setup.says("ok", "redis", "written")


def test_hanging(setup: Setup) -> None:
    """A Redis that takes connections and says nothing costs seconds, not minutes."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        setup.set(redis_url=f"redis://127.0.0.1:{listener.getsockname()[1]}/0")
        begun = Stopwatch()
        assert setup.says("error", "redis", "in time")
        assert begun.own < 8


def test_no_redis_at_all(setup: Setup) -> None:
    """Something else answers there."""
    upstream = ScriptedUpstream()
    upstream.script = says(b"HTTP/1.1 400 Bad Request\r\n\r\n", close=True)
    setup.set(redis_url=f"redis://127.0.0.1:{upstream.port}/0")
    assert setup.says("error", "redis", "")
    assert not setup.says("error", "redis", "check itself failed")
    upstream.close()


def test_the_double_has_no_info(setup: Setup) -> None:
    """The Redis in memory of the local stack is used without a complaint."""
    double = fakeredis.TcpFakeServer(("127.0.0.1", 0))
    threading.Thread(target=double.serve_forever, daemon=True).start()
    setup.set(redis_url=f"redis://127.0.0.1:{double.server_address[1]}/0")
    assert [each for each in setup.problems() if each[1] == "redis"] == []
    double.shutdown()
    double.server_close()


class Facts:
    """A client of a Redis that says this of itself."""

    def __init__(self, **facts: Any) -> None:
        self._facts = facts

    def info(self) -> dict[str, Any]:
        return self._facts

    def config_get(self, _name: str) -> dict[str, str]:
        raise redis.ResponseError("unknown command")


@pytest.mark.parametrize(
    ("facts", "level"),
    [
        ({"redis_version": "5.0.14"}, "error"),
        ({"redis_version": "6.0.16"}, "error"),
        ({"redis_version": "6.2.0"}, "ok"),
        ({"redis_version": "8.0.1"}, "ok"),
        ({"redis_version": "10.1"}, "ok"),
        ({}, "ok"),
        ({"node:1": {"redis_version": "6.0.1"}, "node:2": {"redis_version": "6.0.1"}}, "error"),
    ],
)
def test_versions(facts: dict[str, Any], level: str) -> None:
    """6.2 is the oldest; what cannot be told is no error."""
    findings = list(check_facts(Facts(**facts)))  # type: ignore[arg-type]
    assert findings[0].level == level


def production(url: str) -> Settings:
    return load(BASE | {"BFF_REDIS_URL": url})


@pytest.mark.parametrize(
    ("url", "warnings"),
    [
        ("redis://redis:6379", 2),
        ("redis://:password@redis:6379", 1),
        ("rediss://redis:6379", 1),
        ("rediss://user:password@redis:6379", 0),
        ("rediss://user:password@redis:6379?ssl_cert_reqs=none", 1),
        ("redis://127.0.0.1:6379", 0),
        ("redis://[::1]:6379", 0),
        ("redis://localhost:6379", 0),
        ("unix:///run/redis.sock", 0),
        ("redis://localhost.example:6379", 2),
        ("redis+sentinel://127.0.0.1:1,localhost:2/service/0", 0),
        ("redis+sentinel://127.0.0.1:1,redis:2/service/0", 2),
        ("redis+cluster://:password@one,two", 1),
        ("rediss+cluster://:password@one,two", 0),
        ("rediss+sentinel://:password@one/service/0?ssl_cert_reqs=none", 1),
    ],
)
def test_who_can_listen(url: str, warnings: int) -> None:
    """In production, a Redis on the network needs TLS and a password."""
    assert sum(each.level == "warning" for each in check_url(production(url))) == warnings
    development = load(BASE | {"BFF_ENV": "development", "BFF_REDIS_URL": "redis://redis:6379"})
    assert list(check_url(development)) == []
