"""What is printed: whole, in order, bounded in time, and without a secret."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given
from hypothesis import settings as profile
from hypothesis import strategies as st

from bff.check import examination, run
from bff.check.configuration import Configuration, read
from bff.check.examination import examine
from bff.check.finding import Finding, Level, error, ok, warning
from bff.check.masking import HIDDEN, Mask, mask_url
from bff.check.origins import UNUSABLE, Shown, describe
from bff.check.report import Report
from bff.sealing import new_key
from bff.settings import Settings, load
from tests.check.conftest import Setup
from tests.support.provider import CLIENT_SECRET, Reply
from tests.support.stopwatch import Stopwatch
from tests.test_settings import BASE

SAMPLE = [ok("a", "fine"), warning("b", "hm", "do this"), error("c", "bad \x1b[2J", "do that")]


def written(report: Report, *, as_json: bool = False, encoding: str = "utf-8") -> str:
    raw = io.BytesIO()
    out = io.TextIOWrapper(raw, encoding=encoding)
    report.write(out, as_json=as_json)
    out.flush()
    return raw.getvalue().decode(encoding)


def test_table() -> None:
    """Level, area, text, the fix below it, and a count at the end; no control character passes."""
    lines = written(Report(SAMPLE)).splitlines()
    assert lines[0].split() == ["LEVEL", "AREA", "FINDING"]
    assert [line.split()[0] for line in lines[1:6]] == ["ok", "warning", "fix:", "error", "fix:"]
    assert lines[-1] == "1 error and 1 warning"
    assert "\x1b" not in "".join(lines)


def test_json() -> None:
    """One document with the findings in order."""
    document = json.loads(written(Report(SAMPLE), as_json=True))
    assert document["ok"] is False
    assert [each["level"] for each in document["findings"]] == ["ok", "warning", "error"]
    assert set(document["findings"][0]) == {"level", "area", "what", "fix"}


def test_a_terminal_that_knows_ascii_only() -> None:
    """Other characters are escaped; nothing breaks."""
    assert "\\xfc" in written(Report([ok("a", "über")]), encoding="ascii")


def test_a_check_that_fails_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever goes wrong inside, the other areas are still told, and no stack trace."""

    def broken(_configuration: Configuration) -> Iterator[Finding]:
        yield ok("redis", "so far")
        raise RuntimeError("a-secret-in-the-text")

    monkeypatch.setattr(examination, "check_store", broken)
    findings = examine(read(BASE | {"BFF_OIDC_ISSUER": "https://nowhere.invalid"}))
    texts = [each.what for each in findings if each.area == "redis"]
    assert texts == ["so far", "the check itself failed: RuntimeError"]
    assert any(each.area == "upstream" for each in findings)


