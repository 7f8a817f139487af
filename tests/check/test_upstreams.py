"""Upstreams that do not answer, and those that do in their own way."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from benchmarks.proxy.programs import free_port
from tests.check.conftest import Setup
from tests.support.authority import Authority
from tests.support.stopwatch import Stopwatch
from tests.support.upstream import ok, says
from tests.test_upstream_tls import secured


@pytest.mark.parametrize("status", [b"200 OK", b"401 Unauthorized", b"404 Not Found", b"500 Oh"])
def test_any_answer_is_an_answer(setup: Setup, status: bytes) -> None:
    """Without a token an API may say what it likes."""
    setup.upstream.answers(ok(status=status))
    assert setup.says("ok", "upstream", setup.upstream.url, f"status {status[:3].decode()}")


@pytest.mark.parametrize(
    ("url", "part"),
    [
        ("http://127.0.0.1:{closed}", "refused"),
        ("http://nowhere.invalid", "resolved"),
        ("https://127.0.0.1:{open}", "TLS"),
        ("http://127.0.0.1:{silent}", "in time"),
    ],
)
def test_no_answer(setup: Setup, url: str, part: str) -> None:
    """The cause is told in words, and the upstream named."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        setup.set(api_url=url.format(closed=free_port(), open=setup.upstream.port, silent=port))
        begun = Stopwatch()
        assert setup.says("error", "upstream", part, setup.environ["BFF_API_URL"])
        assert begun.own < 12


def test_no_http(setup: Setup) -> None:
    """Something else listens there."""
    setup.upstream.script = says(b"220 mail.example ESMTP\r\n", close=True)
    assert setup.says("error", "upstream", "does not answer as an HTTP server")


def test_each_is_asked_once_without_a_token(setup: Setup, tmp_path: Path) -> None:
    """Several routes to one upstream are one question, which carries nothing of ours."""
    file = tmp_path / "bff.toml"
    routes = [f'[[routes]]\npath = "/{name}"\nupstream = "{setup.upstream.url}"\n' for name in "abc"]
    file.write_text("".join(routes))
    setup.set(config=str(file))
    setup.report()
    assert len(setup.upstream.requests) == 1
    assert setup.upstream.requests[0].all("authorization") == []


def test_an_authority_of_ones_own(setup: Setup, tmp_path: Path) -> None:
    """An upstream is asked with what its route trusts; without it, the setting is named that would help."""
    authority = Authority(tmp_path)
    with secured(authority.sign("api", "127.0.0.1")) as url:
        setup.set(api_url=url)
        assert setup.says("error", "upstream", "its certificate is not trusted")
        setup.set(api_ca_file=str(authority.file))
        assert setup.says("ok", "upstream", url, "status 200")
        file = tmp_path / "bff.toml"
        lines = ["[[routes]]", 'path = "/x"', f'upstream = "{url}"', f'upstream_ca_file = "{authority.file}"']
        file.write_text("\n".join(lines))
        setup.set(api_url=None, api_ca_file=None, config=str(file))
        assert setup.says("ok", "upstream", url, "status 200")
