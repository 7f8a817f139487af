"""Settings: every bad value is named with its fix, all at once, and no secret is ever shown."""

from __future__ import annotations

import os
from collections.abc import Callable
from ipaddress import ip_network
from pathlib import Path

import pytest

from bff.sealing import new_key
from bff.settings import Settings, SettingsError, load
from bff.settings.redis_url import TLS, Login, RedisAddress

GOOD_KEY = new_key()
BASE = {
    "BFF_PUBLIC_URL": "https://app.example.com",
    "BFF_OIDC_ISSUER": "https://issuer.example/pool",
    "BFF_OIDC_CLIENT_ID": "client",
    "BFF_OIDC_CLIENT_SECRET": "s3cr3t-of-the-client",
    "BFF_REDIS_URL": "redis://:s3cr3t-of-redis@redis:6379/0",
    "BFF_SECRET_KEYS": GOOD_KEY,
    "BFF_API_URL": "http://api:5001",
}
DEVELOPMENT = {"BFF_ENV": "development"}

TOMLFile = Callable[[str], dict[str, str]]


@pytest.fixture
def toml(tmp_path: Path) -> TOMLFile:
    """Writes a TOML file; the environment that names it."""

    def write(text: str) -> dict[str, str]:
        path = tmp_path / "bff.toml"
        path.write_text(text, encoding="utf-8")
        return {"BFF_CONFIG": str(path)}

    return write


def secret_of(settings: Settings) -> str:
    """The client's secret."""
    assert settings.oidc_client_secret is not None
    return settings.oidc_client_secret.get_secret_value()


def problems(environ: dict[str, str]) -> list[str]:
    """What is wrong with a configuration; nothing where it loads."""
    try:
        load(environ)
    except SettingsError as error:
        return list(error.problems)
    return []


def without(*names: str) -> dict[str, str]:
    """The base configuration without these."""
    return {name: value for name, value in BASE.items() if name not in names}


def test_defaults_are_those_of_the_reference() -> None:
    """What the documentation promises where nothing is set."""
    settings = load(BASE)
    assert settings.production
    assert settings.secure
    assert settings.bind == "127.0.0.1:5003"
    assert settings.workers == os.cpu_count()
    assert settings.oidc_client_auth == "client_secret_basic"
    assert settings.oidc_scope == ("openid", "email", "profile")
    assert settings.oidc_profile == "auto"
    assert settings.redis_prefix == "bff:"
    assert settings.routes == ()
    assert (settings.session_idle_seconds, settings.session_max_seconds) == (1800, 28800)
    assert settings.cookie_samesite == "Strict"
    assert settings.refresh_leeway_seconds == 60
    assert (settings.provider_timeout_seconds, settings.upstream_timeout_seconds) == (10, 30)
    assert (settings.max_body_bytes, settings.max_header_bytes) == (10_485_760, 65_536)
    assert settings.trusted_proxies == ()
    assert settings.forward_auth_bind is None
    assert (settings.log_level, settings.log_format) == ("info", "json")
    assert settings.redirect_uri == "https://app.example.com/bff/callback"


def test_development_makes_a_key_and_logs_text() -> None:
    """A first run needs no key; each start has its own."""
    starts = [load(without("BFF_SECRET_KEYS") | DEVELOPMENT) for _ in range(2)]
    assert len({start.keys[0] for start in starts}) == 2
    assert {start.log_format for start in starts} == {"text"}
    assert load(BASE | DEVELOPMENT | {"BFF_LOG_FORMAT": "json"}).log_format == "json"


