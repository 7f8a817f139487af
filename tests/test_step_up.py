"""Routes that ask for more, or for less: a recent sign-in, the client's own token, nobody at all."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.browser import CSRF, error_page
from tests.support.client import query_of
from tests.support.provider import ABSENT, SUBJECT, Reply
from tests.support.stack import Stack, Store, running, store

ROUTES = """
[[routes]]
path = "/fresh"
upstream = "UPSTREAM"
max_age = 300

[[routes]]
path = "/service"
upstream = "UPSTREAM"
token = "client"
scope = "api/read api/write"
resource = "https://api.example"

[[routes]]
path = "/open"
upstream = "UPSTREAM"
token = "client"
anonymous = true

[[routes]]
path = "/either"
upstream = "UPSTREAM"
token = "user_or_client"
scope = "api/read"
"""


@pytest.fixture(scope="module")
def module_store() -> Iterator[Store]:
    with store() as found:
        yield found


@pytest.fixture
def stack(module_store: Store) -> Iterator[Stack]:
    with running(module_store, toml=ROUTES) as stack:
        yield stack


def bearer(stack: Stack) -> str:
    """The token that the upstream got last."""
    value = stack.upstream.requests[-1].get("authorization")
    return value.removeprefix("Bearer ")


# -- a recent sign-in -------------------------------------------------------------------------------


def test_a_recent_sign_in_passes(stack: Stack) -> None:
    """Within the limit the route is like any other."""
    browser = stack.sign_in(stack.browser())
    assert browser.api("/fresh").status == 200


def test_an_old_sign_in_is_asked_to_be_renewed(stack: Stack) -> None:
    """401 with the parameters of a sign-in that helps; other routes go on; afterwards the route opens."""
    browser = stack.sign_in(stack.browser())
    assert browser.api("/fresh").status == 200
    stack.clock.ahead = 310
    answer = browser.api("/fresh")
    assert (answer.status, answer.code) == (401, "reauthentication_required")
    assert answer.json()["login_url"] == "/bff/login?max_age=300"
    assert browser.session
    assert browser.api("/weather").status == 200
    asked = browser.get(answer.json()["login_url"])
    assert query_of(asked.get("location"))["max_age"] == "300"
    browser.callback(stack.provider.authorize(asked.get("location")))
    assert browser.api("/fresh").status == 200


def test_a_sign_in_whose_age_is_not_told(stack: Stack) -> None:
    """Without auth_time the sign-in may have been silent: only one that is asked for with max_age opens the
    route, since that makes the provider tell it."""
    stack.provider.claims["auth_time"] = ABSENT
    browser = stack.sign_in(stack.browser())
    answer = browser.api("/fresh")
    assert (answer.status, answer.code) == (401, "reauthentication_required")
    assert browser.api("/weather").status == 200
    asked = browser.get(answer.json()["login_url"])
    del stack.provider.claims["auth_time"]
    browser.callback(stack.provider.authorize(asked.get("location")))
    assert browser.api("/fresh").status == 200


@pytest.mark.parametrize("behind", [0, 20, 29, 45, 59])
@pytest.mark.parametrize("ask", ["max_age=30", "prompt=login"])
def test_a_clock_that_is_behind(module_store: Store, behind: int, ask: str) -> None:
    """A sign-in that was asked for afresh opens its route although the provider's clock is a little behind:
    otherwise it would be asked for again, for ever."""
    toml = '[[routes]]\npath = "/pay"\nupstream = "UPSTREAM"\nmax_age = 30\n'
    with running(module_store, toml=toml) as stack:
        browser = stack.browser()
        asked = browser.get(f"/bff/login?{ask}")
        stack.provider.claims["auth_time"] = int(stack.clock()) - behind
        assert browser.callback(stack.provider.authorize(asked.get("location"))).status == 200
        assert browser.api("/pay").status == 200
        stack.clock.ahead = 91
        assert browser.api("/pay").code == "reauthentication_required"


ACR: list[tuple[str | None, object, bool]] = [
    (None, "pwd", True),
    ("mfa", ABSENT, True),
    ("mfa", "mfa", True),
    ("phr mfa", "mfa", True),
    ("mfa", "pwd", False),
    ("mfa", "", False),
    ("mfa", None, False),
    ("mfa", ["mfa"], False),
]


@pytest.mark.parametrize(("asked_for", "told", "good"), ACR, ids=str)
def test_acr(stack: Stack, asked_for: str | None, told: object, good: bool) -> None:
    """An acr that the ID token tells is one of those asked for; a provider need not tell it."""
    browser = stack.browser()
    asked = browser.get(f"/bff/login?acr_values={asked_for.replace(' ', '+')}" if asked_for else "/bff/login")
    stack.provider.claims["acr"] = told
    answer = browser.callback(stack.provider.authorize(asked.get("location")))
    assert answer.status == 200 if good else error_page(answer, 400) == "id_token_invalid"


def test_a_provider_that_does_not_obey(stack: Stack) -> None:
    """A sign-in that was to be fresh and is not, or does not say, signs nobody in."""
    for auth_time in (int(stack.clock()) - 4000, ABSENT):
        browser = stack.browser()
        asked = browser.get("/bff/login?max_age=300")
        stack.provider.claims["auth_time"] = auth_time
        answer = browser.callback(stack.provider.authorize(asked.get("location")))
        assert error_page(answer, 400) == "id_token_invalid"


def test_cognito_ignores_max_age(module_store: Store) -> None:
    """There a sign-in is asked for with prompt=login, and max_age is not sent."""
    with running(module_store, toml=ROUTES, oidc_profile="cognito") as stack:
        browser = stack.sign_in(stack.browser())
        stack.clock.ahead = 310
        answer = browser.api("/fresh")
        assert answer.json()["login_url"] == "/bff/login?prompt=login"
        query = query_of(browser.get("/bff/login?max_age=300").get("location"))
        assert query["prompt"] == "login"
        assert "max_age" not in query
        silent = query_of(browser.get("/bff/login?prompt=none&max_age=60").get("location"))
        assert silent["prompt"] == "none"


# -- the client's own token -------------------------------------------------------------------------


def test_a_route_with_the_clients_token(stack: Stack) -> None:
    """A signed-in user is needed, and the token is the client's, for that scope and resource."""
    assert stack.browser().api("/service").code == "not_signed_in"
    browser = stack.sign_in(stack.browser())
    assert browser.api("/service").status == 200
    assert bearer(stack).startswith("client-access-")
    form = stack.provider.last("token").form
    assert form["grant_type"] == "client_credentials"
    assert (form["scope"], form["resource"]) == ("api/read api/write", "https://api.example")
    before = stack.provider.count("token")
    for _ in range(5):
        assert browser.api("/service").status == 200
    assert stack.provider.count("token") == before


