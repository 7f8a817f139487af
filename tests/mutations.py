"""Breaks the code in one place after the other, as `tests/mutations.toml` says, and looks whether the test
that docs/conformance.md names for that row fails: `python -m tests.mutations [WORD]`, for all rows or for
those that have that word."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
PARTS = ("bff", "tests", "templates", "static", "docs", "pyproject.toml", "README.md")
LONGEST_SECONDS = 300


@dataclass(frozen=True)
class Mutation:
    """A row, its test, and a way to break what it says: `old`, which occurs once in `file`, becomes `new`."""

    row: str
    test: str
    file: str
    old: str
    new: str

    def broken(self, root: Path) -> str:
        """The file's text with the change. Raises ValueError where there is not exactly one place for it."""
        text = (root / self.file).read_text()
        if text.count(self.old) != 1:
            raise ValueError(f"{self.file} has {text.count(self.old)} places for: {self.row}")
        return text.replace(self.old, self.new)


def mutations() -> list[Mutation]:
    """All of them, in the order of the rows."""
    data = tomllib.loads((ROOT / "tests" / "mutations.toml").read_text())
    return [Mutation(**each) for each in data["mutation"]]


def _copy(root: Path) -> None:
    for name in PARTS:
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "node_modules")
            shutil.copytree(ROOT / name, root / name, ignore=ignored)
        else:
            shutil.copy(ROOT / name, root / name)


def _verdict(root: Path, test: str) -> str:
    """What the test says of the code in `root`: "failed", "passed", "skipped" or "cannot run"."""
    environ = os.environ | {"PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", test]
    try:
        done = subprocess.run(
            command,
            cwd=root,
            env=environ,
            capture_output=True,
            text=True,
            timeout=LONGEST_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return "failed"
    if done.returncode == 0:
        return "passed" if " passed" in done.stdout.splitlines()[-1] else "skipped"
    return "failed" if done.returncode == 1 else "cannot run"


def main(word: str = "") -> int:
    """Try every row that has `word` in it; how many went unnoticed is the exit status."""
    wanted = [each for each in mutations() if word in each.row]
    unnoticed = 0
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        _copy(root)
        for each in wanted:
            whole, broken = (root / each.file).read_text(), each.broken(root)
            (root / each.file).write_text(broken)
            verdict = _verdict(root, each.test)
            (root / each.file).write_text(whole)
            unnoticed += verdict != "failed"
            print(f"{'ok' if verdict == 'failed' else verdict.upper():10} {each.row}", flush=True)
    print(f"{len(wanted) - unnoticed} of {len(wanted)} were noticed")
    return min(unnoticed, 100)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
