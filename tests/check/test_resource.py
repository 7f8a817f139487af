"""The API's settings beside the BFF's: what would make it refuse every token is found before a token is."""

from __future__ import annotations

from pathlib import Path

import pytest

from bff.check.configuration import read
from bff.check.resource import check_api
from tests.check.conftest import Setup
from tests.support.provider import CLIENT_ID

COGNITO = "https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_AbCdEfGhI"
SCOPE = "api://weather/access"


@pytest.fixture
def both(setup: Setup) -> Setup:
    """A set-up whose API fits."""
    setup.set(oidc_scope=f"openid email profile {SCOPE}")
    setup.environ |= {
        "API_ENV": "development",
        "API_ISSUER": setup.provider.issuer,
        "API_CLIENT_IDS": f"{CLIENT_ID},another",
    }
    return setup


def test_settings_that_fit(both: Setup) -> None:
    """One line that says so, and no problem."""
    assert both.says("ok", "api", "accept this client's tokens")
    assert [each for each in both.problems() if each[1] == "api"] == []


def test_no_api_here(setup: Setup) -> None:
    """Without API_ISSUER there is nothing to compare, and nothing is said."""
    setup.environ["API_SCOPE"] = "elsewhere"
    assert [each for each in setup.report()["findings"] if each["area"] == "api"] == []


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        (
            {"API_ISSUER": "https://issuer.example/other"},
            ("401 to every token", "https://issuer.example/other"),
        ),
        ({"API_CLIENT_IDS": "another"}, (f"does not name {CLIENT_ID}", "401")),
        ({"API_SCOPE": "api://weather/other"}, ("lacks api://weather/other", "403 insufficient_scope")),
        ({"API_CLIENT_IDS": ""}, ("both unset", "bff api will not start")),
        ({"API_CLOCK_SKEW_SECONDS": "many"}, ("API_CLOCK_SKEW_SECONDS", "bff api will not start")),
        ({"API_ISSUER": "ftp://x"}, ("API_ISSUER", "bff api will not start")),
    ],
)
def test_what_the_api_would_refuse(both: Setup, changes: dict[str, str], parts: tuple[str, ...]) -> None:
    """Each is an error that names the setting and what callers would see; the exit status is 1."""
    both.environ |= changes
    assert both.says("error", "api", *parts)
    assert both.status == 1


def at_cognito(setup: Setup, routes: str, tmp_path: Path, **changes: str) -> list[str]:
    """What is found with a user pool as issuer, without asking it: text and fix of each."""
    (tmp_path / "bff.toml").write_text(routes)
    setup.set(oidc_issuer=COGNITO, config=str(tmp_path / "bff.toml"))
    setup.environ |= {"API_ISSUER": COGNITO, **changes}
    return [f"{each.level} {each.what}" for each in check_api(setup.environ, read(setup.environ))]


ROUTE = '[[routes]]\npath = "/a"\nupstream = "http://localhost:1"\n'


@pytest.mark.parametrize(("routes", "fine"), [("", False), (ROUTE + 'resource = "https://api.test"', True)])
def test_an_audience_that_cognito_does_not_write(
    both: Setup, tmp_path: Path, routes: str, fine: bool
) -> None:
    """Its access tokens carry one only for a resource that a route names; elsewhere they mostly do."""
    audience = {"API_AUDIENCE": "https://api.test"}
    both.environ |= audience
    assert both.says("ok", "api", "accept this client's tokens")
    (told,) = at_cognito(both, routes, tmp_path, **audience)
    assert told.startswith("ok " if fine else "error API_AUDIENCE is https://api.test, but Cognito's")


@pytest.mark.parametrize(("routes", "fine"), [("", True), (ROUTE + 'token = "client"', False)])
def test_the_service_client_counts_where_a_route_needs_it(
    both: Setup, tmp_path: Path, routes: str, fine: bool
) -> None:
    """Without a route for the client's own token nobody shows its tokens to the API."""
    both.set(service_client_id="service", service_client_secret="secret")
    (told,) = at_cognito(both, routes, tmp_path)
    assert told.startswith("ok " if fine else "error API_CLIENT_IDS does not name service")


def test_broken_settings_come_first(both: Setup) -> None:
    """What cannot be used is not compared."""
    both.set(oidc_issuer="nonsense")
    assert both.says("ok", "api", "mend the settings first")
