"""Where everything of a local stack will be: derived from the `*_BIND`s, unless a setting says otherwise."""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import shutil
import socket
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bff.devstack.authority import Authority, open_authority
from bff.devstack.certificates import hostname, tls_settings
from bff.devstack.processes import StackFailed


@dataclass(frozen=True)
class Plan:
    """Where everything will be, derived from the environment."""

    state: Path
    binds: dict[str, str]
    public_url: str
    issuer: str
    idp_public_url: str
    local_idp: bool
    own_redis: bool
    environ: dict[str, str] = field(repr=False)
    certificates: dict[str, str]
    """The file of the certificate that a part shows, for those that speak TLS."""
    authority: Authority | None
    """Who signed them, with --https."""
    lock: int
    """A descriptor that holds the state directory's lock as long as it is open."""


def make_plan(environ: Mapping[str, str], *, reset: bool, https: bool) -> Plan:
    """Addresses, URLs, certificates and generated secrets of this run. Raises StackFailed."""
    given = {**_from_toml(environ), **environ}
    binds = {
        "bff": given.get("BFF_BIND", "127.0.0.1:5003"),
        "api": given.get("API_BIND", "127.0.0.1:5001"),
        "idp": given.get("IDP_BIND", "127.0.0.1:5002"),
    }
    ports = {name: _port(bind, f"{name.upper()}_BIND") for name, bind in binds.items()}
    scheme = "https" if https else "http"
    public_url = given.get("BFF_PUBLIC_URL", f"{scheme}://localhost:{ports['bff']}")
    local_issuer = given.get("IDP_ISSUER", f"{scheme}://localhost:{ports['idp']}/local_pool")
    idp_public_url = given.get("IDP_PUBLIC_URL", f"{scheme}://127.0.0.1:{ports['idp']}")
    issuer = given.get("BFF_OIDC_ISSUER", local_issuer)
    local = issuer == local_issuer
    if local:
        hostname("IDP_PUBLIC_URL", idp_public_url)  # by which its part is asked whether it is ready
    _check_ports({name: bind for name, bind in binds.items() if local or name != "idp"})
    state, lock = _state_directory(environ, reset=reset)
    defaults = {
        "BFF_ENV": "development",
        "BFF_PUBLIC_URL": public_url,
        "BFF_SECRET_KEYS": _kept_secret(state / "secret-keys"),
        "BFF_OIDC_ISSUER": issuer,
        "BFF_OIDC_SCOPE": "openid email profile api://weather/access",
        "BFF_OIDC_PROFILE": "cognito" if local else "auto",
        "BFF_API_URL": f"{scheme}://{reachable(binds['api'])}",
        "BFF_WORKERS": "1",
        "API_ENV": "development",
        "API_ISSUER": issuer,
        "API_WORKERS": "1",
        "API_LOG_FORMAT": "text",
        "IDP_ISSUER": local_issuer,
        "IDP_PUBLIC_URL": idp_public_url,
        "IDP_REDIRECT_URIS": f"{public_url}/bff/callback",
        "IDP_LOGOUT_URIS": f"{public_url}/",
        "IDP_STATE_FILE": str(state / "idp.sqlite"),
        "IDP_CONTROL_TOKEN": secrets.token_urlsafe(24),
    }
    defaults |= _client(given, state)
    defaults |= {f"{name.upper()}_BIND": bind for name, bind in binds.items()}
    authority = _authority(state) if https else None
    if authority is not None:
        defaults |= tls_settings(authority, given, {**defaults, **given}, local_idp=local)
    # What is given in a file of its own, or in the TOML file, must not be outdone by a default.
    settings = {k: v for k, v in defaults.items() if k not in given and f"{k}_FILE" not in given}
    own_redis = not any(name in given for name in ("BFF_REDIS_URL", "BFF_REDIS_URL_FILE"))
    certificate_of = {name: {**settings, **given}.get(f"{name.upper()}_TLS_CERT_FILE") for name in binds}
    return Plan(
        state=state,
        binds=binds,
        public_url=public_url,
        issuer=issuer,
        idp_public_url=idp_public_url,
        local_idp=local,
        own_redis=own_redis,
        environ={**settings, **environ},
        certificates={name: file for name, file in certificate_of.items() if file},
        authority=authority,
        lock=lock,
    )


