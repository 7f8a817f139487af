"""The Prometheus endpoint beside real workers: what it answers, and how it comes and goes with the server."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.proxy.programs import free_port
from bff import scrape
from bff.errors import StoreUnavailable
from bff.metrics_server import DIRECTORY, Known, MetricsServer
from bff.scrape import AT_ONCE, Server
from bff.sessions.census import COUNT_SECONDS, Census
from tests.fakes import Backend, FakeClock, Rig
from tests.support.browser import CSRF, Browser
from tests.support.process import ServeProcess, serve_process
from tests.support.provider import scripted_provider
from tests.support.stack import Clock, Store, store
from tests.support.upstream import scripted_upstream
from tests.support.wire import Answer, Closed, exchange, line, until
from tests.test_cli import run
from tests.test_settings import BASE

PROC = Path("/proc")
needs_proc = pytest.mark.skipif(not PROC.is_dir(), reason="looks for processes in /proc, as on Linux")


@pytest.fixture(scope="module")
def module_store() -> Iterator[Store]:
    with store() as found:
        yield found


class Serving:
    """`bff serve` with two workers and its metrics."""

    def __init__(self, process: ServeProcess, port: int) -> None:
        self.process = process
        self.port = port

    def ask(self, target: str = "/metrics", method: str = "GET") -> Answer:
        return exchange(self.port, f"{method} {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())

    def value(self, name: str, **labels: str) -> float | None:
        """A sample of a scrape; None where there is none, or nobody answers."""
        with suppress(OSError, Closed):
            for family in text_string_to_metric_families(self.ask().text):
                for sample in family.samples:
                    if sample.name == name and sample.labels == labels:
                        return sample.value
        return None

    def browser(self) -> Browser:
        return Browser(self.process.port, f"http://localhost:{self.process.port}")

    @property
    def arbiter(self) -> int:
        return self.process._process.pid

    def children(self) -> list[int]:
        text = (PROC / f"{self.arbiter}/task/{self.arbiter}/children").read_text()
        return [int(pid) for pid in text.split()]

    def directory(self) -> Path:
        """Where the workers count."""
        for child in self.children():
            for line_ in (PROC / f"{child}/maps").read_text().splitlines():
                if "bff-metrics-" in line_:
                    return Path(line_.split(maxsplit=5)[5]).parent
        raise AssertionError("no worker counts")

    def endpoint(self) -> int:
        """The process that answers: the one that counts nothing itself."""
        (found,) = (
            pid for pid in self.children() if "bff-metrics-" not in (PROC / f"{pid}/maps").read_text()
        )
        return found


@contextmanager
def served(found: Store) -> Iterator[Serving]:
    port = free_port()
    with (
        scripted_provider(Clock()) as provider,
        scripted_upstream() as upstream,
        serve_process(
            provider,
            found.url,
            upstream,
            workers="2",
            metrics_bind=f"127.0.0.1:{port}",
            redis_prefix=f"bff{port}:",
        ) as process,
    ):
        serving = Serving(process, port)
        assert until(lambda: serving.value("bff_workers") == 2, within=20)
        yield serving


@needs_proc
def test_the_endpoint_and_its_life(module_store: Store) -> None:
    """All workers together, one address, one path; dead workers are not counted on, what they counted is; the
    endpoint comes back when it dies, and all is gone at the end."""
    with served(module_store) as serving:
        for _ in range(6):
            assert serving.browser().get("/weather").status == 403
        assert until(lambda: serving.value("bff_requests_total", route="/weather", status="4xx") == 6)
        assert serving.value("bff_sessions_active") == 0

        answer = serving.ask()
        assert answer.status == 200
        assert answer.get("content-type").startswith("text/plain; version=")
        assert answer.get("cache-control") == "no-store"
        assert answer.get("server") == ""
        for target in ("/", "/metrics/", "/metricsx", "/health/live", "/bff/user"):
            assert serving.ask(target).status == 404
        for method in ("POST", "PUT", "DELETE", "OPTIONS", "HEAD", "TRACE", "BREW"):
            refused = exchange(
                serving.port,
                f"{method} /metrics HTTP/1.1\r\nHost: x\r\n\r\n".encode(),
                head_only=method == "HEAD",
            )
            assert (refused.status, refused.get("allow")) == (405, "GET")
        assert serving.browser().get("/metrics", CSRF).status == 404, "not on the public address"

        directory, endpoint = serving.directory(), serving.endpoint()
        worker = next(pid for pid in serving.children() if pid != endpoint)
        assert directory.stat().st_mode & 0o077 == 0
        os.kill(worker, signal.SIGKILL)
        assert until(lambda: serving.value("bff_workers_started_total") == 3, within=15), (
            "another has taken its place"
        )
        assert until(lambda: serving.value("bff_workers") == 2, within=15)
        assert serving.value("bff_requests_total", route="/weather", status="4xx") == 6

        os.kill(endpoint, signal.SIGTERM)
        assert serving.ask().status == 200, "signals are for the arbiter"
        os.kill(endpoint, signal.SIGKILL)
        assert until(lambda: serving.value("bff_workers") == 2, within=20), "another process answers"

        code, output = serving.process.stop()
        assert code == 0
        assert "metrics_ended" in output
        assert not directory.exists()
        assert until(lambda: serving.value("bff_workers") is None)


@needs_proc
def test_restarts_use_up_no_room(module_store: Store) -> None:
    """A worker goes on in the files of the one whose place it takes, or memory would run full, and a write to
    a mapped file would then kill each new worker; what was a state of those that have ended is dropped."""
    with served(module_store) as serving:
        directory, endpoint = serving.directory(), serving.endpoint()
        before = {path.name for path in directory.iterdir()}
        for started in range(3, 7):
            os.kill(next(pid for pid in serving.children() if pid != endpoint), signal.SIGKILL)
            assert until(
                lambda wanted=started: serving.value("bff_workers_started_total") == wanted, within=15
            )
        assert {path.name for path in directory.iterdir()} == before

        for started in (8, 10):  # all at once, beside those that end
            serving.process.tell_arbiter(signal.SIGHUP)
            assert until(
                lambda wanted=started: serving.value("bff_workers_started_total") == wanted, within=15
            )
            assert until(lambda: serving.value("bff_workers") == 2, within=15), "their gauges are dropped"
        assert len({path.stem.rpartition("_")[2] for path in directory.iterdir()}) <= 4


@needs_proc
def test_it_ends_with_an_arbiter_that_is_killed(module_store: Store) -> None:
    """Nothing is left when the arbiter can clean up no more: no process, no directory, no address."""
    with served(module_store) as serving:
        directory, endpoint = serving.directory(), serving.endpoint()
        os.kill(serving.arbiter, signal.SIGKILL)
        serving.process._process.wait()
        assert until(lambda: not directory.exists(), within=15)
        assert until(lambda: not (PROC / str(endpoint)).exists() or _is_zombie(endpoint), within=15)
        assert until(lambda: _is_free(serving.port), within=15)


def _is_zombie(pid: int) -> bool:
    with suppress(FileNotFoundError):
        return (PROC / f"{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    return True


def _is_free(port: int) -> bool:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


def test_an_address_in_use() -> None:
    """The server does not start, and says which setting is meant."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        bind = f"127.0.0.1:{taken.getsockname()[1]}"
        result = run("serve", **BASE | {"BFF_METRICS_BIND": bind})
    assert result.exit_code == 1
    assert f"cannot listen on {bind}" in result.stderr
    assert "BFF_METRICS_BIND" in result.stderr


