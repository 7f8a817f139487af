"""The settings: what is read, what is refused, and that everything is said at once."""

from __future__ import annotations

import pytest

from bff.resource_api.settings import Settings, SettingsError, load, variable_of

GOOD = {"API_ISSUER": "https://issuer.example/pool", "API_CLIENT_IDS": "web-client"}


def test_the_defaults() -> None:
    """What the documentation promises where nothing is set."""
    settings = load(GOOD)
    assert settings.env == "production"
    assert settings.bind == "127.0.0.1:5001"
    assert settings.issuers == ("https://issuer.example/pool",)
    assert settings.token_profile == "cognito"
    assert settings.scope == "api://weather/access"
    assert settings.client_ids == {"web-client"}
    assert settings.audience is None
    assert settings.cors_origins == ()
    assert settings.clock_skew_seconds == 60
    assert settings.workers >= 1
    assert (settings.log_level, settings.log_format) == ("info", "json")


def test_everything_set() -> None:
    """Every variable reaches its field; lists are split at commas."""
    settings = load(
        {
            "API_BIND": "[::1]:8080",
            "API_ENV": "development",
            "API_ISSUER": "http://issuer.internal/, https://two.example",
            "API_TOKEN_PROFILE": "rfc9068",
            "API_SCOPE": "orders:read",
            "API_CLIENT_IDS": " one , two,",
            "API_AUDIENCE": "https://api.example",
            "API_CORS_ORIGINS": "https://app.example,http://localhost:5003",
            "API_CLOCK_SKEW_SECONDS": "0",
            "API_WORKERS": "3",
            "API_LOG_LEVEL": "DEBUG",
        }
    )
    assert settings.bind == "[::1]:8080"
    assert settings.issuers == ("http://issuer.internal/", "https://two.example")
    assert settings.token_profile == "rfc9068"
    assert settings.scope == "orders:read"
    assert settings.client_ids == {"one", "two"}
    assert settings.audience == "https://api.example"
    assert settings.cors_origins == ("https://app.example", "http://localhost:5003")
    assert (settings.clock_skew_seconds, settings.workers) == (0, 3)
    assert (settings.log_level, settings.log_format) == ("debug", "text")


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("API_BIND", "5001"),
        ("API_BIND", ":5001"),
        ("API_BIND", "127.0.0.1:"),
        ("API_BIND", "127.0.0.1:65536"),
        ("API_BIND", "127.0.0.1:-1"),
        ("API_BIND", "::1:5001"),
        ("API_BIND", "127.0.0.1:\u0663"),
        ("API_BIND", "b\u00fccher:80"),
        ("API_BIND", "a b:80"),
        ("API_BIND", "[zz]:80"),
        ("API_BIND", "[]:80"),
        ("API_ENV", "Production"),
        ("API_ENV", "prod"),
        ("API_ISSUER", "issuer.example"),
        ("API_ISSUER", "http://issuer.example"),
        ("API_ISSUER", "http://localhost.example"),
        ("API_ISSUER", "http://127.0.0.1.example"),
        ("API_ISSUER", "ftp://issuer.example"),
        ("API_ISSUER", "https://"),
        ("API_ISSUER", "https://user:hunter2@issuer.example"),
        ("API_ISSUER", "https://issuer.example?tenant=1"),
        ("API_ISSUER", "https://issuer.example#x"),
        ("API_ISSUER", "https://issuer.example\\@evil.example"),
        ("API_ISSUER", "https://issuer.example/a b"),
        ("API_ISSUER", "https://issuer.example:port"),
        ("API_ISSUER", "https://good.example,http://bad.example"),
        ("API_TOKEN_PROFILE", "entra"),
        ("API_SCOPE", "two scopes"),
        ("API_SCOPE", 'quo"te'),
        ("API_CORS_ORIGINS", "*"),
        ("API_CORS_ORIGINS", "null"),
        ("API_CORS_ORIGINS", "app.example"),
        ("API_CORS_ORIGINS", "https://app.example/"),
        ("API_CORS_ORIGINS", "https://app.example/path"),
        ("API_CORS_ORIGINS", "https://App.example"),
        ("API_CORS_ORIGINS", "https://app.example:443"),
        ("API_CORS_ORIGINS", "https://*.example"),
        ("API_CORS_ORIGINS", "https://u@app.example"),
        ("API_CLOCK_SKEW_SECONDS", "-1"),
        ("API_CLOCK_SKEW_SECONDS", "301"),
        ("API_CLOCK_SKEW_SECONDS", "1.5"),
        ("API_CLOCK_SKEW_SECONDS", "1_0"),
        ("API_CLOCK_SKEW_SECONDS", "nan"),
        ("API_WORKERS", "0"),
        ("API_WORKERS", "two"),
        ("API_LOG_LEVEL", "loud"),
        ("API_LOG_FORMAT", "xml"),
    ],
)
def test_a_bad_value_is_named_and_not_shown(variable: str, value: str) -> None:
    """One line with the variable's name, the cause and the fix; the value stays out of it."""
    with pytest.raises(SettingsError) as error:
        load({**GOOD, variable: value})
    (problem,) = error.value.problems
    assert problem.startswith(f"{variable} ")
    assert problem.endswith(".")
    assert "\n" not in problem
    assert "hunter2" not in str(error.value)
    assert "evil" not in str(error.value)
    assert error.value.__cause__ is None


