"""How a person lets a browser trust the local authority, and takes that back."""

from __future__ import annotations

import os
import platform
import shlex
from dataclasses import dataclass
from pathlib import Path

from bff.devstack.authority import Authority


@dataclass(frozen=True)
class Commands:
    """Two lines for a shell."""

    trust: str
    undo: str


def commands(name: str, file: Path, system: str, home: Path, data_home: str = "") -> Commands:
    """For the authority of this name, whose certificate is `file`; `system` is "linux", "darwin" or "wsl",
    and `data_home` is XDG_DATA_HOME."""
    path = shlex.quote(str(file))
    if system == "darwin":
        chain = "~/Library/Keychains/login.keychain-db"
        return Commands(
            f"security add-trusted-cert -r trustRoot -p ssl -k {chain} {path}",
            f"security delete-certificate -c {name} -t {chain}",
        )
    if system == "wsl":  # the browser is Windows's own
        return Commands(
            f'certutil.exe -user -addstore Root "$(wslpath -w {path})"',
            f"certutil.exe -user -delstore Root {name}",
        )
    store = _nss_store(home, data_home)
    return Commands(
        f"mkdir -p {store} && certutil -d sql:{store} -A -t C,, -n {name} -i {path}",
        f"certutil -d sql:{store} -D -n {name}",
    )


def _nss_store(home: Path, data_home: str) -> str:
    """Chromium's, quoted for a shell: it stays with the first one where that is, so we must not make it
    beside the second, which lies where the XDG Base Directory Specification says."""
    old, new = ".pki/nssdb", "pki/nssdb"
    if (home / old).is_dir():
        return f'"$HOME/{old}"'
    if Path(data_home).is_absolute():
        return shlex.quote(str(Path(data_home) / new))
    return f'"$HOME/.local/share/{new}"'


def explanation(authority: Authority) -> list[str]:
    """What the start block says about it, a line each."""
    system = this_system()
    store = (authority.file, system, Path.home(), os.environ.get("XDG_DATA_HOME", ""))
    lines = commands(authority.name, *store)
    needs = " (certutil: apt install libnss3-tools)" if system == "linux" else ""
    new = ["This authority is new: what you may have trusted before is another one."] if authority.new else []
    if authority.former:
        undo = commands(authority.former, *store).undo
        new += ["  Take that one back with", f"    {undo}"]
    return [
        "Browsers warn of these certificates until you have them trust the authority that signs them.",
        f"It can sign for localhost and 127.0.0.1 alone, until {authority.ends:%Y-%m-%d}.",
        *new,
        f"  Trust it with{needs}",
        f"    {lines.trust}",
        "  Take it back with",
        f"    {lines.undo}",
        "  For Firefox and other systems, see docs/tutorial.md; restart the browser afterwards.",
    ]


def this_system() -> str:
    """The system whose browser is to be told."""
    if "microsoft" in platform.uname().release.lower():
        return "wsl"
    return platform.system().lower()