BAD = [
    ("BFF_TLS_CERT_FILE", "/nowhere/bff.crt"),
    ("BFF_TLS_KEY_FILE", "/nowhere/bff.key"),
    ("BFF_OIDC_CA_FILE", "/nowhere/authorities.pem"),
    ("BFF_API_CA_FILE", "/nowhere/authorities.pem"),
    ("BFF_ENV", "staging"),
    ("BFF_ENV", ""),
    ("BFF_BIND", ""),
    ("BFF_BIND", "5003"),
    ("BFF_BIND", ":5003"),
    ("BFF_BIND", "127.0.0.1"),
    ("BFF_BIND", "127.0.0.1:0"),
    ("BFF_BIND", "127.0.0.1:65536"),
    ("BFF_BIND", "127.0.0.1:http"),
    ("BFF_BIND", "127.0.0.1:-1"),
    ("BFF_BIND", "127.0.0.1:٥٠٠٣"),
    ("BFF_BIND", "bücher:5003"),
    ("BFF_BIND", "\udcff:5003"),
    ("BFF_BIND", "a\0b:5003"),
    ("BFF_FORWARD_AUTH_BIND", ""),
    ("BFF_FORWARD_AUTH_BIND", "5004"),
    ("BFF_FORWARD_AUTH_BIND", "127.0.0.1:5004"),  # without BFF_TRUSTED_PROXIES
    ("BFF_FORWARD_AUTH_BIND", "127.0.0.1:5003"),
    ("BFF_LOG_LEVEL", "\udcff"),
    ("BFF_OIDC_CLIENT_SECRET", "s3cr3t\udcff"),
    ("BFF_REDIS_URL", "redis://:s3cr3t@\udcff"),
    ("BFF_PUBLIC_URL", ""),
    ("BFF_PUBLIC_URL", "app.example.com"),
    ("BFF_PUBLIC_URL", "ftp://app.example.com"),
    ("BFF_PUBLIC_URL", "https://"),
    ("BFF_PUBLIC_URL", "https://app.example.com/app"),
    ("BFF_PUBLIC_URL", "https://app.example.com/?x"),
    ("BFF_PUBLIC_URL", "https://app.example.com?"),
    ("BFF_PUBLIC_URL", "https://app.example.com#"),
    ("BFF_PUBLIC_URL", "https://user:pw@app.example.com"),
    ("BFF_PUBLIC_URL", "https://App.example.com"),
    ("BFF_PUBLIC_URL", "https://app.example.com:443"),
    ("BFF_PUBLIC_URL", "https://app.example.com:"),
    ("BFF_PUBLIC_URL", "https://app.example.com:99999"),
    ("BFF_PUBLIC_URL", "https://app.example.com:x"),
    ("BFF_PUBLIC_URL", "https://[::1"),
    ("BFF_PUBLIC_URL", "https://bücher.example"),
    ("BFF_PUBLIC_URL", "https://app example.com"),
    ("BFF_PUBLIC_URL", "https://app.example.com\n"),
    ("BFF_PUBLIC_URL", "http://app.example.com"),
    ("BFF_WORKERS", "0"),
    ("BFF_WORKERS", "-1"),
    ("BFF_WORKERS", "two"),
    ("BFF_WORKERS", "1.5"),
    ("BFF_OIDC_ISSUER", "issuer"),
    ("BFF_OIDC_ISSUER", "http://issuer.example"),
    ("BFF_OIDC_ISSUER", "https://issuer.example/?a=b"),
    ("BFF_OIDC_CLIENT_ID", ""),
    ("BFF_OIDC_CLIENT_ID", "cliënt"),
    ("BFF_OIDC_CLIENT_ID", "a\nb"),
    ("BFF_OIDC_CLIENT_SECRET", ""),
    ("BFF_OIDC_CLIENT_AUTH", "none"),
    ("BFF_OIDC_SCOPE", ""),
    ("BFF_OIDC_SCOPE", "email profile"),
    ("BFF_OIDC_SCOPE", "openid-connect"),
    ("BFF_OIDC_PROFILE", "auth0"),
    ("BFF_REDIS_URL", ""),
    ("BFF_REDIS_URL", "localhost:6379"),
    ("BFF_REDIS_URL", "http://s3cr3t@redis"),
    ("BFF_REDIS_URL", "redis://"),
    ("BFF_REDIS_URL", "redis://:s3cr3t@"),
    ("BFF_REDIS_URL", "redis://:s3cr3t@redis:port"),
    ("BFF_REDIS_URL", "unix://"),
    ("BFF_REDIS_PREFIX", ""),
    ("BFF_REDIS_PREFIX", "é:"),
    ("BFF_SECRET_KEYS", ""),
    ("BFF_SECRET_KEYS", ","),
    ("BFF_SECRET_KEYS", "s3cr3t"),
    ("BFF_SECRET_KEYS", GOOD_KEY[:-1]),
    ("BFF_SECRET_KEYS", f"{GOOD_KEY},s3cr3t"),
    ("BFF_BIND", "::1:5003"),
    ("BFF_REDIS_URL", "redis://127.0.0.1:6379/abc"),
    ("BFF_REDIS_URL", "redis://127.0.0.1:6379/0/1"),
    ("BFF_REDIS_URL", "redis://127.0.0.1:6379/0?socket_timeout=abc"),
    ("BFF_REDIS_URL", "redis://127.0.0.1:6379/0?foo=bar"),
    ("BFF_REDIS_URL", "redis://127.0.0.1:0"),
    ("BFF_REDIS_URL", "redis://[::1"),
    ("BFF_REDIS_URL", "redis://:s3cr3t@one,two"),
    ("BFF_REDIS_URL", "redis+sentinels://:s3cr3t@redis"),
    ("BFF_REDIS_URL", "redis+sentinel://:s3cr3t@one:26379,two:26379"),
    ("BFF_REDIS_URL", "redis+sentinel://:s3cr3t@one:26379,two:26379/"),
    ("BFF_REDIS_URL", "redis+sentinel://:s3cr3t@one:26379,:26379/service/0"),
    ("BFF_REDIS_URL", "redis+sentinel://:s3cr3t@one:26379,/service/0"),
    ("BFF_REDIS_URL", "redis+sentinel://:s3cr3t@one:port/service/0"),
    ("BFF_REDIS_URL", "redis+sentinel://:s3cr3t@one:99999/service/0"),
    ("BFF_REDIS_URL", "redis+sentinel://:s3cr3t@::1:26379/service/0"),
    ("BFF_REDIS_URL", "redis+sentinel://one/service/zero"),
    ("BFF_REDIS_URL", "redis+sentinel://one/service/0/1"),
    ("BFF_REDIS_URL", "redis+sentinel://one/service/0?db=x"),
    ("BFF_REDIS_URL", "redis+sentinel://one/service/0?sentinel_username=s3cr3t"),
    ("BFF_REDIS_URL", "redis+sentinel://one/service/0?password=s3cr3t"),
    ("BFF_REDIS_URL", "redis+cluster://one/1"),
    ("BFF_REDIS_URL", "redis+cluster://one?db=1"),
    ("BFF_REDIS_URL", "redis+cluster://one?sentinel_password=s3cr3t"),
    ("BFF_REDIS_URL", "redis+cluster://:s3cr3t@"),
    ("BFF_REDIS_URL", "redis://one?ssl_ca_certs=/etc/hostname"),
    ("BFF_REDIS_URL", "rediss://one?ssl_ca_certs=/nowhere"),
    ("BFF_REDIS_URL", f"rediss://one?ssl_ca_certs={__file__}"),
    ("BFF_REDIS_URL", "rediss://one?ssl_ca_certs=%00"),
    ("BFF_REDIS_URL", f"rediss://one?ssl_keyfile={__file__}"),
    ("BFF_REDIS_URL", f"rediss://one?ssl_certfile={__file__}"),
    ("BFF_REDIS_URL", "rediss://one?ssl_cert_reqs=perhaps"),
    ("BFF_REDIS_URL", "rediss://one?ssl_check_hostname=perhaps"),
    ("BFF_OIDC_CLIENT_KEY_FILE", "/nowhere"),
    ("BFF_OIDC_CLIENT_KEY_FILE", __file__),
    ("BFF_SERVICE_CLIENT_ID", ""),
    ("BFF_SERVICE_CLIENT_SECRET", "s3cr3t-without-an-id"),
    ("BFF_OIDC_RESPONSE_MODE", "fragment"),
    ("BFF_OIDC_ID_TOKEN_HINT", "yes"),
    ("BFF_STATIC_DIR", "/nowhere"),
    ("BFF_STATIC_DIR", "/"),
    ("BFF_STATIC_DIR", __file__),
    ("BFF_CSP", "default-src 'self'"),
    ("BFF_CSP", "default-src 'self'\nX: y"),
    ("BFF_API_URL", "api:5001"),
    ("BFF_API_URL", "http://api:5001//x"),
    ("BFF_API_URL", "http://api:5001/a/../b"),
    ("BFF_API_URL", "http://api:5001/a%2fb"),
    ("BFF_API_URL", "http://api:80"),
    ("BFF_SESSION_IDLE_SECONDS", "0"),
    ("BFF_SESSION_IDLE_SECONDS", "soon"),
    ("BFF_SESSION_MAX_SECONDS", "-5"),
    ("BFF_SESSIONS_PER_USER", "-1"),
    ("BFF_SESSIONS_PER_USER", "many"),
    ("BFF_COOKIE_SAMESITE", "None"),
    ("BFF_COOKIE_SAMESITE", "strict"),
    ("BFF_REFRESH_LEEWAY_SECONDS", "-1"),
    ("BFF_PROVIDER_TIMEOUT_SECONDS", "0"),
    ("BFF_UPSTREAM_TIMEOUT_SECONDS", ""),
    ("BFF_MAX_BODY_BYTES", "10M"),
    ("BFF_MAX_HEADER_BYTES", "100"),
    ("BFF_RATE_LIMIT_PER_MINUTE", "-1"),
    ("BFF_STREAMS_PER_SESSION", "0"),
    ("BFF_STREAMS_PER_WORKER", "none"),
    ("BFF_DRAIN_SECONDS", "-1"),
    ("BFF_METRICS_BIND", "9100"),
    ("BFF_METRICS_BIND", "127.0.0.1:5003"),
    ("BFF_TRUSTED_PROXIES", "10.0.0.1/8"),
    ("BFF_TRUSTED_PROXIES", "proxy.internal"),
    ("BFF_TRUSTED_PROXIES", "10.0.0.0/8, *"),
    ("BFF_LOG_LEVEL", "INFO"),
    ("BFF_LOG_FORMAT", "xml"),
]