@pytest.mark.parametrize(
    "issuer",
    [
        "http://localhost:5002/local_pool",
        "http://127.0.0.1:5002/",
        "http://[::1]:5002",
        "http://idp.localhost",
    ],
)
def test_plain_http_on_loopback_is_fine(issuer: str) -> None:
    """In production too: nobody is in between there."""
    assert load({**GOOD, "API_ISSUER": issuer}).issuers == (issuer,)


@pytest.mark.parametrize("field", sorted(set(Settings.model_fields)))
def test_what_is_not_utf_8_is_one_problem(field: str) -> None:
    """Python hands such bytes over as lone surrogates, which break whatever writes them out."""
    with pytest.raises(SettingsError) as error:
        load({**GOOD, variable_of(field): b"\xff:80".decode("utf-8", "surrogateescape")})
    assert error.value.problems == (f"{variable_of(field)} is not text in UTF-8: set it anew.",)


def test_all_problems_at_once() -> None:
    """Nobody mends a configuration one error at a time."""
    with pytest.raises(SettingsError) as error:
        load({"API_BIND": "x", "API_WORKERS": "x", "API_ENV": "x", "API_CORS_ORIGINS": "*,x"})
    names = [problem.split(" ", 1)[0] for problem in error.value.problems]
    assert sorted(set(names)) == [
        "API_BIND",
        "API_CLIENT_IDS",
        "API_CORS_ORIGINS",
        "API_ENV",
        "API_ISSUER",
        "API_WORKERS",
    ]
    assert len(names) == 7


@pytest.mark.parametrize("environ", [{}, {"API_CLIENT_IDS": " , ", "API_AUDIENCE": " "}])
def test_neither_clients_nor_audience(environ: dict[str, str]) -> None:
    """Every client of the issuer could call: it refuses to start, and names both variables."""
    with pytest.raises(SettingsError) as error:
        load({"API_ISSUER": GOOD["API_ISSUER"], **environ})
    (problem,) = error.value.problems
    assert "API_CLIENT_IDS" in problem
    assert "API_AUDIENCE" in problem


def test_an_audience_is_enough() -> None:
    """One of the two must be set, not both."""
    settings = load({"API_ISSUER": GOOD["API_ISSUER"], "API_AUDIENCE": "api"})
    assert (settings.audience, settings.client_ids) == ("api", frozenset())


def test_an_empty_variable_counts_as_unset() -> None:
    """Compose files set variables to nothing."""
    assert load({**GOOD, **{variable_of(f): "" for f in ("bind", "scope", "workers")}}) == load(GOOD)


def test_settings_are_frozen() -> None:
    """What was read at start holds until the end."""
    with pytest.raises(ValueError):
        load(GOOD).scope = "other"


def test_settings_print_nothing_odd() -> None:
    """The repr is that of a plain model: names and values, none of them secret."""
    assert repr(load(GOOD)).startswith("Settings(")
    assert set(Settings.model_fields) == {
        "env", "bind", "tls_cert_file", "tls_key_file", "issuer_ca_file", "issuers", "token_profile", "scope",
        "client_ids", "audience", "cors_origins",
        "clock_skew_seconds", "workers", "log_level", "log_format",
    }  # fmt: skip
