"""`bff cognito` against an account in memory, and what a person is told where AWS says no."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from click.testing import CliRunner, Result

import bff.settings
from benchmarks.proxy.programs import free_port
from bff.cli import main
from bff.cognito import stack, users
from bff.cognito.aws import Account
from bff.devstack.plan import make_plan
from bff.sealing import new_key
from tests.cognito.account import REGION, STACK, Built, client, make_stack

pytestmark = pytest.mark.usefixtures("aws")

EMAIL = "test.user@example.com"


@pytest.fixture
def pool(built: Built) -> Built:
    """The template's resources and a stack with its outputs."""
    make_stack(built.evaluation.outputs())
    return built


def run(*arguments: str, stdin: str | None = None) -> Result:
    """Run `bff cognito …` in this process."""
    return CliRunner().invoke(main, ["cognito", *arguments], input=stdin)


def variables(output: str) -> dict[str, str]:
    """What a shell makes of NAME=value lines."""
    return dict(pair.split("=", 1) for pair in shlex.split(output))


def refused(result: Result, *parts: str) -> bool:
    """One sentence on standard error, nothing on standard output, exit status 1."""
    assert result.exit_code == 1, result.output
    assert result.stdout == ""
    assert result.stderr.startswith("bff: ")
    assert result.stderr.count("\n") == 1
    assert "Traceback" not in result.stderr
    return all(part in result.stderr for part in parts)


def test_env_prints_the_settings_of_the_stack(pool: Built) -> None:
    """Each output under its setting's name, fit for a shell; other outputs and secrets stay out."""
    result = run("env", "--stack", STACK)
    assert result.exit_code == 0, result.output
    app, service = (pool.evaluation.known[name] for name in ("AppClient", "ServiceClient"))
    assert variables(result.stdout) == {
        "BFF_PUBLIC_URL": "http://localhost:5003",
        "BFF_OIDC_ISSUER": pool.issuer,
        "BFF_OIDC_CLIENT_ID": app,
        "BFF_OIDC_SCOPE": "openid email profile api://weather/access",
        "BFF_SERVICE_CLIENT_ID": service,
        "API_ISSUER": pool.issuer,
        "API_CLIENT_IDS": f"{app},{service}",
        "API_SCOPE": "api://weather/access",
    }
    assert "--secrets" in result.stderr


def test_env_prints_secrets_when_told_to(pool: Built) -> None:
    """With --secrets the two clients' secrets come along, and the whole is a configuration that loads."""
    result = run("env", "--stack", STACK, "--secrets", "--region", REGION)
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    printed = variables(result.stdout)
    assert printed["BFF_OIDC_CLIENT_SECRET"] == pool.app_client("AppClient")["ClientSecret"]
    assert printed["BFF_SERVICE_CLIENT_SECRET"] == pool.app_client("ServiceClient")["ClientSecret"]
    named = {name: value for name, value in printed.items() if name.startswith("BFF_")}
    more = {
        "BFF_ENV": "development",
        "BFF_REDIS_URL": "redis://localhost",
        "BFF_SECRET_KEYS": new_key(),
        "BFF_API_URL": "http://localhost:5001",
    }
    assert bff.settings.load({**named, **more}).oidc_issuer == pool.issuer


def test_the_local_stack_runs_with_them(pool: Built, tmp_path: Path) -> None:
    """With the printed variables `bff dev` starts no provider of its own, and the API gets its settings."""
    printed = variables(run("env", "--stack", STACK, "--secrets").stdout)
    plan = make_plan({**printed, "XDG_STATE_HOME": str(tmp_path), **ports()}, reset=False, https=False)
    os.close(plan.lock)
    assert not plan.local_idp
    assert plan.issuer == pool.issuer
    assert {name: plan.environ[name] for name in printed} == printed
    assert plan.environ["BFF_OIDC_PROFILE"] == "auto"


def ports() -> dict[str, str]:
    """Addresses that are free."""
    return {name: f"127.0.0.1:{free_port()}" for name in ("BFF_BIND", "API_BIND")}


def test_env_as_json(pool: Built) -> None:
    """The same as one object, unquoted."""
    result = run("env", "--stack", STACK, "--json")
    assert json.loads(result.stdout)["BFF_OIDC_SCOPE"] == "openid email profile api://weather/access"
    assert len(json.loads(result.stdout)) == 8


