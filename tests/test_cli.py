"""The `bff` command: its words, its exit codes, and what a wrong configuration is told."""

from __future__ import annotations

import base64
import errno
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from click.testing import CliRunner, Result

import bff.serving
from benchmarks.proxy.programs import free_port
from bff import __version__
from bff.cli import main
from tests.test_settings import BASE

API = {"API_ISSUER": "https://issuer.example", "API_CLIENT_IDS": "client"}
COMMANDS = [
    "dev",
    "serve",
    "api",
    "idp",
    "check",
    "keys",
    "keys new",
    "keys public",
    "sessions",
    "sessions list",
    "sessions revoke",
    "cognito",
    "cognito env",
    "cognito user",
    "cognito user create",
]


@pytest.fixture(autouse=True)
def _a_clean_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No setting of the machine's reaches a test, and logging stays as it was."""
    for name in list(os.environ):
        if name.startswith(("BFF_", "API_", "IDP_")):
            monkeypatch.delenv(name)
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def run(*arguments: str, **environ: str) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(main, arguments, env=environ)


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_version(command: str) -> None:
    """Name and version, as packages know it, of every command."""
    result = run(*command.split(), "--version")
    assert (result.exit_code, result.output) == (0, f"bff, version {__version__}\n")


def test_python_dash_m() -> None:
    """`python -m bff` is the same command."""
    command = [sys.executable, "-m", "bff", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == f"bff, version {__version__}\n"


@pytest.mark.parametrize("option", ["--help", "-h"])
@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_every_command_helps(command: str, option: str) -> None:
    """One line at least says what it does, and nothing is started."""
    result = run(*command.split(), option)
    assert result.exit_code == 0
    assert result.output.startswith("Usage: main" if not command else f"Usage: main {command}")
    assert len(result.output.splitlines()) > 3


@pytest.mark.parametrize(
    "arguments", [["nonsense"], ["serve", "--nonsense"], ["serve", "extra"], ["keys", "old"]]
)
def test_a_wrong_word_is_a_usage_error(arguments: list[str]) -> None:
    """A mistyped command says so and does nothing."""
    result = run(*arguments)
    assert result.exit_code == 2
    assert "Usage:" in result.output


def test_keys_new_prints_a_key_and_nothing_else() -> None:
    """32 bytes, base64url, ready for a pipe; another one each time."""
    keys = {run("keys", "new").stdout for _ in range(2)}
    assert len(keys) == 2
    for key in keys:
        assert key.endswith("\n")
        assert len(base64.urlsafe_b64decode(key.strip() + "=")) == 32


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Notes what would be served instead of serving it."""
    calls: list[dict[str, Any]] = []
    monkeypatch.setattr(bff.serving, "serve", lambda _factory, **options: calls.append(options))
    return calls


@pytest.mark.parametrize(
    ("command", "environ", "named"),
    [
        (
            "serve",
            {},
            ["BFF_PUBLIC_URL", "BFF_OIDC_ISSUER", "BFF_OIDC_CLIENT_ID", "BFF_OIDC_CLIENT_SECRET"]
            + ["BFF_REDIS_URL", "BFF_SECRET_KEYS", "BFF_API_URL"],
        ),
        ("serve", BASE | {"BFF_WORKERS": "x", "BFF_BIND": "x"}, ["BFF_WORKERS", "BFF_BIND"]),
        ("serve", BASE | {"BFF_CONFIG": "/nowhere"}, ["BFF_CONFIG"]),
        ("api", {}, ["API_ISSUER", "API_CLIENT_IDS"]),
        ("api", {"API_ISSUER": "https://issuer.example"}, ["API_CLIENT_IDS"]),
        ("idp", {"BFF_ENV": "production"}, ["BFF_ENV"]),
    ],
)
def test_a_wrong_configuration_is_told_whole_and_exits_2(
    command: str, environ: dict[str, str], named: list[str], served: list[dict[str, Any]]
) -> None:
    """Every problem on standard error, by name, before anything listens; no traceback and no secret."""
    result = run(command, **environ)
    assert result.exit_code == 2
    assert result.stdout == ""
    for name in named:
        assert name in result.stderr
    assert "Traceback" not in result.stderr
    assert "s3cr3t" not in result.stderr
    assert not served


def test_bad_routes_exit_2_as_well(served: list[dict[str, Any]], tmp_path: Any) -> None:
    """A route that cannot be is a problem like all others."""
    config = tmp_path / "bff.toml"
    config.write_text('[[routes]]\npath = "/bff/mine"\nupstream = "http://x"\n')
    result = run("serve", **BASE, BFF_CONFIG=str(config))
    assert result.exit_code == 2
    assert "BFF_ROUTES" in result.stderr
    assert not served


@pytest.mark.parametrize(
    ("command", "environ", "bind"),
    [
        ("serve", BASE | {"BFF_BIND": "127.0.0.1:7003"}, "127.0.0.1:7003"),
        ("api", API | {"API_BIND": "127.0.0.1:7001"}, "127.0.0.1:7001"),
        ("idp", {"IDP_BIND": "127.0.0.1:7002"}, "127.0.0.1:7002"),
    ],
)
def test_a_good_configuration_is_served(
    command: str, environ: dict[str, str], bind: str, served: list[dict[str, Any]]
) -> None:
    """Each server listens where its own setting says."""
    result = run(command, **environ)
    assert (result.exit_code, result.output) == (0, "")
    assert [call["bind"] for call in served] == [bind]


SIDE = BASE | {"BFF_FORWARD_AUTH_BIND": "127.0.0.1:7004", "BFF_TRUSTED_PROXIES": "127.0.0.1/32"}


def test_the_forward_auth_listener_is_served(served: list[dict[str, Any]]) -> None:
    """It is there where it is configured, and nowhere else."""
    assert run("serve", **SIDE).exit_code == 0
    assert run("serve", **BASE).exit_code == 0
    assert [call["side"] for call in served] == [{"127.0.0.1:7004": "forward_auth"}, {}]


@pytest.mark.parametrize("missing", ["BFF_TRUSTED_PROXIES", "an address of its own"])
def test_a_forward_auth_listener_that_must_not_be(missing: str, served: list[dict[str, Any]]) -> None:
    """Without proxies to trust, or on the public address, nothing is started."""
    if missing == "BFF_TRUSTED_PROXIES":
        environ = {name: value for name, value in SIDE.items() if name != missing}
    else:
        environ = SIDE | {"BFF_BIND": "0.0.0.0:7004"}
    result = run("serve", **environ)
    assert result.exit_code == 2
    assert "BFF_FORWARD_AUTH_BIND must" in result.stderr
    assert not served


def test_the_forward_auth_port_in_use() -> None:
    """The setting that is named is that of the listener in question."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        bind = f"127.0.0.1:{taken.getsockname()[1]}"
        result = run(
            "serve", **SIDE | {"BFF_FORWARD_AUTH_BIND": bind, "BFF_BIND": f"127.0.0.1:{free_port()}"}
        )
    assert result.exit_code == 1
    assert f"cannot listen on {bind}" in result.stderr
    assert "BFF_FORWARD_AUTH_BIND" in result.stderr


@pytest.mark.parametrize(
    ("command", "environ", "variable"),
    [("serve", BASE, "BFF_BIND"), ("api", API, "API_BIND"), ("idp", {}, "IDP_BIND")],
)
def test_a_port_in_use_exits_1_and_says_what_helps(
    command: str, environ: dict[str, str], variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not a configuration error: something else listens there."""

    def refuse(_factory: object, **_options: object) -> None:
        raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))

    monkeypatch.setattr(bff.serving, "serve", refuse)
    result = run(command, **environ)
    assert result.exit_code == 1
    assert variable in result.stderr
    assert "Address already in use" in result.stderr


@pytest.mark.parametrize("bind", ["no-such-host.invalid:5003", "192.0.2.1:5003"])
def test_an_address_of_another_machine_is_a_configuration_error(bind: str) -> None:
    """A name that does not resolve, or an address that is not here: nothing that stopping a program helps."""
    result = run("serve", **BASE | {"BFF_BIND": bind})
    assert result.exit_code == 2
    assert f"cannot listen on {bind}: " in result.stderr
    assert "Set BFF_BIND to an address of this machine." in result.stderr
    assert "Stop what uses it" not in result.stderr
