"""The commands. Nothing here is imported beyond click before a command runs: `bff` must start fast."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn, TypeVar

import click

from bff._version import __version__

C = TypeVar("C", bound=Callable[..., Any])

_version = click.version_option(__version__, prog_name="bff")


def _account_options(command: C) -> C:
    """Where in AWS, for every command."""
    region = click.option("--region", metavar="REGION", help="AWS region; else as the AWS CLI finds it.")
    profile = click.option("--profile", metavar="NAME", help="Profile of the AWS configuration.")
    return profile(region(command))


@click.group()
@_version
def cognito() -> None:
    """Amazon Cognito: settings out of a stack, and users to try it with.

    Needs boto3 (the extra `cognito`) and AWS credentials, found as the AWS CLI finds them. The stack is one
    of deploy/cognito/template.yaml; docs/cognito.md has the whole way.
    """


@cognito.command()
@_version
@click.option("--stack", required=True, metavar="NAME", help="The CloudFormation stack, by name or ARN.")
@click.option("--secrets", "with_secrets", is_flag=True, help="Also the clients' secrets, asked of Cognito.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@_account_options
def env(*, stack: str, with_secrets: bool, as_json: bool, region: str | None, profile: str | None) -> None:
    """Print the settings that a stack's outputs are, as NAME=value lines for a shell.

    Docker Compose and systemd read such a file, too; `docker run --env-file` does not: it takes the quotation
    marks for a part of the value.

    Secrets are no outputs, and are printed with --secrets only: send them to where you keep secrets.
    """
    from bff.cognito.aws import Account
    from bff.cognito.stack import read_secrets, read_stack

    account = Account(profile, region)
    with _told():
        found = read_stack(account, stack)
        settings = {**found.settings, **(read_secrets(account, found) if with_secrets else {})}
    if as_json:
        click.echo(json.dumps(settings, indent=2))
    else:
        for name, value in settings.items():
            click.echo(f"{name}={shlex.quote(value)}")
    if not with_secrets:
        click.echo("bff: the clients' secrets are not among these; --secrets prints them, too", err=True)


@cognito.group()
@_version
def user() -> None:
    """Users of a pool."""


@user.command()
@_version
@click.argument("email")
@click.option("--stack", metavar="NAME", help="The CloudFormation stack that has the pool.")
@click.option("--pool", metavar="ID", help="The user pool itself, in place of --stack.")
@click.option(
    "--group",
    "groups",
    multiple=True,
    default=("readers",),
    show_default=True,
    metavar="NAME",
    help="A group to put the user in; may be repeated.",
)
@click.option("--name", metavar="TEXT", help="The user's full name.")
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input.")
@_account_options
def create(
    *,
    email: str,
    stack: str | None,
    pool: str | None,
    groups: tuple[str, ...],
    name: str | None,
    password_stdin: bool,
    region: str | None,
    profile: str | None,
) -> None:
    """Make a test user with a confirmed address; no message is sent.

    Prints a new random password, unless it came on standard input: on the command line everybody on this
    machine could read it.
    """
    from bff.cognito.aws import Account
    from bff.cognito.stack import read_stack
    from bff.cognito.users import create_user, new_password

    if (stack is None) == (pool is None):
        raise click.UsageError("name one of: --stack NAME, --pool ID")
    password = _read_password() if password_stdin else new_password()
    account, distinct = Account(profile, region), tuple(dict.fromkeys(groups))
    with _told():
        pool_id = pool or read_stack(account, str(stack)).user_pool_id
        create_user(account, pool_id, email, password, distinct, name)
    click.echo(f"created {email} in {', '.join(distinct)}")
    if not password_stdin:
        click.echo(f"password: {password}")


def _read_password() -> str:
    password = sys.stdin.readline().rstrip("\r\n")
    if not password:
        _fail("standard input has no password in its first line")
    return password


@contextmanager
def _told() -> Iterator[None]:
    """What AWS refuses, told in a sentence, with exit status 1."""
    from bff.cognito.aws import AwsRefused

    try:
        yield
    except AwsRefused as refused:
        _fail(str(refused))


def _fail(text: str) -> NoReturn:
    click.echo(f"bff: {text}", err=True)
    sys.exit(1)