@pytest.mark.parametrize(("name", "value"), BAD)
def test_a_bad_value_is_one_problem_that_names_its_setting(name: str, value: str) -> None:
    """One line, beginning with the variable's name and saying what it should be; the value unquoted."""
    (problem,) = problems(BASE | {name: value})
    assert problem.startswith(name)
    assert len(problem) > len(name) + 10
    assert "s3cr3t" not in problem
    assert GOOD_KEY not in problem
    assert len(value) < 10 or value not in problem


def test_every_setting_has_a_bad_value_in_the_table() -> None:
    """A new setting without a check would be noticed here; the routes have a table of their own."""
    tested = {name for name, _ in BAD}
    assert tested == {"BFF_" + field.upper() for field in Settings.model_fields} - {"BFF_ROUTES"}


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("BFF_PUBLIC_URL", "https://app.example.com"),
        ("BFF_OIDC_ISSUER", "discovery"),
        ("BFF_OIDC_CLIENT_ID", "registered"),
        ("BFF_OIDC_CLIENT_SECRET", "BFF_OIDC_CLIENT_SECRET_FILE"),
        ("BFF_REDIS_URL", "redis://"),
        ("BFF_SECRET_KEYS", "bff keys new"),
        ("BFF_API_URL", "[[routes]]"),
    ],
)
def test_what_is_missing_is_named_with_a_way_to_get_it(name: str, hint: str) -> None:
    """Nothing that a deployment needs has a default in production."""
    (problem,) = problems(without(name))
    assert problem.startswith(f"{name} is missing")
    assert hint in problem


