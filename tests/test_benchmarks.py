"""The benchmarks can be run, and what they read is what is there."""

from __future__ import annotations

import importlib
import pkgutil
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import benchmarks
from benchmarks.proxy import load, machine, proc
from benchmarks.proxy.__main__ import main
from benchmarks.proxy.programs import CannotMeasure, Program, free_port
from benchmarks.proxy.world import BODY, require

NEEDS_ENVIRONMENT = {"benchmarks.proxy.systems.tutorial_app"}
MIB = 2**20
linux = pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's own")

SMAPS = """\
5581a000-5582b000 r-xp 00001000 fe:00 1234                       /usr/lib/a library.so
Size:                 68 kB
Rss:                  40 kB
Pss:                  20 kB
Anonymous:             8 kB
5582b000-5583c000 rw-p 00000000 00:00 0                          [heap]
Rss:                 400 kB
Anonymous:           400 kB
5583c000-5584d000 rw-p 00000000 00:00 0
Rss:                  12 kB
Anonymous:            12 kB
5584d000-5585e000 r--p 00012000 fe:00 1234                       /usr/lib/a library.so
Rss:                   4 kB
Anonymous:             0 kB
VmFlags: rd mr mw me
"""
ROLLUP = """\
5581a000-7ffc r--p 00000000 00:00 0 [rollup]
Rss:                 900 kB
Pss:                 640 kB
Pss_Dirty:             1 kB
Pss_Anon:            500 kB
Pss_File:            130 kB
Pss_Shmem:            10 kB
"""
WRK = (
    "Running 2s test\n"
    'RESULT {"requests": 3000, "microseconds": 2000000, "bytes": 99, "status": 1, "timeouts": 2, '
    '"broken": 4, "mean": 1500.5, "p50": 1000, "p99": 9000}\n'
)


@pytest.mark.parametrize(
    "name", [module.name for module in pkgutil.walk_packages(benchmarks.__path__, "benchmarks.")]
)
def test_every_benchmark_can_be_imported(name: str) -> None:
    """No benchmark is left behind when the program changes its names."""
    if name not in NEEDS_ENVIRONMENT:
        importlib.import_module(name)


def test_the_tutorial_application_can_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is the one that its server configures by environment."""
    for name in ("SECRET", "CLIENT_ID", "CLIENT_SECRET", "SCOPE"):
        monkeypatch.setenv(f"TUTORIAL_{name}", "x")
    for name in ("ISSUER", "FAST", "SLOW"):
        monkeypatch.setenv(f"TUTORIAL_{name}", "http://127.0.0.1:9")
    monkeypatch.setenv("TUTORIAL_REDIS_URL", "redis://127.0.0.1:9/0")
    module = importlib.import_module("benchmarks.proxy.systems.tutorial_app")
    assert module.app.test_client().get("/weather").status_code == 401


@pytest.mark.parametrize("name", ["bff", "a b", "(", ") 1 2 3 4 R", "x) S 7 (y)"])
def test_stat_is_read_whatever_the_command_is_called(name: str) -> None:
    """A blank or a bracket in a command's name moves no field."""
    text = f"17 ({name}) S 1 42 42 0 -1 4194560 9 8 7 6 100 20 3 4 20 0 1 0 999 5 6\n"
    assert proc.parse_stat(text) == proc.Stat(pid=17, group=42, ticks=127)


def test_memory_files_are_read() -> None:
    """Proportional set size, the part of it that is of no file, and the pages of each file."""
    assert proc.parse_pss(ROLLUP) == 640 * 1024
    assert proc.parse_own(ROLLUP) == 510 * 1024
    library = "/usr/lib/a library.so"
    assert proc.parse_files(SMAPS) == {
        (library, "00001000"): 32 * 1024,
        (library, "00012000"): 4 * 1024,
    }


def test_a_file_that_several_processes_map_counts_once() -> None:
    """Of each file the largest share; what one process alone maps counts as it is."""
    a, b = ("/a", "0"), ("/b", "0")
    assert proc.once([{a: 5, b: 1}, {a: 7}, {a: 2}]) == 8


def test_busy_time_leaves_out_waiting() -> None:
    """Idle time, waiting for disks and guests are not counted (a guest's time is in user already)."""
    assert proc.parse_busy("cpu  1 2 4 800 900 8 16 0 50 60\ncpu0 1 2 4 8 9 8 16 0 0 0\n") == 31


