"""The `bff` command. Each command imports what it needs, so that the others start fast."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from bff._version import __version__
from bff.cognito.commands import cognito

if TYPE_CHECKING:
    from bff.operations import Operations

EXIT_FAILED = 1
EXIT_CONFIGURATION = 2
UNUSABLE = "the configuration cannot be used:"

S = TypeVar("S")


_version = click.version_option(__version__, prog_name="bff")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@_version
def main() -> None:
    """A backend-for-frontend: browsers hold a session cookie, the tokens stay here.

    Try `bff dev` first: it starts the whole local stack and says where to go.
    """


main.add_command(cognito)


@main.command()
@_version
@click.option("--https", is_flag=True, help="Serve over TLS, with certificates of a local authority.")
@click.option("--reset", is_flag=True, help="Forget sessions, accounts and keys of earlier runs first.")
def dev(*, https: bool, reset: bool) -> None:
    """Start the whole local stack: Redis, identity provider, resource API and BFF.

    Everything follows from BFF_BIND, API_BIND and IDP_BIND unless it is set. Stop it with Ctrl-C.
    """
    from bff.devstack import run

    sys.exit(run(os.environ, reset=reset, https=https))


@main.command()
@_version
def serve() -> None:
    """Start the BFF on its production server.

    Configured by BFF_* variables and, if BFF_CONFIG names one, a TOML file.
    """
    import structlog

    from bff import settings as bff_settings
    from bff.logs import configure
    from bff.serving import serve as run

    settings = _load(bff_settings.load, bff_settings.SettingsError)
    configure(settings.log_level, settings.log_format)
    for warning in settings.warnings:
        structlog.get_logger("bff.settings").warning("setting_without_effect", reason=warning)

    from bff.app import create_app  # before the workers are forked: they share what is imported here
    from bff.sessions.browsers import warm_up

    if settings.workers > 1:
        warm_up()
    companion = None
    if settings.metrics_bind is not None:
        from bff.metrics_server import MetricsServer, census

        companion = MetricsServer(settings.metrics_bind, lambda: census(settings))
        _run(companion.listen, {settings.metrics_bind: "BFF_METRICS_BIND"})
    side = {settings.forward_auth_bind: "forward_auth"} if settings.forward_auth_bind else {}

    _run(
        lambda: run(
            lambda: create_app(settings),
            name="bff",
            bind=settings.bind,
            workers=settings.workers,
            max_header_bytes=settings.max_header_bytes,
            drain_seconds=settings.drain_seconds,
            secure=settings.secure,
            local=settings.local,
            tls=settings.tls,
            companion=companion,
            side=side,
        ),
        {settings.bind: "BFF_BIND"} | dict.fromkeys(side, "BFF_FORWARD_AUTH_BIND"),
    )


@main.command()
@_version
def api() -> None:
    """Start the resource API, which validates every access token again.

    Configured by API_* variables; it knows nothing of the BFF.
    """
    from bff.logs import configure
    from bff.resource_api import settings as api_settings
    from bff.serving import serve as run
    from bff.tls import identity

    settings = _load(api_settings.load, api_settings.SettingsError)
    configure(settings.log_level, settings.log_format)

    def factory() -> Any:
        from a2wsgi import WSGIMiddleware

        from bff.resource_api import create_app

        return WSGIMiddleware(create_app(settings), workers=16)  # type: ignore[arg-type]

    _run(
        lambda: run(
            factory,
            name="bff-api",
            bind=settings.bind,
            workers=settings.workers,
            tls=identity(settings.tls_cert_file, settings.tls_key_file),
        ),
        {settings.bind: "API_BIND"},
    )


@main.command()
@_version
def idp() -> None:
    """Start the local identity provider. For development: it refuses BFF_ENV=production.

    Configured by IDP_* variables.
    """
    from bff.dev_idp import settings as idp_settings
    from bff.dev_idp.storage import open_storage
    from bff.logs import configure
    from bff.serving import serve as run
    from bff.tls import identity

    settings = _load(idp_settings.load, idp_settings.SettingsError)
    _load(lambda _environ: open_storage(settings.state_file).close(), idp_settings.SettingsError)
    configure(settings.log_level, settings.log_format)

    def factory() -> Any:
        from a2wsgi import WSGIMiddleware

        from bff.dev_idp import create_app

        return WSGIMiddleware(create_app(settings), workers=16)  # type: ignore[arg-type]

    _run(
        lambda: run(
            factory,
            name="bff-idp",
            bind=settings.bind,
            workers=1,
            tls=identity(settings.tls_cert_file, settings.tls_key_file),
        ),
        {settings.bind: "IDP_BIND"},
    )


@main.command()
@_version
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@click.option("--strict", is_flag=True, help="Exit with 1 for a warning, too.")
@click.option(
    "--show-config",
    is_flag=True,
    help="Also print the settings in force and where each came from, secrets masked.",
)
def check(*, as_json: bool, strict: bool, show_config: bool) -> None:
    """Look at everything the server depends on, and say what is wrong and how to mend it.

    Configured as `bff serve` is.
    """
    from bff.check import run
    from bff.logs import configure

    configure("error", "text")
    sys.exit(run(os.environ, as_json=as_json, strict=strict, show_config=show_config, out=sys.stdout))


@main.group()
@_version
def keys() -> None:
    """Keys for sealing what is stored."""


@keys.command()
@_version
def new() -> None:
    """Print a new key for BFF_SECRET_KEYS.

    Put it first in the list to rotate: the first key seals, all of them open.
    """
    from bff.sealing import new_key

    click.echo(new_key())


@keys.command()
@_version
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def public(file: Path) -> None:
    """Print the public JWKS of a client key, to register at the provider.

    FILE is what BFF_OIDC_CLIENT_KEY_FILE names: a PEM or JWK with the private key.
    """
    from bff.client_key import load_client_key, public_jwks

    try:
        click.echo(json.dumps(public_jwks(load_client_key(file)), indent=2))
    except (OSError, UnicodeDecodeError) as error:
        _fail(
            f"{file} cannot be read: {getattr(error, 'strerror', None) or 'it is not UTF-8'}", (), EXIT_FAILED
        )
    except ValueError as error:
        _fail(f"{file} {error}", (), EXIT_FAILED)


@main.group()
@_version
def sessions() -> None:
    """Who is signed in, and the power to end it.

    Configured as `bff serve` is.
    """


@sessions.command("list")
@_version
@click.option("--user", metavar="SUB", help="Only this user's, by the provider's `sub`.")
@click.option("--json", "as_json", is_flag=True, help="One JSON array.")
def list_sessions(*, user: str | None, as_json: bool) -> None:
    """List live sessions, the oldest first."""
    rows = _operate(lambda operations: operations.list(user))
    if as_json:
        click.echo(json.dumps(rows, indent=2))
    elif rows:
        for line in _table(rows):
            click.echo(line)
    else:
        click.echo("no sessions")


@sessions.command()
@_version
@click.argument("session_id", metavar="ID", required=False)
@click.option("--user", metavar="SUB", help="All sessions of this user, by the provider's `sub`.")
@click.option("--all", "everybody", is_flag=True, help="All sessions of everybody.")
def revoke(*, session_id: str | None, user: str | None, everybody: bool) -> None:
    """End sessions, and revoke their refresh tokens at the provider.

    With --user and --all, sign-ins under way are ended, too.
    """
    if sum((session_id is not None, user is not None, everybody)) != 1:
        raise click.UsageError("name one of: --user SUB, --all, or the ID of a session")
    if session_id is not None:
        ended = _operate(lambda operations: operations.revoke(session_id))
        if not ended:
            _fail("there is no session of this id", (), EXIT_FAILED)
    elif user is not None:
        ended = _operate(lambda operations: operations.revoke_user(user))
    else:
        ended = _operate(lambda operations: operations.revoke_all())
    click.echo(f"ended {ended} session{'' if ended == 1 else 's'}")


def _operate(work: Callable[[Operations], S]) -> S:
    """Run an operator's command on the sessions of the configured BFF."""
    from bff import settings as bff_settings
    from bff.errors import StoreUnavailable
    from bff.logs import configure
    from bff.operations import operations

    settings = _load(bff_settings.load, bff_settings.SettingsError)
    configure("warning", "text")
    try:
        with operations(settings) as run:
            return work(run)
    except StoreUnavailable as error:
        _fail(f"the sessions cannot be reached: {error.reason}", (), EXIT_FAILED)