ADDRESSES = [
    ("redis://redis", RedisAddress("one", (("redis", 6379),))),
    ("redis://:p%40ss@redis:1/3", RedisAddress("one", (("redis", 1),), db=3, login=Login(None, "p@ss"))),
    ("unix:///run/a%20b.sock?db=2", RedisAddress("one", path="/run/a b.sock", db=2)),
    (
        "redis+sentinel://app:p:w@one:1,two,[::1]:3/main.service/4?sentinel_username=w&sentinel_password=a%26b",
        RedisAddress(
            "sentinel",
            (("one", 1), ("two", 26379), ("::1", 3)),
            service="main.service",
            db=4,
            login=Login("app", "p:w"),
            sentinel_login=Login("w", "a&b"),
        ),
    ),
    ("redis+sentinel://one/main", RedisAddress("sentinel", (("one", 26379),), service="main")),
    (
        "rediss+sentinel://one/main/0?ssl_check_hostname=false",
        RedisAddress("sentinel", (("one", 26379),), service="main", tls=TLS(check_hostname=False)),
    ),
    ("redis+cluster://one:1,two", RedisAddress("cluster", (("one", 1), ("two", 6379)))),
    (
        "rediss+cluster://app:word@one/0?ssl_cert_reqs=none",
        RedisAddress("cluster", (("one", 6379),), login=Login("app", "word"), tls=TLS(cert_reqs="none")),
    ),
]


@pytest.mark.parametrize(("url", "address"), ADDRESSES)
def test_addresses_of_redis(url: str, address: RedisAddress) -> None:
    """Every form of BFF_REDIS_URL says who connects where, and how; no password shows itself."""
    found = load(BASE | {"BFF_REDIS_URL": url}).redis_address
    assert found == address
    for login in (address.login, address.sentinel_login):
        assert login.password is None or repr(login.password) not in repr(found)


@pytest.mark.parametrize("prefix", ["{bff}:", "{}", "a}", "{"])
def test_braces_in_the_prefix_of_a_cluster(prefix: str) -> None:
    """They would decide where keys lie; elsewhere they mean nothing."""
    one = BASE | {"BFF_REDIS_PREFIX": prefix}
    assert problems(one) == []
    (problem,) = problems(one | {"BFF_REDIS_URL": "redis+cluster://redis"})
    assert problem.startswith("BFF_REDIS_PREFIX must have no {")


def test_all_problems_come_together(toml: TOMLFile) -> None:
    """From every source and of every kind, one line each: nobody mends a configuration in ten rounds."""
    environ = toml('spelling = 1\ncookie_samesite = "Maybe"\n') | {
        "BFF_PUBLIC_URL": "http://app.example.com",
        "BFF_OIDC_CLIENT_SECRET_FILE": "/nowhere/secret",
        "BFF_SECRET_KEYS": "s3cr3t",
        "BFF_WORKERS": "x",
    }
    found = problems(environ)
    assert sorted(problem.split()[0] for problem in found) == [
        "BFF_API_URL",
        "BFF_COOKIE_SAMESITE",
        "BFF_OIDC_CLIENT_ID",
        "BFF_OIDC_CLIENT_SECRET_FILE",
        "BFF_OIDC_ISSUER",
        "BFF_PUBLIC_URL",
        "BFF_REDIS_URL",
        "BFF_SECRET_KEYS",
        "BFF_SPELLING",
        "BFF_WORKERS",
    ]
    assert "s3cr3t" not in "\n".join(found)


@pytest.mark.parametrize("name", ["BFF_PUBLIC_URL", "BFF_OIDC_ISSUER"])
def test_http_is_for_development(name: str) -> None:
    """Production demands https of what browsers and tokens see; an upstream may be plain http."""
    plain = BASE | {name: "http://localhost:8080"}
    (problem,) = problems(plain)
    assert "https" in problem
    assert problems(plain | DEVELOPMENT) == []


