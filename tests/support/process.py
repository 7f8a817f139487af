"""`bff serve` as a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from signal import Signals
from tempfile import TemporaryDirectory

from benchmarks.proxy.programs import free_port
from tests.support.provider import ScriptedProvider
from tests.support.stack import environment
from tests.support.upstream import ScriptedUpstream
from tests.support.wire import Closed, exchange, until


class ServeProcess:
    """The running command; what it writes is kept."""

    def __init__(
        self,
        port: int,
        environ: dict[str, str],
        output: Path,
        authorities: Path | None = None,
        before: str = "",
    ) -> None:
        self.port = port
        self._authorities = authorities
        self._output = output
        with output.open("wb") as file:
            program = ["-c", f"{before}\nfrom bff.cli import main\nmain()"] if before else ["-m", "bff"]
            command = [sys.executable, *program, "serve"]
            self._process = subprocess.Popen(
                command, env=environ, stdout=file, stderr=file, start_new_session=True
            )

    def ready(self) -> bool:
        """Whether it answers, and knows its provider and its store."""
        try:
            asked = b"GET /health/ready HTTP/1.1\r\nHost: x\r\n\r\n"
            answer = exchange(self.port, asked, authorities=self._authorities)
        except (OSError, Closed):
            return False
        return answer.status == 200

    def signal(self, number: Signals) -> None:
        """Send a signal to the arbiter and all workers, as a terminal or an init system does."""
        os.killpg(self._process.pid, number)

    def tell_arbiter(self, number: Signals) -> None:
        """Send a signal to the arbiter alone, as an operator does."""
        self._process.send_signal(number)

    def output(self) -> str:
        """What it has written so far."""
        return self._output.read_text()

    def stop(self) -> tuple[int, str]:
        """Ask it to end; its exit code and everything that it wrote."""
        self._process.send_signal(signal.SIGTERM)
        return self.ended()

    def ended(self) -> tuple[int, str]:
        """Wait for its end; its exit code and everything that it wrote."""
        code = self._process.wait(40)
        return code, self._output.read_text()

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)  # the workers as well
        self._process.wait()


@contextmanager
def serve_process(
    provider: ScriptedProvider,
    store_url: str,
    upstream: ScriptedUpstream,
    toml: str = "",
    authorities: str = "",
    before: str = "",
    **settings: str,
) -> Iterator[ServeProcess]:
    """`bff serve` for the length of a block; `settings` are named as in `BFF_…`, in lower case. With
    `authorities`, a file, it is on https, and the settings name its certificate. `before` is Python that runs
    first."""
    port = int(settings["bind"].rpartition(":")[2]) if "bind" in settings else free_port()
    with TemporaryDirectory() as folder:
        config = Path(folder) / "bff.toml"
        config.write_text(toml.replace("UPSTREAM", upstream.url))
        environ = environment(port, provider, store_url, upstream.url)
        environ |= {"BFF_WORKERS": "1", "BFF_LOG_FORMAT": "json", "BFF_CONFIG": str(config)}
        if authorities:
            environ["BFF_PUBLIC_URL"] = f"https://localhost:{port}"
        environ |= {f"BFF_{name.upper()}": value for name, value in settings.items()}
        environ |= {"PATH": os.environ["PATH"]}
        process = ServeProcess(
            port, environ, Path(folder) / "output", Path(authorities) if authorities else None, before
        )
        try:
            assert until(process.ready, within=20), "it is not ready"
            yield process
        finally:
            process.kill()