def test_values_are_quoted_for_a_shell() -> None:
    """An output is somebody's text: in a shell it stays one word."""
    hostile = "api://x/$(touch /tmp/x) `id` 'a'\n;b"
    make_stack({"UserPoolId": f"{REGION}_x", "BffOidcIssuer": "https://x", "ApiScope": hostile})
    assert variables(run("env", "--stack", STACK).stdout)["API_SCOPE"] == hostile


@pytest.mark.parametrize(
    ("output", "setting"),
    [
        ("BffOidcIssuer", "BFF_OIDC_ISSUER"),
        ("ApiClientIds", "API_CLIENT_IDS"),
        ("BffPublicUrl", "BFF_PUBLIC_URL"),
        ("UserPoolId", "USER_POOL_ID"),
    ],
)
def test_names_of_outputs(output: str, setting: str) -> None:
    """CloudFormation takes letters and digits only."""
    assert stack.setting_name(output) == setting


@pytest.mark.parametrize(
    "command", [("env", "--stack", "none"), ("user", "create", EMAIL, "--stack", "none")], ids=["env", "user"]
)
def test_a_stack_that_is_not_there(command: tuple[str, ...]) -> None:
    """AWS's own words, in one line."""
    assert refused(run(*command), "none", "DescribeStacks")


def test_a_stack_of_something_else() -> None:
    """What is missing, and which template has it."""
    make_stack({"Bucket": "x"})
    assert refused(
        run("env", "--stack", STACK), "UserPoolId", "CREATE_COMPLETE", "deploy/cognito/template.yaml"
    )


def test_a_client_without_a_secret(pool: Built) -> None:
    """It never gets one, so the fix is another client."""
    public = client().create_user_pool_client(UserPoolId=pool.pool_id, ClientName="public")["UserPoolClient"]
    outputs = {**pool.evaluation.outputs(), "BffOidcClientId": public["ClientId"]}
    make_stack(outputs, "other")
    assert refused(run("env", "--stack", "other", "--secrets"), "BFF_OIDC_CLIENT_ID", "no secret")


def user_of(pool: Built) -> dict[str, Any]:
    """The user as the pool has it."""
    return client().admin_get_user(UserPoolId=pool.pool_id, Username=EMAIL)  # type: ignore[no-any-return]


def groups_of(pool: Built) -> list[str]:
    """Names of the user's groups."""
    found = client().admin_list_groups_for_user(UserPoolId=pool.pool_id, Username=EMAIL)["Groups"]
    return [group["GroupName"] for group in found]


@pytest.mark.parametrize(
    ("options", "groups"),
    [
        ((), ["readers"]),
        (("--group", "admins", "--group", "readers", "--group", "admins"), ["admins", "readers"]),
    ],
)
def test_a_user_can_sign_in_at_once(pool: Built, options: tuple[str, ...], groups: list[str]) -> None:
    """Confirmed, with a verified address, in its groups; the password that was printed is the user's."""
    result = run("user", "create", EMAIL, "--stack", STACK, *options)
    assert result.exit_code == 0, result.output
    first, second = result.stdout.splitlines()
    assert first == f"created {EMAIL} in {', '.join(groups)}"
    assert user_of(pool)["UserStatus"] == "CONFIRMED"
    attributes = {each["Name"]: each["Value"] for each in user_of(pool)["UserAttributes"]}
    assert attributes["email"] == EMAIL
    assert attributes["email_verified"] == "true"
    assert sorted(groups_of(pool)) == groups
    assert tokens_for(pool, second.removeprefix("password: "))["TokenType"] == "Bearer"


def tokens_for(pool: Built, password: str) -> dict[str, Any]:
    """Sign in as the user, by the API."""
    answer = client().admin_initiate_auth(
        UserPoolId=pool.pool_id,
        ClientId=client().create_user_pool_client(UserPoolId=pool.pool_id, ClientName="x")["UserPoolClient"][
            "ClientId"
        ],
        AuthFlow="ADMIN_USER_PASSWORD_AUTH",
        AuthParameters={"USERNAME": EMAIL, "PASSWORD": password},
    )
    return answer["AuthenticationResult"]  # type: ignore[no-any-return]