def test_a_route_for_everybody(stack: Stack) -> None:
    """Where it says anonymous, nobody need be signed in; the header of ours is needed all the same."""
    visitor = stack.browser()
    assert visitor.get("/open").code == "csrf_required"
    assert visitor.api("/open").status == 200
    assert bearer(stack).startswith("client-access-")
    assert "scope" not in stack.provider.last("token").form


def test_a_route_for_either(stack: Stack) -> None:
    """The user's token for who is signed in, the client's where no cookie came, 401 for an ended session."""
    visitor = stack.browser()
    assert visitor.api("/either").status == 200
    assert bearer(stack).startswith("client-access-")
    browser = stack.sign_in(stack.browser())
    assert browser.api("/either").status == 200
    assert bearer(stack).startswith("access-")
    visitor.cookies["bff"] = "A" * 43
    assert visitor.api("/either").code == "session_expired"
    twice = {"Cookie": f"bff={browser.session}; bff={browser.session}"}
    assert stack.browser().get("/either", CSRF | twice).status == 200
    assert bearer(stack).startswith("client-access-"), "a cookie that comes twice counts as none"


def test_a_service_client(module_store: Store) -> None:
    """Where there is a client for that grant, it asks."""
    with running(
        module_store, toml=ROUTES, service_client_id="service", service_client_secret="service-secret"
    ) as stack:
        stack.provider.service_client = ("service", "service-secret")
        assert stack.browser().api("/open").status == 200
        assert stack.provider.last("token").basic == ("service", "service-secret")


TROUBLE: list[Reply] = [
    Reply(401, {"error": "invalid_client"}),
    Reply(400, {"error": "unauthorized_client"}),
    Reply(503),
    Reply(200, {}),
    Reply(drop=True),
]


@pytest.mark.parametrize("reply", TROUBLE, ids=lambda reply: str(reply.status))
def test_no_token_for_the_client(stack: Stack, reply: Reply) -> None:
    """503, and the provider is not asked at every request."""
    stack.provider.replies["token"] = reply
    visitor = stack.browser()
    answers = [visitor.api("/open") for _ in range(5)]
    assert {(answer.status, answer.code) for answer in answers} == {(503, "provider_unavailable")}
    assert stack.provider.count("token") == 1