def test_a_check_that_hangs_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was found until then is told, and the rest waits no longer."""

    def hanging(_configuration: Configuration) -> Iterator[Finding]:
        yield ok("redis", "so far")
        time.sleep(20)

    monkeypatch.setattr(examination, "check_store", hanging)
    begun = Stopwatch()
    findings = examine(read(BASE | {"BFF_OIDC_ISSUER": "https://nowhere.invalid"}), total_seconds=3)
    assert begun.own < 8
    assert [each.level for each in findings if each.area == "redis"] == [Level.OK, Level.ERROR]


def test_a_provider_in_slow_motion_is_bounded(setup: Setup) -> None:
    """A provider whose every answer drips costs a few steps of 5 s at most."""
    setup.provider.replies["/authorize"] = Reply(head_drip=0.5)
    begun = Stopwatch()
    assert setup.says("warning", "redirect", "could not tell")
    assert begun.own < 10


# -- secrets ---------------------------------------------------------------------------------------------

SECRETS = {
    "BFF_OIDC_CLIENT_SECRET": "Cl1ent/Secret+with=signs",
    "BFF_REDIS_URL": "redis://app:R3dis%2FPassw0rd@127.0.0.1:1/0",
    "BFF_SECRET_KEYS": f"{new_key()},{new_key()}",
    "BFF_SERVICE_CLIENT_ID": "service",
    "BFF_SERVICE_CLIENT_SECRET": "S3rvice-Secret",
}


def forms(environ: dict[str, str]) -> list[str]:
    """Everything that may not be seen."""
    found = [environ["BFF_OIDC_CLIENT_SECRET"], environ["BFF_SERVICE_CLIENT_SECRET"]]
    return [*found, *environ["BFF_SECRET_KEYS"].split(","), "R3dis%2FPassw0rd", "R3dis/Passw0rd"]


BREAKS: list[dict[str, str]] = [
    {},
    {"BFF_REDIS_URL": "redis:/app:R3dis%2FPassw0rd@127.0.0.1"},
    {"BFF_REDIS_URL": "http://app:R3dis%2FPassw0rd@127.0.0.1:99999"},
    {"BFF_REDIS_URL": "redis://app:R3dis%2FPassw0rd@127.0.0.1:1/0?password=R3dis%2FPassw0rd"},
    {"BFF_API_URL": "http://app:R3dis%2FPassw0rd@127.0.0.1"},
    {"BFF_PUBLIC_URL": "http://app:S3rvice-Secret@127.0.0.1"},
    {"BFF_OIDC_ISSUER": "http://app:S3rvice-Secret@127.0.0.1"},
    {"BFF_ENV": "S3rvice-Secret"},
    {"BFF_WORKERS": "Cl1ent/Secret+with=signs"},
    {"BFF_SECRET_KEYS": SECRETS["BFF_SECRET_KEYS"] + "x"},
    {"BFF_OIDC_CLIENT_ID": "S3rvice-Secret"},
]


@pytest.mark.parametrize("change", BREAKS, ids=lambda change: "+".join(change) or "none")
@pytest.mark.parametrize("as_json", [False, True])
def test_no_secret_is_printed(setup: Setup, change: dict[str, str], as_json: bool) -> None:
    """Neither one in its place, nor one in the wrong place, nor one that the provider gives back."""
    setup.environ |= SECRETS | change
    leak = SECRETS["BFF_OIDC_CLIENT_SECRET"]
    setup.provider.discovery |= {"issuer": f"http://other/{leak}"} if not change else {}
    setup.provider.replies["token"] = Reply(400, {"error": leak, "error_description": leak})
    setup.provider.replies["/authorize"] = Reply(400, {"error": leak})
    printed = setup.text(as_json=as_json, show_config=True)
    for secret in forms(SECRETS):
        assert secret not in printed
        assert json.dumps(secret)[1:-1] not in printed


def test_nothing_of_the_flow_is_printed(setup: Setup) -> None:
    """No code, state, verifier or token of what was tried comes out."""
    setup.provider.replies["token"] = Reply(
        body={"access_token": "granted-to-nobody", "token_type": "Bearer"}
    )
    printed = setup.text(show_config=True)
    for seen in setup.provider.seen:
        for name in ("code", "code_verifier"):
            assert name not in seen.form or seen.form[name] not in printed
    assert "granted-to-nobody" not in printed
    assert "state=" not in printed
    assert CLIENT_SECRET not in printed


@given(
    secret=st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=6, max_size=40),
    place=st.sampled_from(
        ["BFF_OIDC_CLIENT_SECRET", "BFF_SECRET_KEYS", "BFF_REDIS_URL", "BFF_SERVICE_CLIENT_SECRET"]
    ),
)
@profile(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_secret_in_its_place_is_masked(secret: str, place: str) -> None:
    """Whatever it looks like, usable or not, it is in no line of --show-config."""
    assume(place != "BFF_REDIS_URL" or "://" not in secret)  # an address without a password is none
    environ = BASE | {place: secret}
    configuration = read(environ)
    mask = Mask.of(environ, configuration)
    [shown] = [each for each in describe(environ, configuration) if each.name == place]
    assert secret not in mask(shown.value)
    assert secret not in mask(f"before {secret} after")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://127.0.0.1:6379/0", "redis://127.0.0.1:6379/0"),
        ("redis://:secret@h:1/0", f"redis://:{HIDDEN}@h:1/0"),
        ("rediss://user:secret@[::1]:1/0?db=1", f"rediss://user:{HIDDEN}@[::1]:1/0?db=1"),
        ("unix://user:secret@/run/r.sock", f"unix://user:{HIDDEN}@/run/r.sock"),
        ("redis://user:a@b@h/0", f"redis://user:{HIDDEN}@h/0"),
    ],
)
def test_addresses_keep_all_but_the_password(url: str, shown: str) -> None:
    """Where Redis is, is what an operator wants to see."""
    assert mask_url(url) == shown


def test_the_address_of_redis_is_shown(setup: Setup) -> None:
    """With its password, and only that, masked."""
    setup.set(redis_url="redis://app:hidden-password@127.0.0.1:1/0")
    rows = {row["name"]: row["value"] for row in setup.report(show_config=True)["settings"]}
    assert rows["BFF_REDIS_URL"] == f"redis://app:{HIDDEN}@127.0.0.1:1/0"


# -- where settings came from ----------------------------------------------------------------------------

KEYS = [new_key() for _ in range(4)]
VALUES: dict[str, list[Any]] = {
    "env": ["development", "production", "development"],
    "bind": ["127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"],
    "metrics_bind": ["127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"],
    "public_url": ["https://a.example", "https://b.example", "https://c.example"],
    "oidc_issuer": ["https://a.example", "https://b.example", "https://c.example"],
    "oidc_client_auth": ["client_secret_post", "client_secret_basic", "client_secret_post"],
    "oidc_response_mode": ["form_post", "query", "form_post"],
    "oidc_id_token_hint": ["on", "off", "on"],
    "oidc_scope": ["openid a", "openid b", "openid c"],
    "oidc_profile": ["cognito", "generic", "keycloak"],
    "redis_url": ["redis://a:1", "redis://b:1", "redis://c:1"],
    "secret_keys": KEYS,
    "api_url": ["http://a", "http://b", "http://c"],
    "cookie_samesite": ["Lax", "Strict", "Lax"],
    "trusted_proxies": ["10.0.0.1/32", "10.0.0.2/32", "10.0.0.3/32"],
    "log_level": ["debug", "warning", "error"],
    "log_format": ["text", "json", "text"],
    "sessions_per_user": ["1", "2", "3"],
}
NEED_OTHERS = {
    "tls_cert_file",
    "tls_key_file",
    "oidc_ca_file",
    "api_ca_file",
    "forward_auth_bind",
    "oidc_client_key_file",
    "static_dir",
    "csp",
    "routes",
    "service_client_id",
    "service_client_secret",
}


def values_of(field: str) -> list[Any]:
    """Three values of a setting, of which neighbours differ."""
    if field in VALUES:
        return VALUES[field]
    kind = str(Settings.model_fields[field].annotation)
    return ["10001", "10002", "10003"] if "int" in kind else [f"a-{field}", f"b-{field}", f"c-{field}"]


FIELDS = [field for field in Settings.model_fields if field not in NEED_OTHERS]


@pytest.mark.parametrize("field", FIELDS)
def test_the_source_is_the_one_that_load_takes(field: str, tmp_path: Path) -> None:
    """With different values in each place, the place that is named is the one whose value is in force."""
    secret = "Secret" in str(Settings.model_fields[field].annotation)
    values, name = values_of(field), f"BFF_{field.upper()}"
    base = {key: value for key, value in BASE.items() if key != name}
    config, x_file = tmp_path / "bff.toml", tmp_path / "x"
    places: list[tuple[dict[str, str], str, str]] = []  # the weakest first: environment, TOML text, its mark
    if secret:
        (tmp_path / "of-toml").write_text(values[2])
        places.append(
            ({"BFF_CONFIG": str(config)}, f'{field}_file = "{tmp_path / "of-toml"}"', "in BFF_CONFIG")
        )
    places.append(
        ({"BFF_CONFIG": str(config)}, f"{field} = {json.dumps(toml_value(field, values[1]))}", "(BFF_CONFIG)")
    )
    if secret:
        x_file.write_text(values[2] + "\n")
        places.append(({f"{name}_FILE": str(x_file)}, "", f"({name}_FILE)"))
    places.append(({name: values[0]}, "", "environment"))
    environ = dict(base)
    for added, toml, mark in places:
        environ = {key: value for key, value in environ.items() if key != f"{name}_FILE"} | added
        if toml:
            config.write_text(toml)
        settings = load(environ)
        value = {"environment": values[0], "(BFF_CONFIG)": values[1]}.get(mark, values[2])
        alone = load(base | {name: value})
        assert getattr(settings, field) == getattr(alone, field)
        shown = row(environ, name)
        assert mark in shown.source
        if not secret:
            assert shown.value == row(base | {name: value}, name).value


def row(environ: dict[str, str], name: str) -> Shown:
    """What --show-config says of one setting."""
    [shown] = [each for each in describe(environ, read(environ)) if each.name == name]
    return shown


def toml_value(field: str, text: Any) -> Any:
    """As TOML writes it: lists as arrays, numbers as numbers."""
    default = load(BASE | {f"BFF_{field.upper()}": text})
    value = getattr(default, field)
    if isinstance(value, tuple) and field != "secret_keys":
        return [str(each) for each in value]
    return value if isinstance(value, int) else text


@pytest.mark.parametrize("field", list(Settings.model_fields))
def test_what_nobody_set(field: str) -> None:
    """A setting with a default is said to have it; one without is said to be missing."""
    shown = row({}, f"BFF_{field.upper()}")
    assert shown.source == ("not set" if Settings.model_fields[field].is_required() else "default")
    assert (shown.value == UNUSABLE) is (
        field in {each.split(" ")[0][4:].lower() for each in read({}).problems}
    )


def test_development_has_defaults_of_its_own() -> None:
    """The generated key and the readable log are told apart from what was configured."""
    environ = {name: value for name, value in BASE.items() if name != "BFF_SECRET_KEYS"}
    environ |= {"BFF_ENV": "development"}
    sources = {each.name: each.source for each in describe(environ, read(environ))}
    assert sources["BFF_SECRET_KEYS"] == "generated, in development"
    assert sources["BFF_LOG_FORMAT"] == "default in development"


def test_routes_come_from_the_file(tmp_path: Path) -> None:
    """They are named with their upstreams; the environment cannot set them."""
    file = tmp_path / "bff.toml"
    file.write_text('[[routes]]\npath = "/a"\nupstream = "http://x:1"\n')
    environ = BASE | {"BFF_CONFIG": str(file), "BFF_ROUTES": "ignored"}
    shown = row(environ, "BFF_ROUTES")
    assert shown.value == "/a -> http://x:1"
    assert shown.source == f"file {file} (BFF_CONFIG)"


# -- the command -----------------------------------------------------------------------------------------


def test_as_a_process(setup: Setup) -> None:
    """JSON alone on standard output, nothing on standard error, and the exit status."""
    command = [sys.executable, "-m", "bff.check", "--json", "--show-config"]
    setup.set(oidc_client_secret="not-the-one")
    environ = setup.environ | {"PATH": os.environ["PATH"]}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=30)
    document = json.loads(done.stdout)
    assert (done.returncode, document["ok"], done.stderr) == (1, False, "")
    assert document["settings"][0] == {"name": "BFF_ENV", "value": "development", "source": "environment"}


def test_nothing_configured_at_all() -> None:
    """An empty environment is a report, too."""
    out = io.StringIO()
    assert run({}, as_json=False, strict=False, show_config=True, out=out) == 1
    assert "BFF_OIDC_ISSUER is missing" in out.getvalue()


def test_importing_it_is_cheap() -> None:
    """The command line can name the function without loading what it needs."""
    heavy = ("redis", "authlib", "pydantic", "requests")
    code = f"import sys, bff.check; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