def test_cookies_are_as_secure_as_the_public_url() -> None:
    """Plain http in development means no Secure and no `__Host-`."""
    assert not load(BASE | DEVELOPMENT | {"BFF_PUBLIC_URL": "http://localhost:5003"}).secure


@pytest.mark.parametrize(
    "issuer", ["https://issuer.example/pool/", "https://issuer.example", "https://issuer.example/"]
)
def test_the_issuer_stays_as_it_stands(issuer: str) -> None:
    """It is compared byte for byte, a trailing slash included."""
    assert load(BASE | {"BFF_OIDC_ISSUER": issuer}).oidc_issuer == issuer


def test_the_public_url_may_end_with_a_slash() -> None:
    """People write origins so; the redirect URI has one slash all the same."""
    settings = load(BASE | {"BFF_PUBLIC_URL": "https://app.example.com:8443/"})
    assert settings.redirect_uri == "https://app.example.com:8443/bff/callback"


def test_lists_from_the_environment() -> None:
    """Scopes are separated by blanks, keys and networks by commas; blanks around them do not matter."""
    second = new_key()
    settings = load(
        BASE
        | {
            "BFF_OIDC_SCOPE": "openid  api://weather/access\temail",
            "BFF_SECRET_KEYS": f" {GOOD_KEY} , {second},",
            "BFF_TRUSTED_PROXIES": "10.0.0.0/8, 2001:db8::/32,192.0.2.7",
        }
    )
    assert settings.oidc_scope == ("openid", "api://weather/access", "email")
    assert len(settings.keys) == 2
    assert settings.keys[0] == load(BASE).keys[0]
    networks = ("10.0.0.0/8", "2001:db8::/32", "192.0.2.7/32")
    assert settings.trusted_proxies == tuple(map(ip_network, networks))


SECRETS = {
    "BFF_OIDC_CLIENT_SECRET": "s3cr3t-of-the-client",
    "BFF_REDIS_URL": "redis://:s3cr3t-of-redis@redis:6379/0",
    "BFF_SECRET_KEYS": GOOD_KEY,
}


def test_no_secret_in_repr_str_or_dump() -> None:
    """Settings in a log line or a traceback give nothing away."""
    settings = load(BASE)
    for shown in (repr(settings), str(settings), settings.model_dump_json(), str(settings.model_dump())):
        assert "s3cr3t" not in shown
        assert GOOD_KEY not in shown
        assert repr(settings.keys[0]) not in shown


def test_no_secret_in_the_validators_own_error() -> None:
    """Also who builds settings without `load` finds no value in what goes wrong."""
    values = {name.removeprefix("BFF_").lower(): value for name, value in BASE.items()}
    with pytest.raises(ValueError) as caught:
        Settings(**values | {"secret_keys": "s3cr3t-key", "redis_url": "s3cr3t-url", "bind": "s3cr3t-bind"})  # type: ignore[arg-type]
    assert "secret_keys" in str(caught.value)
    assert "s3cr3t" not in str(caught.value)


@pytest.mark.parametrize("name", SECRETS)
@pytest.mark.parametrize("ending", ["", "\n", "\r\n"])
def test_a_secret_from_a_file(name: str, ending: str, tmp_path: Path) -> None:
    """As secret stores mount them; the newline at the end is not part of it."""
    path = tmp_path / "secret"
    path.write_bytes((SECRETS[name] + ending).encode())
    assert load(without(name) | {name + "_FILE": str(path)}) == load(BASE)


def test_only_one_newline_is_taken_off_a_secret(tmp_path: Path) -> None:
    """Blanks, and newlines before the last one, may be part of a secret."""
    path = tmp_path / "secret"
    path.write_text(" x \n\n")
    settings = load(without("BFF_OIDC_CLIENT_SECRET") | {"BFF_OIDC_CLIENT_SECRET_FILE": str(path)})
    assert secret_of(settings) == " x \n"


@pytest.mark.parametrize("name", SECRETS)
@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_a_secret_file_that_cannot_be_read(name: str, content: bytes | None, tmp_path: Path) -> None:
    """One problem about the file, and not a second one about the missing setting."""
    path = tmp_path / "secret"
    if content is not None:
        path.write_bytes(content)
    (problem,) = problems(without(name) | {name + "_FILE": str(path)})
    assert problem.startswith(f"{name}_FILE ")


@pytest.mark.parametrize("name", SECRETS)
def test_a_secret_given_twice_is_a_problem(name: str, tmp_path: Path) -> None:
    """Which of the two was meant cannot be known."""
    path = tmp_path / "secret"
    path.write_text(SECRETS[name])
    (problem,) = problems(BASE | {name + "_FILE": str(path)})
    assert name in problem
    assert "keep one" in problem


def test_an_empty_secret_file_is_an_empty_secret(tmp_path: Path) -> None:
    """A secret that was mounted empty does not pass for one."""
    path = tmp_path / "secret"
    path.write_text("\n")
    (problem,) = problems(without("BFF_OIDC_CLIENT_SECRET") | {"BFF_OIDC_CLIENT_SECRET_FILE": str(path)})
    assert problem == "BFF_OIDC_CLIENT_SECRET must not be empty"


