"""Settings from the environment."""

import subprocess
import sys
from pathlib import Path

import pytest

from bff.dev_idp import Settings, SettingsError, load


def _problems(environ: dict[str, str]) -> tuple[str, ...]:
    with pytest.raises(SettingsError) as caught:
        load(environ)
    return caught.value.problems


def test_defaults_are_the_local_stacks() -> None:
    """An empty environment is enough."""
    settings = load({})
    assert settings == Settings()
    assert settings.bind == "127.0.0.1:5002"
    assert settings.issuer == "http://localhost:5002/local_pool"
    assert settings.public_url == settings.backend_url == "http://127.0.0.1:5002"
    assert settings.redirect_uris == ("http://localhost:5003/bff/callback",)
    assert settings.logout_uris == ("http://localhost:5003/",)
    assert (settings.access_token_seconds, settings.refresh_token_seconds) == (300, 86400)
    assert (settings.refresh_rotation, settings.refresh_grace_seconds) == (True, 0)
    assert settings.state_file is None
    assert settings.control_token == ""


def test_every_variable_is_read(tmp_path: Path) -> None:
    """Each setting can be changed from outside."""
    settings = load(
        {
            "IDP_BIND": "0.0.0.0:6002",
            "IDP_ISSUER": "https://idp.example/pool/",
            "IDP_PUBLIC_URL": "https://idp.example/",
            "IDP_BACKEND_URL": "http://idp:6002",
            "IDP_CLIENT_ID": "app",
            "IDP_CLIENT_SECRET": "secret",
            "IDP_REDIRECT_URIS": "https://a.example/cb, https://b.example/cb",
            "IDP_LOGOUT_URIS": "https://a.example/",
            "IDP_SERVICE_CLIENT_ID": "service",
            "IDP_SERVICE_CLIENT_SECRET": "service-secret",
            "IDP_SCOPE_API": "api/read",
            "IDP_ACCESS_TOKEN_SECONDS": "60",
            "IDP_REFRESH_TOKEN_SECONDS": "600",
            "IDP_REFRESH_ROTATION": "off",
            "IDP_REFRESH_GRACE_SECONDS": "10",
            "IDP_CONTROL_TOKEN": "!~0123456789abcd",
            "IDP_STATE_FILE": str(tmp_path / "state"),
            "IDP_LOG_LEVEL": "DEBUG",
            "IDP_LOG_FORMAT": "json",
            "BFF_ENV": "development",
        }
    )
    assert settings == Settings(
        bind="0.0.0.0:6002",
        issuer="https://idp.example/pool/",
        public_url="https://idp.example",
        backend_url="http://idp:6002",
        client_id="app",
        client_secret="secret",
        redirect_uris=("https://a.example/cb", "https://b.example/cb"),
        logout_uris=("https://a.example/",),
        service_client_id="service",
        service_client_secret="service-secret",
        scope_api="api/read",
        access_token_seconds=60,
        refresh_token_seconds=600,
        refresh_rotation=False,
        refresh_grace_seconds=10,
        control_token="!~0123456789abcd",
        state_file=tmp_path / "state",
        log_level="debug",
        log_format="json",
    )


def test_backend_follows_the_public_address() -> None:
    """Only containers need to set it."""
    settings = load({"IDP_PUBLIC_URL": "http://idp.test:5002"})
    assert settings.backend_url == "http://idp.test:5002"