def _table(rows: list[dict[str, str]]) -> list[str]:
    """Rows in columns, under their names."""
    names = list(rows[0])
    cells = [[name.upper().replace("_", " ") for name in names]]
    cells += [[_plain(row[name]) or "-" for name in names] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    padded = ([text.ljust(width) for text, width in zip(line, widths, strict=True)] for line in cells)
    return ["  ".join(line).rstrip() for line in padded]


def _plain(text: str) -> str:
    """What users chose must not steer the operator's terminal."""
    return "".join(char if char.isprintable() else "?" for char in text)


def _load(load: Callable[[Mapping[str, str]], S], error_type: type[Exception]) -> S:
    """The settings, or all problems at once and exit 2, before anything listens."""
    try:
        return load(os.environ)
    except error_type as error:
        problems: tuple[str, ...] = error.problems  # type: ignore[attr-defined]
        _fail(UNUSABLE, problems, EXIT_CONFIGURATION)


def _run(run: Callable[[], None], binds: dict[str, str]) -> None:
    """Run a server; `binds` are its addresses, each with the setting that it comes from."""
    from bff.tls import FilesRefused

    try:
        run()
    except FilesRefused as error:
        tls = next(iter(binds.values())).replace("_BIND", "_TLS")
        problem = f"{tls}_KEY_FILE or {tls}_CERT_FILE is wrong: {error}"
        _fail(UNUSABLE, (problem,), EXIT_CONFIGURATION)
    except OSError as error:
        bind = error.filename if error.filename in binds else next(iter(binds))
        variable = binds[bind]
        text = f"cannot listen on {bind}: {error.strerror or error}"
        if error.errno == errno.EADDRINUSE:
            _fail(f"{text}. Stop what uses it, or set {variable}.", (), EXIT_FAILED)
        elif error.errno == errno.EACCES:
            _fail(f"{text}. Take a port from 1024 on with {variable}.", (), EXIT_CONFIGURATION)
        _fail(f"{text}. Set {variable} to an address of this machine.", (), EXIT_CONFIGURATION)


def _fail(text: str, problems: tuple[str, ...], code: int) -> NoReturn:
    click.echo(f"bff: {text}", err=True)
    for problem in problems:
        click.echo(f"  - {problem}", err=True)
    sys.exit(code)