WHOLE = f"""
public_url = "https://app.example.com"
oidc_issuer = "https://issuer.example/pool"
oidc_client_id = "client"
oidc_client_secret = "s3cr3t-of-the-client"
redis_url = "redis://:s3cr3t-of-redis@redis:6379/0"
secret_keys = ["{GOOD_KEY}"]
api_url = "http://api:5001"
"""


def test_the_whole_configuration_can_come_from_the_file(toml: TOMLFile) -> None:
    """Same names in lower case, lists as arrays."""
    assert load(toml(WHOLE)) == load(BASE)


def test_the_environment_wins_over_files_and_secret_files_over_toml(toml: TOMLFile, tmp_path: Path) -> None:
    """The stronger source replaces the weaker one, value by value."""
    path = tmp_path / "secret"
    path.write_text("from-the-secret-file")
    settings = load(
        toml(WHOLE + "workers = 3\nbind = '0.0.0.0:1'")
        | {"BFF_WORKERS": "5", "BFF_OIDC_CLIENT_SECRET_FILE": str(path)}
    )
    assert settings.workers == 5
    assert settings.bind == "0.0.0.0:1"
    assert secret_of(settings) == "from-the-secret-file"


def test_a_secret_file_named_in_the_file(toml: TOMLFile, tmp_path: Path) -> None:
    """`x_file` is to the file what `X_FILE` is to the environment, which wins in either form."""
    path, other = tmp_path / "secret", tmp_path / "other"
    path.write_text("from-the-file\n")
    other.write_text("from-the-other\n")
    whole = WHOLE.replace(
        'oidc_client_secret = "s3cr3t-of-the-client"', f"oidc_client_secret_file = '{path}'"
    )
    assert secret_of(load(toml(whole))) == "from-the-file"
    for name, value, won in [
        ("BFF_OIDC_CLIENT_SECRET", "direct", "direct"),
        ("BFF_OIDC_CLIENT_SECRET_FILE", str(other), "from-the-other"),
    ]:
        assert secret_of(load(toml(whole) | {name: value})) == won
    both = WHOLE + f"oidc_client_secret_file = '{path}'"
    (problem,) = problems(toml(both))
    assert problem == "BFF_OIDC_CLIENT_SECRET and BFF_OIDC_CLIENT_SECRET_FILE are both set; keep one"


def test_a_file_may_say_development(toml: TOMLFile) -> None:
    """The environment's kind counts wherever it was set."""
    settings = load(toml("env = 'development'") | without("BFF_SECRET_KEYS"))
    assert not settings.production
    assert settings.log_format == "text"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("typo = 1", "BFF_TYPO"),
        ("BFF_BIND = '0.0.0.0:1'", "BFF_BFF_BIND"),
        ("redirect_uri = 'https://evil'", "BFF_REDIRECT_URI"),
        ("workers = 'x'", "BFF_WORKERS"),
        ("workers = [1]", "BFF_WORKERS"),
        ("oidc_client_secret_file = '/nowhere'", "BFF_OIDC_CLIENT_SECRET_FILE"),
        ("oidc_client_secret_file = 7", "BFF_OIDC_CLIENT_SECRET_FILE"),
        ("oidc_client_id_file = '/nowhere'", "BFF_OIDC_CLIENT_ID_FILE"),
        ("routes = 'x'", "BFF_ROUTES"),
        ("routes = [1]", "BFF_ROUTES[0]"),
        ("[routes]\npath = '/x'", "BFF_ROUTES"),
        ("[self]", "BFF_SELF"),
    ],
)
def test_a_wrong_or_unknown_key_in_the_file(toml: TOMLFile, text: str, name: str) -> None:
    """A mistyped key would be a setting that silently keeps its default."""
    found = problems(BASE | toml(text))
    assert found
    assert all(problem.startswith(name) for problem in found)


@pytest.mark.parametrize(
    "text",
    ["x", "a = 1\na = 2", 'oidc_client_secret = "s3cr3t', "secret_keys = [s3cr3t]", "\x00", "[[routes]"],
    ids=repr,
)
def test_a_file_that_is_not_toml(toml: TOMLFile, text: str) -> None:
    """One clear line, without the file's content."""
    (problem,) = problems(BASE | toml(text))
    assert problem.startswith("BFF_CONFIG is not TOML")
    assert "s3cr3t" not in problem


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    """Missing, a directory, or not text: said by name."""
    other = tmp_path / "latin1"
    other.write_bytes(b"# \xff")
    for path in (tmp_path / "missing", tmp_path, other):
        (problem,) = problems(BASE | {"BFF_CONFIG": str(path)})
        assert problem.startswith("BFF_CONFIG ")


ROUTE = 'path = "/files"\nupstream = "http://files"\n'