@pytest.mark.parametrize("value", ["production", "Production", " production "])
def test_production_is_refused(value: str) -> None:
    """Its passwords are published."""
    (problem,) = _problems({"BFF_ENV": value})
    assert problem.startswith("BFF_ENV: ")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("IDP_BIND", "5002"),
        ("IDP_BIND", "localhost:"),
        ("IDP_BIND", "localhost:99999"),
        ("IDP_BIND", "a b:1"),
        ("IDP_ISSUER", "localhost/pool"),
        ("IDP_ISSUER", "http://localhost/pool?x=1"),
        ("IDP_ISSUER", "http://localhost/pool#x"),
        ("IDP_ISSUER", "http://localhost/<pool>"),
        ("IDP_PUBLIC_URL", "http://localhost/path"),
        ("IDP_PUBLIC_URL", "ftp://localhost"),
        ("IDP_PUBLIC_URL", "http://user@localhost"),
        ("IDP_PUBLIC_URL", "http://"),
        ("IDP_PUBLIC_URL", "http://localhost:port"),
        ("IDP_BACKEND_URL", "idp:5002"),
        ("IDP_REDIRECT_URIS", "javascript:alert(1)"),
        ("IDP_REDIRECT_URIS", "http://localhost/cb,/bff/callback"),
        ("IDP_REDIRECT_URIS", "http://localhost/cb#x"),
        ("IDP_REDIRECT_URIS", "http://evil.example\\@localhost/"),
        ("IDP_LOGOUT_URIS", "http://local host/"),
        ("IDP_SCOPE_API", "two scopes"),
        ("IDP_ACCESS_TOKEN_SECONDS", "0"),
        ("IDP_ACCESS_TOKEN_SECONDS", "-5"),
        ("IDP_ACCESS_TOKEN_SECONDS", "1e3"),
        ("IDP_ACCESS_TOKEN_SECONDS", "٣٠٠"),
        ("IDP_REFRESH_TOKEN_SECONDS", "9" * 5000),
        ("IDP_REFRESH_ROTATION", "maybe"),
        ("IDP_REFRESH_GRACE_SECONDS", "1.5"),
        ("IDP_STATE_FILE", "/"),
        ("IDP_STATE_FILE", "/no/such/directory/state"),
        ("IDP_LOG_LEVEL", "loud"),
        ("IDP_LOG_FORMAT", "xml"),
        ("IDP_SERVICE_CLIENT_ID", "service"),
        ("IDP_CLIENT_SECRET_FILE", "/no/such/file"),
        ("IDP_CONTROL_TOKEN", "fifteen-charact"),
        ("IDP_CONTROL_TOKEN", "with a blank in the middle"),
        ("IDP_CONTROL_TOKEN", "sixteen-or-more-é"),
        ("IDP_CONTROL_TOKEN", "sixteen-or-more-\x7f"),
        ("IDP_CONTROL_TOKEN", "sixteen-or-more-\n"),
        ("IDP_CONTROL_TOKEN", "x" * 513),
        ("IDP_CONTROL_TOKEN_FILE", "/no/such/file"),
    ],
)
def test_bad_value_is_one_problem_with_cause_and_fix(name: str, value: str) -> None:
    """The line begins with a variable's name and doesn't repeat what may be a secret."""
    (problem,) = _problems({name: value})
    assert problem.startswith(name.removesuffix("CLIENT_ID"))
    assert problem.count(". ") >= 1
    assert problem.endswith(".")


def test_a_bad_control_token_is_not_repeated() -> None:
    """It may be a real one with a typing error."""
    (problem,) = _problems({"IDP_CONTROL_TOKEN": "hush hush hush hush"})
    assert "hush" not in problem


def test_control_token_from_a_file(tmp_path: Path) -> None:
    """Like every secret."""
    path = tmp_path / "token"
    path.write_text("0123456789abcdef\n")
    assert load({"IDP_CONTROL_TOKEN_FILE": str(path)}).control_token == "0123456789abcdef"


def test_all_problems_come_at_once() -> None:
    """Nobody should have to start five times."""
    problems = _problems(
        {
            "BFF_ENV": "production",
            "IDP_BIND": "x",
            "IDP_ISSUER": "y",
            "IDP_LOG_LEVEL": "z",
            "IDP_SERVICE_CLIENT_SECRET": "s",
        }
    )
    assert [problem.partition(":")[0] for problem in problems] == [
        "BFF_ENV",
        "IDP_SERVICE_CLIENT_ID",
        "IDP_BIND",
        "IDP_ISSUER",
        "IDP_LOG_LEVEL",
    ]


def test_both_clients_need_names_of_their_own() -> None:
    """One name can't have two secrets."""
    problems = _problems({"IDP_SERVICE_CLIENT_ID": "local-client", "IDP_SERVICE_CLIENT_SECRET": "s"})
    assert len(problems) == 1


@pytest.mark.parametrize("content", ["file-secret\n", "file-secret\r\n", "file-secret"])
def test_secret_from_a_file_without_its_final_newline(tmp_path: Path, content: str) -> None:
    """Editors add one; blanks inside belong to the secret."""
    path = tmp_path / "secret"
    path.write_bytes(content.encode())
    assert load({"IDP_CLIENT_SECRET_FILE": str(path)}).client_secret == "file-secret"


def test_secret_given_twice_or_empty(tmp_path: Path) -> None:
    """Two sources are a mistake, and so is an empty file."""
    path = tmp_path / "secret"
    path.write_text("\n")
    assert len(_problems({"IDP_CLIENT_SECRET_FILE": str(path)})) == 1
    both = {"IDP_CLIENT_SECRET_FILE": str(path), "IDP_CLIENT_SECRET": "hush-hush"}
    (problem,) = _problems(both)
    assert "hush-hush" not in problem


def test_secrets_are_masked_in_repr() -> None:
    """A settings object may end up in a log or a traceback."""
    secrets = ("client_secret", "service_client_secret", "control_token")
    shown = repr(Settings(**dict.fromkeys(secrets, "hush-hush")))  # type: ignore[arg-type]
    assert "hush" not in shown


def test_importing_the_package_loads_no_framework() -> None:
    """The command line imports it for its settings; Flask and Authlib wait for create_app."""
    code = (
        "import sys, bff.dev_idp;"
        "print([n for n in ('flask', 'authlib', 'joserfc', 'sqlite3') if n in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