# -- response mode, hint, parameters ----------------------------------------------------------------


def test_form_post(module_store: Store) -> None:
    """The response is asked for as a form; the attempt's cookie goes along with a cross-site post."""
    with running(module_store, oidc_response_mode="form_post") as stack:
        browser = stack.browser()
        asked = browser.get("/bff/login?returnUrl=/x")
        assert query_of(asked.get("location"))["response_mode"] == "form_post"
        (name,) = browser.attempts
        assert browser.attributes[name] >= {"samesite=none", "secure", "httponly", "path=/"}
        response = stack.provider.authorize(asked.get("location"))
        done = browser.post("/bff/callback", {"Origin": stack.provider.base}, **response)
        assert done.status == 200
        assert browser.attributes["bff"] >= {"samesite=strict", "httponly"}
        assert browser.attempts == {}
        failed = browser.get("/bff/login")
        error = stack.provider.authorize(failed.get("location"), error="access_denied", code=ABSENT)
        assert error_page(browser.post("/bff/callback", {}, **error), 400) == "access_denied"


@pytest.mark.parametrize("hint", ["off", "on"])
def test_id_token_hint(module_store: Store, hint: str) -> None:
    """The ID token is in the sign-out address where that is switched on, and nowhere otherwise."""
    with running(module_store, oidc_id_token_hint=hint) as stack:
        browser = stack.sign_in(stack.browser())
        for _ in range(2):
            address = browser.api("/bff/user").text
            assert "eyJ" not in address
        query = query_of(browser.request("POST", "/bff/logout", CSRF).json()["logout_url"])
        assert ("id_token_hint" in query) is (hint == "on")
        assert query["client_id"]


def test_id_token_hint_after_a_refresh(module_store: Store) -> None:
    """The newest ID token is the hint; where a refresh brings none, the older one stays."""
    with running(module_store, oidc_id_token_hint="on") as stack:
        browser = stack.sign_in(stack.browser())
        stack.provider.token_members["id_token"] = ABSENT
        stack.clock.ahead = 301
        assert browser.api("/weather").status == 200
        query = query_of(browser.request("POST", "/bff/logout", CSRF).json()["logout_url"])
        assert query["id_token_hint"].count(".") == 2


HINTS: list[tuple[str, dict[str, object], str | None]] = [
    ("generic", {}, "alice@example.com"),
    ("generic", {"email": ABSENT, "preferred_username": "alice"}, "alice"),
    ("generic", {"email": {"a": 1}, "preferred_username": ["alice"]}, SUBJECT),
    ("generic", {"email": "x" * 256}, SUBJECT),
    ("generic", {"email": ""}, SUBJECT),
    ("entra", {"login_hint": "O.opaque"}, "O.opaque"),
    ("entra", {}, None),
]


@pytest.mark.parametrize(("profile", "claims", "hint"), HINTS, ids=lambda value: str(value)[:20])
def test_logout_hint(module_store: Store, profile: str, claims: dict[str, object], hint: str | None) -> None:
    """A short text by which that kind of provider knows the person, or nothing."""
    with running(module_store, oidc_profile=profile) as stack:
        stack.provider.claims |= claims
        browser = stack.sign_in(stack.browser())
        query = query_of(browser.request("POST", "/bff/logout", CSRF).json()["logout_url"])
        assert query.get("logout_hint") == hint


def test_language(stack: Stack) -> None:
    """Cognito's `lang` passes through beside the standard's `ui_locales`."""
    query = query_of(stack.browser().get("/bff/login?lang=de&ui_locales=de-CH").get("location"))
    assert (query["lang"], query["ui_locales"]) == ("de", "de-CH")


def test_keycloaks_session_is_ended_first(module_store: Store) -> None:
    """The refresh token is posted to the end-session endpoint, so that nobody is asked there."""
    with running(module_store, oidc_profile="keycloak") as stack:
        browser = stack.sign_in(stack.browser())
        stack.provider.replies["logout"] = Reply(204)
        browser.request("POST", "/bff/logout", CSRF)
        seen = stack.provider.last("logout")
        assert seen.form["refresh_token"].startswith("refresh-")
        assert seen.basic is not None
        assert stack.provider.count("revoke") == 0