def test_a_route_and_its_defaults(toml: TOMLFile) -> None:
    """Read-only, with the user's token and the CSRF header, unless it says more; no API is needed then."""
    settings = load(without("BFF_API_URL") | toml(f"[[routes]]\n{ROUTE}"))
    (route,) = settings.routes
    assert (route.path, route.upstream, route.methods) == ("/files", "http://files", ("GET", "HEAD"))
    assert (route.token, route.csrf, route.anonymous) == ("user", "header", False)
    assert (route.timeout_seconds, route.response_headers) == (None, ())


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ('upstream = "http://x"', "BFF_ROUTES[0][path]"),
        ('path = "/x"', "BFF_ROUTES[0][upstream]"),
        (ROUTE + "typo = 1", "BFF_ROUTES[0][typo]"),
        (ROUTE + "methods = []", "BFF_ROUTES[0][methods]"),
        (ROUTE + 'methods = ["get"]', "BFF_ROUTES[0][methods]"),
        (ROUTE + 'methods = ["CONNECT"]', "BFF_ROUTES[0][methods]"),
        (ROUTE + 'methods = ["GET", "GET"]', "BFF_ROUTES[0][methods]"),
        (ROUTE + 'methods = "GET"', "BFF_ROUTES[0][methods]"),
        (ROUTE + 'token = "admin"', "BFF_ROUTES[0][token]"),
        (ROUTE + 'csrf = "none"', "BFF_ROUTES[0][csrf]"),
        (ROUTE + "timeout_seconds = 0", "BFF_ROUTES[0][timeout_seconds]"),
        (ROUTE + "anonymous = true", "BFF_ROUTES[0]"),
        (ROUTE + 'stream = "grpc"', "BFF_ROUTES[0][stream]"),
        (ROUTE + 'stream = "websocket"\nmethods = ["POST"]', "BFF_ROUTES[0] "),
        ('path = "/x"\nupstream = "x"', "BFF_ROUTES[0][upstream]"),
        ('path = "/x"\nupstream = "http://x/?q"', "BFF_ROUTES[0][upstream]"),
        ('path = "/x"\nupstream = "http://u:s3cr3t@x"', "BFF_ROUTES[0][upstream]"),
    ],
)
def test_a_bad_route_is_named_by_its_place(toml: TOMLFile, text: str, name: str) -> None:
    """One problem, with the number of the table; and no false one about a missing API."""
    (problem,) = problems(without("BFF_API_URL") | toml(f"[[routes]]\n{text}"))
    assert problem.startswith(name)
    assert "s3cr3t" not in problem


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "files",
        "/files/",
        "//files",
        "/a//b",
        "/a/../b",
        "/a/.",
        "/a?b",
        "/a#b",
        "/a;b",
        "/a b",
        "/a%2fb",
    ]
    + ["/%41", "/caf%c3%a9", "/café", "/a\\\\b", "/a\\n", "/{id}", "http://up/files"]
    + ["/bff", "/bff/x", "/bff/user", "/health", "/health/x", "/static", "/static/x"],
)
def test_a_route_that_could_not_match_or_is_ours_stops_the_start(toml: TOMLFile, path: str) -> None:
    """Written otherwise than it is matched, or in our own space, a route would be a quiet surprise."""
    (problem,) = problems(BASE | toml(f'[[routes]]\npath = "{path}"\nupstream = "http://x"'))
    assert problem.startswith("BFF_ROUTES[0][path] ")


@pytest.mark.parametrize("name", ["", "X Y", "X:", "X\\nY", "ü"])
def test_a_route_lets_headers_back_by_name(toml: TOMLFile, name: str) -> None:
    """What is no header's name would never match: a mistake."""
    (problem,) = problems(BASE | toml(f'[[routes]]\n{ROUTE}response_headers = ["X-File-Id", "{name}"]'))
    assert problem.startswith("BFF_ROUTES[0][response_headers] must ")


NEVER_UP = [
    "Cookie",
    "authorization",
    "Host",
    "X-Forwarded-For",
    "Forwarded",
    "X_Tenant",
    "Content-Length",
    "TE",
]
NEVER_UP += [
    "X-HTTP-Method-Override",
    "X-Real-IP",
    "X-Original-URL",
    "X-Request-Id",
    "Sec-Fetch-Site",
    "Proxy-X",
]


@pytest.mark.parametrize("name", NEVER_UP)
def test_a_route_passes_no_header_that_is_ours_or_acts(toml: TOMLFile, name: str) -> None:
    """Who names one in `request_headers` would open a hole: it stops the start."""
    (problem,) = problems(BASE | toml(f'[[routes]]\n{ROUTE}request_headers = ["X-Tenant", "{name}"]'))
    assert problem.startswith(f"BFF_ROUTES[0][request_headers] must not name {name}")
    assert load(BASE | toml(f'[[routes]]\n{ROUTE}request_headers = ["X-Tenant"]')).routes


