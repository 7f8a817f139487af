"""Signing out: at the BFF, at the provider, and from one to the other."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlsplit

import pytest

from tests.certified.stage import WAYS, Stage
from tests.certified.visitor import Visitor
from tests.support.wire import until

pytestmark = [pytest.mark.e2e, pytest.mark.redis_server]


@pytest.mark.parametrize("name", WAYS)
def test_sign_out_by_script(stage: Stage, name: str) -> None:
    """A sign-out revokes the refresh token, ends the provider's session and comes back to our page."""
    visitor = Visitor(stage.bff(name)).sign_in("ada")
    provider, mark = visitor.bff.provider, visitor.bff.provider.mark()
    address = visitor.sign_out_address()
    assert until(lambda: provider.count("request", mark, path="/token/revocation", status=200) == 1, within=5)
    assert provider.count("grant revoked", mark) == 1
    assert not visitor.is_signed_in()
    back = visitor.confirm_sign_out(visitor.browser.get(address, timeout=20))
    assert (back.status_code, back.url.split("?")[0]) == (200, f"{visitor.bff.url}/")
    sent, returned = (dict(parse_qsl(urlsplit(url).query)) for url in (address, back.url))
    assert returned == {"state": sent["state"]}
    assert provider.troubles(mark) == []
    assert visitor.begin().url.startswith(f"{provider.issuer}/interaction/")


def test_sign_out_by_link(stage: Stage) -> None:
    """The link of `bff:logout_url` leads to the provider's question and back to our page."""
    visitor = Visitor(stage.bff("basic")).sign_in("ada")
    back = visitor.confirm_sign_out(visitor.get(visitor.claims()["bff:logout_url"]))
    assert back.url.split("?")[0] == f"{visitor.bff.url}/"
    assert visitor.user().json()["code"] == "not_signed_in"


def test_access_tokens_end_with_the_sign_out(stage: Stage) -> None:
    """The revoked refresh token takes the access token along, at the provider as well."""
    visitor = Visitor(stage.bff("plain")).sign_in("ada")
    bearer = visitor.bearer()
    assert visitor.bff.provider.user_info(bearer).status_code == 200
    visitor.sign_out_address()
    assert until(lambda: visitor.bff.provider.user_info(bearer).status_code == 401, within=5)


@pytest.mark.parametrize(("name", "hinted"), [("basic", False), ("plain", True)])
def test_what_the_sign_out_address_carries(stage: Stage, name: str, hinted: bool) -> None:
    """The ID token is in the address where the operator said so, and nowhere else."""
    address = Visitor(stage.bff(name)).sign_in("ada").sign_out_address()
    query = dict(parse_qsl(urlsplit(address).query))
    assert ("id_token_hint" in query) is hinted
    assert {"client_id", "post_logout_redirect_uri", "state", "logout_hint"} <= query.keys()
    assert query["logout_hint"] == "ada@example.com"


@pytest.mark.parametrize("name", ["basic", "form", "key"])
def test_sign_out_at_the_provider(stage: Stage, name: str) -> None:
    """A sign-out at the provider ends the one session that its logout token's `sid` names."""
    visitor, other = Visitor(stage.bff(name)).sign_in("ada"), Visitor(stage.bff(name)).sign_in("ada")
    mark = visitor.bff.provider.mark()
    visitor.sign_out_at_provider()
    assert visitor.bff.provider.count("back-channel answered", mark, client=visitor.bff.way.client_id) == 1
    assert visitor.bff.provider.troubles(mark) == []
    assert visitor.user().json()["code"] == "session_expired"
    assert other.is_signed_in()


def test_sign_out_at_the_provider_of_all_sessions(stage: Stage) -> None:
    """A logout token that names the user alone ends all of the user's sessions, and nobody else's."""
    ada, again, grace = (Visitor(stage.bff("plain")).sign_in(name) for name in ("ada", "ada", "grace"))
    mark = ada.bff.provider.mark()
    ada.sign_out_at_provider()
    assert ada.bff.provider.count("back-channel answered", mark) == 1
    assert [each.user().status_code for each in (ada, again, grace)] == [401, 401, 200]
