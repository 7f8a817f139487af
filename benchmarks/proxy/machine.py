"""What the figures were measured on."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = (
    "bff",
    "uvicorn",
    "httptools",
    "uvloop",
    "gunicorn",
    "hiredis",
    "redis",
    "flask",
    "authlib",
    "flask-session",
)
PROGRAMS = {
    "nginx": ["nginx", "-v"],
    "Apache": ["apache2", "-v"],
    "mod_auth_openidc": ["dpkg-query", "-W", "-f", "${Version}", "libapache2-mod-auth-openidc"],
    "oauth2-proxy": ["oauth2-proxy", "--version"],
    "Redis": ["redis-server", "--version"],
    "wrk": ["wrk", "-v"],
}


def describe(python: str = sys.executable) -> dict[str, str]:
    """Cores, CPU, memory, kernel, and the versions of all that takes part; `python` runs our own server."""
    found = {
        "cores": str(len(os.sched_getaffinity(0))),
        "CPU": cpu_model(Path("/proc/cpuinfo").read_text()),
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "kernel": f"{platform.system()} {platform.release()}",
        "system": platform.freedesktop_os_release().get("PRETTY_NAME", "unknown"),
        "load before": f"{os.getloadavg()[0]:.2f}",
        "Python": _program([python, "-V"]) or platform.python_version(),
    }
    found |= {name: text for name, command in PROGRAMS.items() if (text := _program(command))}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def cpu_model(cpuinfo: str) -> str:
    """The name in /proc/cpuinfo; ARM machines tell none."""
    model = re.search(r"^model name\s*: (.+)$", cpuinfo, re.MULTILINE)
    return model[1] if model else platform.machine()


def _program(command: list[str]) -> str:
    """The version that a program tells, "" where it is missing."""
    path = shutil.which(command[0], path=os.environ.get("PATH", "") + os.pathsep + "/usr/sbin")
    if path is None:
        return ""
    done = subprocess.run([path, *command[1:]], capture_output=True, text=True, check=False)
    told = re.sub(
        r"\(built with .*\)", "", done.stdout + done.stderr
    )  # oauth2-proxy tells its compiler's, too
    number = re.search(r"\d+\.\d+[\w.~+-]*", told)
    return number[0] if number else "a build that tells no version"