def _authority(state: Path) -> Authority:
    try:
        return open_authority(state / "tls")
    except OSError as error:
        raise StackFailed(f"cannot use {state / 'tls'}: {error.strerror}. Set XDG_STATE_HOME.") from None


def _client(given: Mapping[str, str], state: Path) -> dict[str, str]:
    """One client for all three: its id and secret, wherever they were given."""
    client_id = given.get("BFF_OIDC_CLIENT_ID") or given.get("IDP_CLIENT_ID") or "local-bff"
    found = {"BFF_OIDC_CLIENT_ID": client_id, "IDP_CLIENT_ID": client_id, "API_CLIENT_IDS": client_id}
    names = ("BFF_OIDC_CLIENT_SECRET", "IDP_CLIENT_SECRET")
    for suffix in ("_FILE", ""):
        secret = given.get(names[0] + suffix) or given.get(names[1] + suffix)
        if secret is not None:
            return found | {name + suffix: secret for name in names}
    return found | dict.fromkeys(names, _kept_secret(state / "client-secret"))


def _from_toml(environ: Mapping[str, str]) -> dict[str, str]:
    """What the BFF's own file settles, by the names of the environment; the BFF itself judges it."""
    path = environ.get("BFF_CONFIG")
    if not path:
        return {}
    try:
        content = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}  # the BFF says what is wrong with it
    return {f"BFF_{key.upper()}": str(value) for key, value in content.items()}


def _state_directory(environ: Mapping[str, str], *, reset: bool) -> tuple[Path, int]:
    """The directory, and the lock that keeps a second stack from it: two Redis servers would spoil it."""
    home = environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    state = Path(home) / "bff"
    try:
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(state / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for entry in state.iterdir() if reset else ():
            if entry.is_dir():
                shutil.rmtree(entry)
            elif entry.name != "lock":
                entry.unlink()
    except BlockingIOError:
        raise StackFailed(f"another stack uses {state}. Stop it, or set XDG_STATE_HOME.") from None
    except OSError as error:
        raise StackFailed(f"cannot use {state}: {error.strerror}. Set XDG_STATE_HOME.") from None
    return state, lock


def _kept_secret(path: Path) -> str:
    """A secret that is made once and kept, so that sessions outlive a restart of the stack."""
    from bff.sealing import new_key

    if not path.exists():
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(new_key())
    return path.read_text().strip()


def _port(bind: str, variable: str) -> int:
    _, _, port = bind.rpartition(":")
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise StackFailed(f"{variable} is not HOST:PORT, as in 127.0.0.1:5003")
    return int(port)


def reachable(bind: str) -> str:
    """An address to connect to, for one to listen on."""
    host, _, port = bind.rpartition(":")
    return f"127.0.0.1:{port}" if host in ("", "0.0.0.0", "[::]") else bind  # noqa: S104


def _check_ports(binds: dict[str, str]) -> None:
    """Say at once what could not start later. Raises StackFailed."""
    for name, bind in binds.items():
        port = _port_of(bind)
        twins = [other for other, theirs in binds.items() if other > name and _port_of(theirs) == port]
        if twins:
            both = f"{name.upper()}_BIND and {twins[0].upper()}_BIND"
            raise StackFailed(f"{both} have the same port, {port}. Give each its own.")
    troubles = {name: _trouble(bind) for name, bind in binds.items()}
    for name, trouble in troubles.items():
        if trouble not in (None, errno.EADDRINUSE):
            reason = os.strerror(trouble)
            raise StackFailed(f"cannot listen on {binds[name]} ({name.upper()}_BIND): {reason}.")
    taken = [(name, binds[name]) for name, trouble in troubles.items() if trouble is not None]
    if taken:
        names = " and ".join(f"{bind} ({name.upper()}_BIND)" for name, bind in taken)
        name, bind = taken[0]
        port = _port_of(bind)
        raise StackFailed(
            f"already in use: {names}. Stop what is running there, or choose another port, "
            f"as in {name.upper()}_BIND=127.0.0.1:{port + 1000 if port < 64_000 else port - 1000} bff dev"
        )


def _port_of(bind: str) -> int:
    return int(bind.rpartition(":")[2])


def _trouble(bind: str) -> int | None:
    """The number of the error that listening there would meet."""
    host, _, port = bind.rpartition(":")
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host.strip("[]"), int(port)))
        except socket.gaierror:
            return errno.EADDRNOTAVAIL
        except OSError as error:
            return error.errno
    return None