@pytest.mark.parametrize(
    "name",
    ["Set-Cookie", "Server", "Access-Control-Allow-Origin", "REFRESH", "Connection", "Clear-Site-Data"],
)
def test_a_route_that_names_what_never_passes(toml: TOMLFile, name: str) -> None:
    """It starts, without the header, and says so: nobody should wonder where it went."""
    settings = load(BASE | toml(f'[[routes]]\n{ROUTE}response_headers = ["X-File-Id", "{name}"]'))
    (warning,) = settings.warnings
    assert warning == f"BFF_ROUTES[0][response_headers] names {name}, which never passes to browsers"
    assert load(BASE).warnings == []


def test_every_bad_route_is_reported_at_once(toml: TOMLFile) -> None:
    """Together with all that is wrong elsewhere."""
    routes = "\n".join(f'[[routes]]\npath = "{path}"\nupstream = "http://x"' for path in ("/a/", "/bff/x"))
    found = problems(BASE | {"BFF_WORKERS": "x"} | toml(routes))
    assert [problem.split(" ")[0] for problem in found] == [
        "BFF_WORKERS",
        "BFF_ROUTES[0][path]",
        "BFF_ROUTES[1][path]",
    ]


def test_one_route_for_a_path(toml: TOMLFile) -> None:
    """A path that comes twice is told, the built-in one of `BFF_API_URL` too."""
    routes = "\n".join(f'[[routes]]\npath = "{path}"\nupstream = "http://x"' for path in ("/a", "/b", "/a"))
    assert problems(BASE | toml(routes)) == ["BFF_ROUTES has two routes with the path /a"]
    weather = '[[routes]]\npath = "/weather"\nupstream = "http://x"'
    (problem,) = problems(BASE | toml(weather))
    assert problem.startswith("BFF_API_URL is the upstream of /weather")
    assert load(without("BFF_API_URL") | toml(weather)).routes[0].path == "/weather"


def test_settings_are_frozen() -> None:
    """Read once: nothing changes them afterwards."""
    with pytest.raises(ValueError, match="frozen"):
        load(BASE).bind = "0.0.0.0:1"


PUBLIC_AND_SIDE = [
    ("127.0.0.1:5003", "127.0.0.1:5003", False),
    ("127.0.0.1:5003", "127.0.0.1:05003", False),
    ("127.0.0.1:5003", "localhost:5003", False),
    ("localhost:5003", "127.0.0.1:5003", False),
    ("0.0.0.0:5003", "127.0.0.1:5003", False),
    ("127.0.0.1:5003", "0.0.0.0:5003", False),
    ("[::]:5003", "127.0.0.1:5003", False),
    ("[::1]:5003", "[0:0:0:0:0:0:0:1]:5003", False),
    ("127.0.0.1:5003", "[::ffff:127.0.0.1]:5003", False),
    ("127.0.0.1:5003", "127.0.0.1:5004", True),
    ("0.0.0.0:5003", "0.0.0.0:5004", True),
    ("192.0.2.1:5003", "127.0.0.1:5003", True),
    ("[::1]:5003", "127.0.0.1:5003", True),
]


@pytest.mark.parametrize(("public", "side", "good"), PUBLIC_AND_SIDE)
def test_forward_auth_has_a_listener_of_its_own(public: str, side: str, good: bool) -> None:
    """On the public listener it would hand tokens to browsers: what is, or could be, the same is refused."""
    environ = BASE | {"BFF_BIND": public, "BFF_FORWARD_AUTH_BIND": side, "BFF_TRUSTED_PROXIES": "10.0.0.0/8"}
    if good:
        assert load(environ).forward_auth_bind == side
        return
    (problem,) = problems(environ)
    assert problem.startswith("BFF_FORWARD_AUTH_BIND must be another address than BFF_BIND")


def test_forward_auth_needs_proxies_to_trust() -> None:
    """Without them nobody could ask; both mistakes are told at once, and a broken list is its own problem."""
    (problem,) = problems(BASE | {"BFF_FORWARD_AUTH_BIND": "127.0.0.1:5003"})
    assert "another address than BFF_BIND" in problem
    assert "must come with BFF_TRUSTED_PROXIES" in problem
    (problem,) = problems(BASE | {"BFF_FORWARD_AUTH_BIND": "127.0.0.1:5004", "BFF_TRUSTED_PROXIES": "x"})
    assert problem.startswith("BFF_TRUSTED_PROXIES")


@pytest.mark.parametrize(("networks", "told"), [("0.0.0.0/0", 1), ("10.0.0.0/8, ::/0", 1), ("10.0.0.0/8", 0)])
def test_forward_auth_for_everybody(networks: str, told: int) -> None:
    """Trusting every address is possible and said to be unwise."""
    settings = load(BASE | {"BFF_FORWARD_AUTH_BIND": "127.0.0.1:5004", "BFF_TRUSTED_PROXIES": networks})
    assert len([text for text in settings.warnings if "BFF_FORWARD_AUTH_BIND" in text]) == told
    assert load(BASE | {"BFF_TRUSTED_PROXIES": networks}).warnings == []