def test_no_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where there is no room for the workers' files, the server ends before it begins, in one sentence."""
    monkeypatch.setattr("bff.metrics_server._MEMORY", tmp_path / "missing")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
    monkeypatch.delenv(DIRECTORY, raising=False)
    with pytest.raises(SystemExit, match="BFF_METRICS_BIND needs a temporary directory"):
        MetricsServer("127.0.0.1:9", lambda: pytest.fail("not asked")).prepare()


def test_few_at_once() -> None:
    """Whoever opens connections and says nothing takes places, not threads without end."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = Server(listener, lambda _accept: (b"x", "text/plain"))
    port = listener.getsockname()[1]
    try:
        for _ in range(AT_ONCE):
            assert server._places.acquire(blocking=False)
        with line(port) as connection:
            server.handle_request()
            assert connection.closed()
    finally:
        server.server_close()


def test_a_client_that_drips(monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte now and then, each in good time, does not hold a place for ever."""
    monkeypatch.setattr(scrape, "WHOLE_SECONDS", 3)
    listener = socket.create_server(("127.0.0.1", 0))
    server = Server(listener, lambda _accept: (b"x", "text/plain"))
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        with line(listener.getsockname()[1]) as connection:
            connection.send(b"GET /metrics HTTP/1.1\r\n")

            def hung_up() -> bool:
                try:
                    connection.socket.sendall(b"x")
                except OSError:
                    return True
                return False

            time.sleep(0.1)
            assert not hung_up()
            time.sleep(0.1)
            assert not hung_up()
            assert until(hung_up, within=10)
    finally:
        server.shutdown()
        server.server_close()


# -- how many sessions there are --------------------------------------------------------------------


def census(rig: Rig) -> Census:
    return Census(rig.backend.client, rig.store)


def test_sessions_are_counted_once_a_minute(fake_redis: Backend) -> None:
    """One of all processes counts, the others are told its number; nothing but sessions is counted."""
    rig = Rig(fake_redis, FakeClock())
    for number in range(3):
        rig.begin(f"{number}".rjust(43, "s"))
    fake_redis.client.set("test:{something}", "else")
    assert census(rig).number() == 3
    rig.begin("later".rjust(43, "s"))
    assert census(rig).number() == 3, "a minute old at most is new enough"
    assert 0 < fake_redis.client.ttl("test:census") <= COUNT_SECONDS
    fake_redis.client.delete("test:census")
    assert census(rig).number() == 4


def test_while_somebody_counts(fake_redis: Backend) -> None:
    """The others do not count as well: they go on telling the number that they know."""
    rig = Rig(fake_redis, FakeClock())
    known = Known(census(rig))
    known.ask()
    assert known.sessions() == 0
    fake_redis.client.set("test:census", b"")
    known.ask()
    assert known.sessions() == 0
    assert Known(census(rig)).sessions() is None


def test_a_store_that_is_away(fake_redis: Backend) -> None:
    """No number is told rather than an old one, and the next process may count."""

    class Broken(Census):
        def number(self) -> int | None:
            raise StoreUnavailable(reason="away")

    rig = Rig(fake_redis, FakeClock())
    known = Known(Broken(rig.backend.client, rig.store))
    known._sessions = 7
    known.ask()
    assert known.sessions() is None


def test_counting_that_fails_lets_others_count(fake_redis: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever cannot finish does not keep the others from it."""
    rig = Rig(fake_redis, FakeClock())
    monkeypatch.setattr(rig.store, "names", lambda: iter([1 / 0]))
    with pytest.raises(ZeroDivisionError):
        census(rig).number()
    assert fake_redis.client.get("test:census") is None