def test_a_password_of_ones_own_is_not_shown(pool: Built) -> None:
    """From standard input, and nowhere in the output; a pool can be named without a stack."""
    password = "Correct-horse-1"
    result = run(
        "user", "create", EMAIL, "--pool", pool.pool_id, "--name", "Test User", "--password-stdin",
        stdin=f"{password}\n",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert password not in result.output
    assert tokens_for(pool, password)
    attributes = {each["Name"]: each["Value"] for each in user_of(pool)["UserAttributes"]}
    assert attributes["name"] == "Test User"


def test_nobody_gets_a_message(pool: Built, monkeypatch: pytest.MonkeyPatch) -> None:
    """A test user's address may be somebody's: Cognito is told to send nothing."""
    asked: list[dict[str, Any]] = []
    genuine = Account.client

    def watched(account: Account, service: str) -> Any:
        made = genuine(account, service)
        made.meta.events.register(
            "provide-client-params.cognito-identity-provider.AdminCreateUser",
            lambda params, **_: asked.append(params),
        )
        return made

    monkeypatch.setattr(Account, "client", watched)
    assert run("user", "create", EMAIL, "--stack", STACK).exit_code == 0
    assert [each["MessageAction"] for each in asked] == ["SUPPRESS"]


@pytest.mark.parametrize("stdin", ["", "\n"])
def test_no_password_on_standard_input(pool: Built, stdin: str) -> None:
    """It is no password, and no user is made."""
    assert refused(
        run("user", "create", EMAIL, "--stack", STACK, "--password-stdin", stdin=stdin), "password"
    )
    assert client().list_users(UserPoolId=pool.pool_id)["Users"] == []


@pytest.mark.parametrize(
    ("options", "stdin", "parts"),
    [
        (("--group", "nobody"), None, ("ResourceNotFoundException", "GetGroup")),
        (("--password-stdin",), "short\n", ("InvalidPasswordException",)),
    ],
    ids=["no such group", "policy"],
)
def test_what_is_refused_leaves_no_user_behind(
    pool: Built, options: tuple[str, ...], stdin: str | None, parts: tuple[str, ...]
) -> None:
    """A group that does not exist, a password that breaks the policy: a sentence, and no half-made user."""
    result = run("user", "create", EMAIL, "--stack", STACK, *options, stdin=stdin)
    assert refused(result, *parts)
    assert "short" not in result.stderr.replace("too short", "")
    assert client().list_users(UserPoolId=pool.pool_id)["Users"] == []


class Limited:
    """The account's client, for somebody whose policy lacks some calls."""

    def __init__(self, **refusals: BaseException) -> None:
        self._refusals = refusals

    def __getattr__(self, name: str) -> Any:
        if name not in self._refusals:
            return getattr(client(), name)

        def refuse(**_: object) -> None:
            raise self._refusals[name]

        return refuse


def denied(operation: str) -> ClientError:
    return ClientError({"Error": {"Code": "AccessDeniedException", "Message": "no"}}, operation)


def test_ctrl_c_leaves_no_user_behind(pool: Built, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user who was interrupted half-way is deleted again."""
    limited = Limited(admin_add_user_to_group=KeyboardInterrupt())
    monkeypatch.setattr(Account, "client", lambda *_: limited)
    assert run("user", "create", EMAIL, "--pool", pool.pool_id).exit_code == 1
    assert client().list_users(UserPoolId=pool.pool_id)["Users"] == []


def test_a_user_that_cannot_be_deleted_again_is_named(pool: Built, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason that came first is told, not only that tidying up is not allowed either."""
    limited = Limited(
        admin_add_user_to_group=denied("AdminAddUserToGroup"), admin_delete_user=denied("AdminDeleteUser")
    )
    monkeypatch.setattr(Account, "client", lambda *_: limited)
    result = run("user", "create", EMAIL, "--pool", pool.pool_id)
    assert refused(result, "AdminAddUserToGroup", f"{EMAIL} stays half-made", "AdminDeleteUser")


def test_a_user_that_exists_is_not_touched(pool: Built) -> None:
    """The second time is an error, and the first password still works."""
    first = run("user", "create", EMAIL, "--stack", STACK)
    password = first.stdout.splitlines()[1].removeprefix("password: ")
    again = run("user", "create", EMAIL, "--stack", STACK, "--group", "admins")
    assert refused(again, "UsernameExistsException", "AdminCreateUser")
    assert groups_of(pool) == ["readers"]
    assert tokens_for(pool, password)


@pytest.mark.parametrize("options", [(), ("--stack", "a", "--pool", "b")])
def test_stack_or_pool(options: tuple[str, ...]) -> None:
    """One of the two, or it is a question of usage."""
    result = run("user", "create", EMAIL, *options)
    assert result.exit_code == 2
    assert "--stack NAME, --pool ID" in result.stderr


def test_passwords_satisfy_every_policy() -> None:
    """Twenty characters with one of each kind, and never the same twice."""
    made = {users.new_password() for _ in range(200)}
    assert len(made) == 200
    for password in made:
        assert len(password) == 20
        assert all(any(char in kind for char in password) for kind in users.KINDS)


def test_without_boto3_it_says_how_to_install_it() -> None:
    """One sentence with the command for this very Python, exit status 1, no stack trace."""
    code = (
        "import sys; sys.modules['boto3'] = None\n"
        "from bff.cli import main\n"
        "sys.argv = ['bff', 'cognito', 'env', '--stack', 'x']\n"
        "main()"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert f"{sys.executable} -m pip install 'boto3" in result.stderr


def test_nothing_of_aws_is_loaded_before_it_is_needed() -> None:
    """`bff`, its help and the server start without boto3, installed or not."""
    code = "import sys, bff.cli, bff.app; print([n for n in ('boto3', 'botocore') if n in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_no_region(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which option and which variable set it."""
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    assert refused(run("env", "--stack", STACK), "--region", "AWS_REGION")


@pytest.mark.parametrize("variable", ["AWS_REGION", "AWS_DEFAULT_REGION"])
def test_the_region_is_found_as_the_aws_cli_finds_it(
    pool: Built, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    """boto3 alone knows the second of them only. The option has the last word."""
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    monkeypatch.setenv(variable, REGION)
    assert run("env", "--stack", STACK).exit_code == 0
    monkeypatch.setenv(variable, "us-east-2")
    assert refused(run("env", "--stack", STACK), "DescribeStacks")
    assert run("env", "--stack", STACK, "--region", REGION).exit_code == 0


def test_no_such_profile() -> None:
    """The option is named, not the file's content."""
    assert refused(run("env", "--stack", STACK, "--profile", "nobody"), "--profile")


def failing(error: Exception) -> Any:
    """A client whose calls all fail."""

    class Client:
        def describe_stacks(self, **_: str) -> None:
            raise error

    return Client()


def client_error(code: str, text: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": text}}, "DescribeStacks")


def cases() -> list[tuple[Exception, tuple[str, ...]]]:
    """What boto3 can raise, and what a person must be told."""
    from botocore import exceptions as failures

    return [
        (failures.NoCredentialsError(), ("credentials", "aws configure")),
        (failures.PartialCredentialsError(provider="env", cred_var="x"), ("credentials",)),
        (failures.UnauthorizedSSOTokenError(), ("credentials", "aws sso login")),
        (failures.EndpointConnectionError(endpoint_url="https://x"), ("cannot be reached", "network")),
        (failures.ConnectTimeoutError(endpoint_url="https://x"), ("cannot be reached",)),
        (failures.SSLError(endpoint_url="https://x", error="e"), ("cannot be reached",)),
        (failures.ParamValidationError(report="secret value"), ("check the options",)),
        (client_error("AccessDenied", "User: arn:… is not authorized"), ("may not call DescribeStacks",)),
        (client_error("AccessDeniedException", "no"), ("may not call DescribeStacks",)),
        (client_error("ExpiredToken", "The security token\r\n\x1b[31mexpired"), ("ExpiredToken", "expired")),
        (client_error("Throttling", "x" * 5000), ("Throttling",)),
        (ClientError({}, "DescribeStacks"), ("no code",)),
    ]


@pytest.mark.parametrize(("error", "parts"), cases(), ids=lambda value: type(value).__name__)
def test_what_aws_says_becomes_a_sentence(
    monkeypatch: pytest.MonkeyPatch, error: Exception, parts: tuple[str, ...]
) -> None:
    """One line of printable text that says what to do, whatever boto3 raises."""
    monkeypatch.setattr("boto3.Session.client", lambda *_, **__: failing(error))
    result = run("env", "--stack", STACK)
    assert refused(result, *parts)
    assert len(result.stderr) < 600
    assert result.stderr.rstrip("\n").isprintable()
    assert "secret value" not in result.stderr