@linux
def test_cpu_time_of_a_group_has_its_children_that_ended() -> None:
    """What a child burnt counts after its end, too; what another group burns does not."""
    burn = "import time\nwhile time.process_time() < 0.3: pass"
    code = f"import subprocess as s, sys; s.run([sys.executable, '-c', {burn!r}]); print(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    ) as parent:
        assert parent.stdout is not None
        parent.stdout.read(1)
        spent = proc.cpu_seconds(parent.pid)
        mine, alone = proc.pss(parent.pid), proc.alone(parent.pid)
        parent.communicate(b"\n")
    assert 0.25 < spent < 2
    assert MIB < mine <= alone + MIB


def test_what_wrk_prints_is_read() -> None:
    """Seconds, errors by kind, and the rate."""
    found = load.parse(WRK)
    assert (found.requests, found.rate, found.wrong, found.broken) == (3000, 1500, 3, 4)
    assert (found.mean, found.p50, found.p99) == pytest.approx((0.0015005, 0.001, 0.009))


def test_a_load_without_result_is_an_error() -> None:
    """A load generator that says nothing is no zero."""
    with pytest.raises(ValueError, match="unable to connect"):
        load.parse("unable to connect to 127.0.0.1:1 Connection refused\n")


@pytest.mark.skipif(shutil.which("wrk") is None, reason="needs wrk: apt install wrk")
@pytest.mark.parametrize(
    ("script", "arguments"), [("plain.lua", ()), ("staggered.lua", (2, 100)), ("sessions.lua", ("FILE", 1))]
)
def test_each_script_of_wrk_tells_its_result(
    script: str, arguments: tuple[object, ...], tmp_path: Path
) -> None:
    """Against the slow upstream's refusals: all are counted as wrong, none as lost."""
    cookies = tmp_path / "cookies"
    cookies.write_text("a=1\nb=2\n")
    port = free_port()
    argv = [sys.executable, "-m", "benchmarks.proxy.slow_upstream", str(port)]
    root = str(Path(benchmarks.__path__[0]).parent)
    upstream = Program("upstream", argv, port, tmp_path, {"PYTHONPATH": root}).start()
    try:
        given = [cookies if argument == "FILE" else argument for argument in arguments]
        found = load.run(f"http://127.0.0.1:{port}/slow", ("Host: localhost",), 2, 1, script, given)
    finally:
        upstream.stop()
    assert found.requests > 10
    assert (found.wrong, found.broken) == (found.requests, 0)


def test_a_missing_program_is_one_sentence() -> None:
    """It names the program and the package."""
    with pytest.raises(CannotMeasure, match=r"no-such-program is missing: apt install it"):
        require("no-such-program", "apt install it")


def test_a_program_that_ends_at_once_says_why(tmp_path: Path) -> None:
    """Its last words are in the sentence."""
    program = Program(
        "clumsy", [sys.executable, "-c", "raise SystemExit('no such file')"], free_port(), tmp_path
    )
    with pytest.raises(CannotMeasure, match="clumsy did not start: no such file"):
        program.start()


@pytest.mark.parametrize("content", [None, b"", b"{}", b"[1]", b"\xff"])
def test_a_file_that_is_no_result_is_one_sentence(
    content: bytes | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Missing, empty, or of another shape: a sentence and status 1."""
    file = tmp_path / "result.json"
    if content is not None:
        file.write_bytes(content)
    assert main(["--read", str(file)]) == 1
    assert "is no result of this version" in capsys.readouterr().err


@linux
def test_the_machine_is_described() -> None:
    """Cores, kernel and versions are there, and nothing that names its user or paths."""
    found = machine.describe()
    assert {"cores", "CPU", "kernel", "Python", "uvicorn"} <= set(found)
    assert not [text for text in found.values() if "/" in text.replace("GNU/Linux", "")]
    assert machine.cpu_model("processor : 0\nmodel name\t: A CPU @ 3 GHz\n") == "A CPU @ 3 GHz"


def test_the_upstream_answers_about_a_kilobyte() -> None:
    """The body can stand in nginx's configuration as it is."""
    assert 900 < len(BODY.encode()) < 1200
    assert not set(BODY) & set("'$\\")
