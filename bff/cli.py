"""The `bff` command. Each command imports what it needs, so that the others start fast."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any, NoReturn, TypeVar

import click

from bff._version import __version__

EXIT_FAILED = 1
EXIT_CONFIGURATION = 2

S = TypeVar("S")


_version = click.version_option(__version__, prog_name="bff")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@_version
def main() -> None:
    """A backend-for-frontend: browsers hold a session cookie, the tokens stay here.

    Try `bff dev` first: it starts the whole local stack and says where to go.
    """


@main.command()
@_version
@click.option("--reset", is_flag=True, help="Forget sessions, accounts and keys of earlier runs first.")
def dev(*, reset: bool) -> None:
    """Start the whole local stack: Redis, identity provider, resource API and BFF.

    Everything follows from BFF_BIND, API_BIND and IDP_BIND unless it is set. Stop it with Ctrl-C.
    """
    from bff.devstack import run

    sys.exit(run(os.environ, reset=reset))


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

    def factory() -> Any:
        from bff.app import create_app

        return create_app(settings)

    _run(
        lambda: run(
            factory,
            name="bff",
            bind=settings.bind,
            workers=settings.workers,
            max_header_bytes=settings.max_header_bytes,
            secure=settings.secure,
        ),
        settings.bind,
        "BFF_BIND",
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

    settings = _load(api_settings.load, api_settings.SettingsError)
    configure(settings.log_level, settings.log_format)

    def factory() -> Any:
        from a2wsgi import WSGIMiddleware

        from bff.resource_api import create_app

        return WSGIMiddleware(create_app(settings), workers=16)  # type: ignore[arg-type]

    _run(
        lambda: run(factory, name="bff-api", bind=settings.bind, workers=settings.workers),
        settings.bind,
        "API_BIND",
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

    settings = _load(idp_settings.load, idp_settings.SettingsError)
    _load(lambda _environ: open_storage(settings.state_file).close(), idp_settings.SettingsError)
    configure(settings.log_level, settings.log_format)

    def factory() -> Any:
        from a2wsgi import WSGIMiddleware

        from bff.dev_idp import create_app

        return WSGIMiddleware(create_app(settings), workers=16)  # type: ignore[arg-type]

    _run(
        lambda: run(factory, name="bff-idp", bind=settings.bind, workers=1),
        settings.bind,
        "IDP_BIND",
    )


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


def _load(load: Callable[[Mapping[str, str]], S], error_type: type[Exception]) -> S:
    """The settings, or all problems at once and exit 2, before anything listens."""
    try:
        return load(os.environ)
    except error_type as error:
        problems: tuple[str, ...] = error.problems  # type: ignore[attr-defined]
        _fail("the configuration cannot be used:", problems, EXIT_CONFIGURATION)


def _run(run: Callable[[], None], bind: str, variable: str) -> None:
    try:
        run()
    except OSError as error:
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
