"""What is found in the settings, and how a broken one leaves the rest to be looked at."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.check.conftest import Setup


def test_nothing_to_mend(setup: Setup) -> None:
    """A set-up that is in order gets no error, and the exit status 0."""
    assert [each for each in setup.problems() if each[1] != "redis"] == []
    assert setup.status == 0


def test_all_problems_of_the_settings_are_told(setup: Setup) -> None:
    """Each with its fix, and the exit status is 1."""
    setup.set(cookie_samesite="lax", secret_keys="short", workers="many")
    told = [text for level, area, text in setup.problems() if (level, area) == ("error", "settings")]
    for name in ("BFF_COOKIE_SAMESITE", "BFF_SECRET_KEYS", "BFF_WORKERS"):
        assert any(text.startswith(name) and f"change {name}" in text for text in told), name
    assert setup.status == 1


def test_a_missing_setting_has_a_fix_that_says_what_it_is(setup: Setup) -> None:
    """The fix explains the setting."""
    setup.set(oidc_client_id=None)
    assert setup.says("error", "settings", "BFF_OIDC_CLIENT_ID is missing", "set it: the client that you")


BROKEN = [
    ({"oidc_issuer": "nonsense"}, {"redis", "upstream"}),
    ({"redis_url": "redis//nowhere"}, {"client", "redirect", "upstream"}),
    ({"api_url": "http://a/?b"}, {"client", "redirect", "redis"}),
    ({"oidc_client_secret": None}, {"redirect", "redis", "upstream"}),
    ({"oidc_client_auth": "private_key_jwt"}, {"redirect", "redis", "upstream"}),
    ({"service_client_id": "alone"}, {"client", "redirect", "redis", "upstream"}),
    ({"public_url": "https://a/b"}, {"discovery", "keys", "redis", "upstream"}),
    ({"env": "staging"}, {"client", "redirect", "redis", "upstream"}),
    ({"config": "/nowhere/at/all.toml"}, {"client", "redirect", "redis", "upstream"}),
    (
        {"oidc_client_id": None, "secret_keys": None, "oidc_scope": "email"},
        {"discovery", "redis", "upstream"},
    ),
]


@pytest.mark.parametrize(("changes", "areas"), BROKEN, ids=lambda each: "+".join(sorted(each)))
def test_a_broken_setting_hides_nothing_else(
    setup: Setup, changes: dict[str, str | None], areas: set[str]
) -> None:
    """What does not need the setting is still looked at, for real."""
    setup.set(**changes)
    findings = setup.report()["findings"]
    assert setup.status == 1
    assert any((each["level"], each["area"]) == ("error", "settings") for each in findings)
    looked_at = {each["area"] for each in findings if "not looked at" not in each["what"]}
    assert areas <= looked_at
    assert not any("check itself failed" in each["what"] for each in findings)


def test_a_stand_in_is_never_asked(setup: Setup) -> None:
    """A setting that cannot be used leads to no request with an invented value."""
    setup.set(oidc_client_id="")
    setup.report()
    assert {seen.endpoint for seen in setup.provider.seen} <= {"discovery", "jwks"}


def test_routes_that_cannot_be_used(setup: Setup, tmp_path: Path) -> None:
    """A malformed route leaves the upstream of /weather to be asked."""
    file = tmp_path / "bff.toml"
    file.write_text('[[routes]]\npath = "/x/"\nupstream = "http://127.0.0.1:1"\n')
    setup.set(config=str(file))
    assert setup.says("error", "settings", "BFF_ROUTES[0][path]")
    assert setup.says("ok", "upstream", setup.upstream.url)


def test_the_weather_upstream_twice(setup: Setup, tmp_path: Path) -> None:
    """Two upstreams for one path: the rest is still looked at."""
    file = tmp_path / "bff.toml"
    file.write_text(f'[[routes]]\npath = "/weather"\nupstream = "{setup.upstream.url}"\n')
    setup.set(config=str(file))
    assert setup.says("error", "settings", "BFF_API_URL")
    assert setup.says("ok", "client", "accepts")


def test_what_is_allowed_but_worth_a_warning(setup: Setup) -> None:
    """A token in the sign-out URL, and an idle time without effect."""
    setup.set(oidc_id_token_hint="on", session_idle_seconds="90000")
    assert setup.says("warning", "settings", "BFF_OIDC_ID_TOKEN_HINT=on", "leave it off")
    assert setup.says("warning", "settings", "BFF_SESSION_IDLE_SECONDS")
    assert setup.status == 0


def test_a_header_that_never_passes(setup: Setup, tmp_path: Path) -> None:
    """The settings' own warnings are warnings here."""
    file = tmp_path / "bff.toml"
    file.write_text(
        f'[[routes]]\npath = "/x"\nupstream = "{setup.upstream.url}"\nresponse_headers = ["Set-Cookie"]\n'
    )
    setup.set(config=str(file))
    assert setup.says("warning", "settings", "Set-Cookie")


def test_exit_status(setup: Setup) -> None:
    """0 with warnings, 1 with warnings and --strict, 1 with an error."""
    setup.set(oidc_id_token_hint="on")
    assert setup.report()["ok"] is True
    assert setup.status == 0
    assert setup.report(strict=True)["ok"] is False
    assert setup.status == 1
    setup.set(oidc_client_secret="wrong")
    assert setup.report()["ok"] is False
    assert setup.status == 1
