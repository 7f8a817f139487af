"""Signing in at a certified provider, by every way of client authentication."""

from __future__ import annotations

import time
from urllib.parse import parse_qsl, unquote_plus, urlsplit

import pytest
import requests

from tests.certified.stage import WAYS, Stage
from tests.certified.visitor import Visitor
from tests.e2e.stack import submit

pytestmark = [pytest.mark.e2e, pytest.mark.redis_server]


@pytest.mark.parametrize("name", WAYS)
def test_a_sign_in(stage: Stage, name: str) -> None:
    """Each way to authenticate signs in, calls the API with the provider's token, and meets no complaint."""
    served = stage.bff(name)
    mark = served.provider.mark()
    visitor = Visitor(served).sign_in("ada", returnUrl="/somewhere?x=1&y=2")
    assert visitor.claims()["sub"] == "ada"
    assert served.provider.user_info(visitor.bearer()).json()["sub"] == "ada"
    assert served.provider.troubles(mark) == []
    assert served.provider.count("granted", mark, type="authorization_code") == 1


@pytest.mark.parametrize("name", ["basic", "form", "key"])
def test_the_request_is_pushed(stage: Stage, name: str) -> None:
    """Where the provider takes pushed requests, the browser carries the reference and nothing else."""
    served = stage.bff(name)
    mark = served.provider.mark()
    address = Visitor(served).get("/bff/login", allow_redirects=False).headers["Location"]
    query = dict(parse_qsl(urlsplit(address).query))
    assert query.keys() == {"client_id", "request_uri"}
    assert query["client_id"] == served.way.client_id
    assert served.provider.count("request", mark, method="POST", path="/request", status=201) == 1


def test_the_request_in_the_address(stage: Stage) -> None:
    """Where the provider knows no pushed requests, the parameters travel in the address."""
    address = Visitor(stage.bff("plain")).get("/bff/login", allow_redirects=False).headers["Location"]
    query = dict(parse_qsl(urlsplit(address).query))
    assert query["code_challenge_method"] == "S256"
    assert {"code_challenge", "state", "nonce", "redirect_uri", "scope"} <= query.keys()


def test_the_provider_demands_pkce(stage: Stage) -> None:
    """The provider refuses our own request once its code challenge is missing."""
    address = Visitor(stage.bff("plain")).get("/bff/login", allow_redirects=False).headers["Location"]
    query = dict(parse_qsl(urlsplit(address).query))
    assert query.pop("code_challenge")
    assert query.pop("code_challenge_method")
    answer = requests.get(address.split("?")[0], query, allow_redirects=False, timeout=10)
    refused = dict(parse_qsl(urlsplit(answer.headers["Location"]).query))
    assert refused["error"] == "invalid_request"
    assert "PKCE" in refused["error_description"]


def test_the_provider_takes_pushed_requests_alone(stage: Stage) -> None:
    """The provider refuses a request in the address where it demands that it be pushed."""
    issuer = stage.bff("basic").provider.issuer
    query = {"client_id": WAYS["basic"].client_id, "response_type": "code", "scope": "openid"}
    answer = requests.get(f"{issuer}/auth", query, allow_redirects=False, timeout=10)
    assert "Pushed Authorization Request must be used" in unquote_plus(
        answer.text + answer.headers.get("Location", "")
    )


def test_claims_come_from_user_info(stage: Stage) -> None:
    """What the ID token lacks, as Core §5.4 has it for the code flow, is asked of UserInfo."""
    served = stage.bff("basic")
    mark = served.provider.mark()
    claims = Visitor(served).sign_in("grace").claims()
    assert claims["email"] == "grace@example.com"
    assert claims["name"] == "The certified grace"
    assert served.provider.count("request", mark, path="/me", status=200) == 1


def test_nobody_is_signed_in_there(stage: Stage) -> None:
    """`prompt=none` without a session at the provider leads back to the return URL, signed out."""
    visitor = Visitor(stage.bff("basic"))
    mark = visitor.bff.provider.mark()
    visitor.finish(visitor.begin(prompt="none", returnUrl="/after"), "/after")
    assert visitor.bff.provider.count("authorization refused", mark, error="login_required") == 1
    assert visitor.user().json()["code"] == "not_signed_in"


def test_somebody_is_signed_in_there(stage: Stage) -> None:
    """`prompt=none` with a session at the provider signs in without a page of the provider's."""
    visitor = Visitor(stage.bff("basic")).sign_in("ada")
    visitor.browser.cookies.clear("localhost.local")  # the BFF's alone
    assert not visitor.is_signed_in()
    visitor.finish(visitor.begin(prompt="none", returnUrl="/after"), "/after")
    assert visitor.claims()["sub"] == "ada"


def test_max_age(stage: Stage) -> None:
    """A sign-in that is too old for `max_age` is done anew; one that is young enough is not."""
    visitor = Visitor(stage.bff("basic")).sign_in("ada")
    visitor.finish(visitor.begin(max_age="1000"))
    first = visitor.claims()["auth_time"]
    time.sleep(2.1)  # the provider counts whole seconds
    page = visitor.begin(max_age="1")
    assert page.url.startswith(f"{visitor.bff.provider.issuer}/interaction/"), page.url
    visitor.finish(submit(visitor.browser, page, login="ada"))
    assert visitor.claims()["auth_time"] >= first + 2


def test_a_cancelled_sign_in(stage: Stage) -> None:
    """Who cancels at the provider gets an error page of ours and no session."""
    visitor = Visitor(stage.bff("basic"))
    answer = submit(visitor.browser, visitor.begin(), cancel="yes")
    assert (answer.status_code, answer.url.split("?")[0]) == (400, f"{visitor.bff.url}/bff/callback")
    assert "<code>access_denied</code>" in answer.text
    assert visitor.user().json()["code"] == "not_signed_in"
