"""What Linux knows of a group of processes: CPU time and memory. See proc(5)."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Stat:
    """The part of /proc/PID/stat that counts here."""

    pid: int
    group: int
    ticks: int
    """CPU time of the process, user and system, and of its children that ended and were waited for."""


def parse_stat(text: str) -> Stat:
    """Read /proc/PID/stat. The command's name may hold anything, blanks and brackets too; what counts comes
    after the last bracket."""
    pid, _, rest = text.partition(" ")
    fields = rest.rpartition(")")[2].split()
    # proc(5) numbers the fields from 1, and `fields` begins with the third: 5 pgrp, 14-17 the CPU times
    return Stat(int(pid), int(fields[2]), sum(int(field) for field in fields[11:15]))


def parse_pss(text: str) -> int:
    """Bytes of /proc/PID/smaps_rollup's proportional set size: what is shared is divided by its users."""
    found = re.search(r"^Pss:\s+(\d+) kB$", text, re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def parse_busy(text: str) -> int:
    """Ticks that all CPUs were busy since boot, of /proc/stat: user, nice, system, irq, softirq."""
    user, nice, system, _idle, _iowait, irq, softirq = (int(field) for field in text.split()[1:8])
    return user + nice + system + irq + softirq


def parse_files(text: str) -> dict[tuple[str, str], int]:
    """Bytes that a process has in memory of each mapped file, by path and offset, of /proc/PID/smaps. Pages
    that it has written to are its own, and not counted here."""
    found: dict[tuple[str, str], int] = {}
    key: tuple[str, str] | None = None
    for line in text.splitlines():
        words = line.split(maxsplit=5)
        if "-" in words[0]:  # the line that begins a mapping: range, permissions, offset, device, inode, path
            key = (words[5], words[2]) if len(words) == 6 and words[5].startswith("/") else None
        elif key is not None and words[0] in ("Rss:", "Anonymous:"):
            bytes_ = int(words[1]) * 1024
            found[key] = found.get(key, 0) + (bytes_ if words[0] == "Rss:" else -bytes_)
    return found


def parse_own(text: str) -> int:
    """Bytes of /proc/PID/smaps_rollup that are of no file: only relatives share these."""
    kinds = re.findall(r"^Pss_(?:Anon|Shmem):\s+(\d+) kB$", text, re.MULTILINE)
    return sum(int(kind) * 1024 for kind in kinds)


def members(group: int) -> Iterator[Stat]:
    """The processes of a group that live now."""
    for entry in PROC.iterdir():
        if entry.name.isdigit():
            try:
                stat = parse_stat((entry / "stat").read_text())
            except OSError:  # it ended meanwhile
                continue
            if stat.group == group:
                yield stat


def cpu_seconds(group: int) -> float:
    """CPU time of a group of processes so far, ended children included."""
    return sum(stat.ticks for stat in members(group)) / TICKS


def pss(group: int) -> int:
    """Bytes of memory of a group of processes, what they share counted once."""
    total = 0
    for stat in members(group):
        try:
            total += parse_pss((PROC / str(stat.pid) / "smaps_rollup").read_text())
        except OSError:  # it ended meanwhile
            continue
    return total


def once(mapped: Iterable[dict[tuple[str, str], int]]) -> int:
    """Bytes of the files of several processes, of each file the largest share that one of them holds."""
    largest: dict[tuple[str, str], int] = {}
    for files in mapped:
        for key, size in files.items():
            largest[key] = max(size, largest.get(key, 0))
    return sum(largest.values())


def alone(group: int) -> int:
    """Bytes of memory of a group of processes as if nobody else mapped its files."""
    total, mapped = 0, []
    for stat in members(group):
        folder = PROC / str(stat.pid)
        try:
            total += parse_own((folder / "smaps_rollup").read_text())
            mapped.append(parse_files((folder / "smaps").read_text()))
        except OSError:  # it ended meanwhile
            continue
    return total + once(mapped)


def busy_seconds() -> float:
    """CPU time that the whole machine has used."""
    return parse_busy((PROC / "stat").read_text()) / TICKS
