"""Views say who may call them, and a view that says nothing is closed."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask import Blueprint, Flask, request
from flask.views import MethodView

from bff.resource_api import (
    AccessToken,
    JWTValidator,
    TokenRefused,
    create_app,
    current_token,
    public,
    requires,
)
from bff.resource_api.guard import UndeclaredViewError
from bff.resource_api.jwt.claims import ClaimRules, judge
from bff.resource_api.jwt.model import Reason, TokenProfile
from bff.resource_api.settings import load
from tests.forge import ABSENT, Forge, compact
from tests.resource_api.conftest import Clock, bearer
from tests.resource_api.issuer import LocalIssuer


@pytest.fixture
def validator(forge: Forge) -> JWTValidator:
    """A validator for the forge's tokens."""
    return JWTValidator(forge.issuer, client_ids={forge.client_id}, clock=Clock(forge.now))


def flask_app() -> Flask:
    """An API of one's own, made the ordinary way."""
    app = Flask("tests")
    app.testing = True

    @app.get("/open")
    @public
    def open_view() -> str:
        return "open"

    @app.get("/mine/<int:number>")
    @requires(scope="openid", groups=["readers"])
    def mine(number: int) -> dict[str, Any]:
        token = current_token()
        return {"sub": token.sub, "number": number, "groups": sorted(token.groups)}

    return app


def test_a_protected_app_at_work(validator: JWTValidator, forge: Forge) -> None:
    """Public views are open, others need the token, which the view can read."""
    client = validator.protect(flask_app()).test_client()
    assert client.get("/open").text == "open"
    assert client.get("/mine/1").status_code == 401
    answer = client.get("/mine/7", headers=bearer(forge.access_token()))
    assert answer.get_json() == {
        "sub": forge.access_claims()["sub"],
        "number": 7,
        "groups": ["readers"],
    }
    assert answer.headers["Cache-Control"] == "no-store"
    assert "Cache-Control" not in client.get("/open").headers


def test_every_scope_and_every_group_is_needed(validator: JWTValidator, forge: Forge) -> None:
    """One of two is not enough, and the challenge names the scopes."""
    app = Flask("tests")

    @app.get("/both")
    @requires(scope="a b", groups=["x", "y"])
    def both() -> str:
        return "in"

    client = validator.protect(app).test_client()
    for scope, groups, status in [
        ("a b", ["x", "y"], 200),
        ("b a c", ["y", "x", "z"], 200),
        ("a", ["x", "y"], 403),
        ("a b", ["x"], 403),
        ("a b", [], 403),
        ("a b", ABSENT, 403),
        ("a b", ["X", "Y"], 403),
        ("a b", ["x y"], 403),
    ]:
        token = forge.access_token(scope=scope, **{"cognito:groups": groups})
        answer = client.get("/both", headers=bearer(token))
        assert answer.status_code == status, (scope, groups)
        if status == 403:
            challenge = answer.headers["WWW-Authenticate"]
            assert challenge == 'Bearer error="insufficient_scope", scope="a b"'


def test_undeclared_views_are_named_at_start(validator: JWTValidator) -> None:
    """Forgetting the decorator is noticed before anybody calls."""
    app = flask_app()
    app.add_url_rule("/forgotten", "forgotten", lambda: "secret")
    app.add_url_rule("/also", "also_forgotten", lambda: "secret")
    with pytest.raises(UndeclaredViewError, match="also_forgotten, forgotten") as error:
        validator.protect(app)
    assert error.value.endpoints == ("also_forgotten", "forgotten")


def test_a_static_folder_must_be_declared_too(validator: JWTValidator, tmp_path: Path) -> None:
    """Flask's own view for files is a view like others, once there is a folder."""
    (tmp_path / "x.txt").write_text("x")
    app = Flask("tests", static_folder=str(tmp_path), static_url_path="/static")
    with pytest.raises(UndeclaredViewError, match="static"):
        validator.protect(app)
    app.view_functions["static"] = public(app.view_functions["static"])
    with validator.protect(app).test_client().get("/static/x.txt") as answer:
        assert answer.get_data() == b"x"


def test_a_blueprint_s_static_folder_can_be_opened(validator: JWTValidator, tmp_path: Path) -> None:
    """That view is a method of the blueprint, which cannot be marked: a function stands for it."""
    (tmp_path / "x.txt").write_text("x")
    app = Flask("tests", static_folder=None)
    app.register_blueprint(Blueprint("shop", "tests", static_folder=str(tmp_path), static_url_path="/s"))
    with pytest.raises(UndeclaredViewError, match=r"shop\.static"):
        validator.protect(app)
    app.view_functions["shop.static"] = public(app.view_functions["shop.static"])
    with validator.protect(app).test_client().get("/s/x.txt") as answer:
        assert answer.get_data() == b"x"


def test_the_guide_s_way_to_open_a_static_view() -> None:
    """The line in the guide is the one that the tests above have tried."""
    guide = (Path(__file__).parents[2] / "docs" / "resource-server.md").read_text()
    assert 'app.view_functions["static"] = public(app.view_functions["static"])' in guide


def remembering(view: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator as found in the wild: it keeps the first answer, and looks like the view itself."""
    kept: list[Any] = []

    @functools.wraps(view)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        if not kept:
            kept.append(view(*args, **kwargs))
        return kept[0]

    return wrapper


class Remembering:
    """The same as a class."""

    def __init__(self, view: Callable[..., Any]) -> None:
        functools.update_wrapper(self, view)
        self.__func__ = view
        self.view = view

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Pass on."""
        return self.view(*args, **kwargs)


@pytest.mark.parametrize("decorator", [remembering, Remembering, functools.partial])
@pytest.mark.parametrize("mark", [requires(), public])
def test_a_decorator_in_front_does_not_inherit_the_word(
    validator: JWTValidator, forge: Forge, decorator: Callable[..., Any], mark: Callable[..., Any]
) -> None:
    """Between route and @requires it could answer anybody from its cache: it must be declared itself."""
    app = flask_app()
    app.add_url_rule("/in-front", "in_front", decorator(mark(lambda: "secret")))
    with pytest.raises(UndeclaredViewError, match=r"in_front.* right below"):
        validator.protect(app)
    app = validator.protect(flask_app())
    app.add_url_rule("/in-front", "in_front", decorator(mark(lambda: "secret")))
    assert app.test_client().get("/in-front", headers=bearer(forge.access_token())).status_code == 403


def test_a_decorator_behind_is_guarded(validator: JWTValidator, forge: Forge) -> None:
    """Below @requires it may keep what it likes: nobody gets there without a token."""
    app = Flask("tests", static_folder=None)
    app.add_url_rule("/kept", "kept", requires()(remembering(lambda: "kept")))
    client = validator.protect(app).test_client()
    assert client.get("/kept", headers=bearer(forge.access_token())).text == "kept"
    assert client.get("/kept").status_code == 401


def test_methods_as_views(validator: JWTValidator, forge: Forge) -> None:
    """A method that is decorated in its class has said who may call it, on every object."""

    class Shop:
        @public
        def window(self) -> str:
            return "window"

        @requires()
        def till(self) -> str:
            return current_token().client_id or ""

    app, shop = Flask("tests", static_folder=None), Shop()
    app.add_url_rule("/window", "window", shop.window)
    app.add_url_rule("/till", "till", shop.till)
    client = validator.protect(app).test_client()
    assert client.get("/window").text == "window"
    assert client.get("/till").status_code == 401
    answer = client.get("/till", headers=bearer(forge.access_token()))
    assert (answer.text, answer.headers["Cache-Control"]) == ("web-client", "no-store")


def test_undeclared_views_are_refused(validator: JWTValidator, forge: Forge) -> None:
    """A view added after the check is closed to everybody, with a token and without."""
    app = validator.protect(flask_app())
    app.add_url_rule("/late", "late", lambda: "secret", methods=["GET", "POST"])
    client = app.test_client()
    for method in ("GET", "HEAD", "POST", "OPTIONS"):
        for headers in ({}, bearer(forge.access_token())):
            answer = client.open("/late", method=method, headers=headers)
            assert answer.status_code == 403
            assert "secret" not in answer.text
    assert client.get("/static/x.js").status_code == 403


def test_an_address_without_a_view_is_named_and_refused(validator: JWTValidator) -> None:
    """Flask lets an address be added before its view: until that is there it is closed."""
    app = flask_app()
    app.add_url_rule("/promised", endpoint="promised")
    with pytest.raises(UndeclaredViewError, match="promised"):
        validator.protect(app)
    app = validator.protect(flask_app())
    app.add_url_rule("/promised", endpoint="promised")
    assert app.test_client().get("/promised").status_code == 403


def test_a_token_does_not_outlive_its_request(validator: JWTValidator, forge: Forge) -> None:
    """Where an application context is open over several requests, each has its own token or none."""
    app = flask_app()

    @app.get("/whose")
    @public
    def whose() -> str:
        return current_token().sub

    validator.protect(app)
    with app.app_context():
        client = app.test_client()
        assert client.get("/mine/1", headers=bearer(forge.access_token())).status_code == 200
        with pytest.raises(RuntimeError, match="no verified access token"):
            client.get("/whose")


def test_without_a_validator_nobody_gets_in(forge: Forge) -> None:
    """Forgetting `protect` closes the views instead of opening them."""
    app = flask_app()
    app.testing = False
    answer = app.test_client().get("/mine/1", headers=bearer(forge.access_token()))
    assert answer.status_code == 500


def test_the_token_is_at_hand_only_behind_requires(validator: JWTValidator) -> None:
    """In a public view there is no token, whatever the request carries."""
    app = Flask("tests")

    @app.get("/")
    @public
    def view() -> str:
        with pytest.raises(RuntimeError):
            current_token()
        return "none"

    assert validator.protect(app).test_client().get("/").text == "none"


def test_class_based_views(validator: JWTValidator, forge: Forge) -> None:
    """Flask's way of decorating a class works."""

    class Orders(MethodView):
        decorators = [requires(scope="openid")]

        def get(self) -> str:
            return current_token().client_id or ""

    app = Flask("tests")
    app.add_url_rule("/orders", view_func=Orders.as_view("orders"))
    client = validator.protect(app).test_client()
    assert client.get("/orders").status_code == 401
    assert client.get("/orders", headers=bearer(forge.access_token())).text == "web-client"


def test_a_form_is_still_there_for_the_view(validator: JWTValidator, forge: Forge) -> None:
    """Looking for a token in a form takes nothing away from the view."""
    app = Flask("tests")

    @app.post("/raw")
    @requires()
    def raw() -> bytes:
        return request.get_data()

    @app.post("/form")
    @requires()
    def form() -> str:
        return request.form["a"]

    client = validator.protect(app).test_client()
    headers = bearer(forge.access_token())
    assert client.post("/raw", data={"a": "b"}, headers=headers).data == b"a=b"
    assert client.post("/form", data={"a": "b"}, headers=headers).text == "b"


@pytest.mark.parametrize(
    "make",
    [
        lambda: requires(scope='a"b'),
        lambda: requires(scope="a\\b"),
        lambda: requires(scope="a  b"),
        lambda: requires(scope=["a b"]),
        lambda: requires(scope="a\nb"),
        lambda: requires(groups="admins"),
    ],
)
def test_a_rule_that_cannot_be_meant(make: Callable[[], object]) -> None:
    """A scope goes into a header, and one string is no list of groups."""
    with pytest.raises(ValueError):
        make()


@pytest.mark.parametrize(
    ("issuer", "options"),
    [
        ("https://i.example", {}),
        ("https://i.example", {"client_ids": []}),
        ("https://i.example", {"client_ids": "abc"}),
        ("https://i.example", {"client_ids": [""]}),
        ("https://i.example", {"audience": ""}),
        ("http://i.example", {"audience": "a"}),
        ("i.example", {"audience": "a"}),
        ("https://i.example?x", {"audience": "a"}),
        ([], {"audience": "a"}),
        ("https://i.example", {"audience": "a", "algorithms": []}),
        ("https://i.example", {"audience": "a", "algorithms": ["HS256"]}),
        ("https://i.example", {"audience": "a", "algorithms": ["none"]}),
        ("https://i.example", {"audience": "a", "algorithms": "RS256"}),
        ("https://i.example", {"audience": "a", "clock_skew_seconds": 301}),
        ("https://i.example", {"audience": "a", "clock_skew_seconds": -1}),
        ("https://i.example", {"audience": "a", "clock_skew_seconds": float("nan")}),
        ("https://i.example", {"audience": "a", "profile": "any"}),
    ],
)
def test_a_validator_that_would_let_in_too_much(issuer: Any, options: dict[str, Any]) -> None:
    """Arguments that cannot be meant are refused when the validator is made."""
    with pytest.raises(ValueError):
        JWTValidator(issuer, **options)


def test_the_example_api_declares_every_view() -> None:
    """The check runs over the weather API when it is built."""
    app = create_app(load({"API_ISSUER": "https://i.example", "API_CLIENT_IDS": "c"}))
    assert set(app.view_functions) == {
        "health.live",
        "health.ready",
        "weather.weather",
        "weather.weather_admin",
    }


@pytest.mark.parametrize(
    ("audience", "client_ids", "changes", "reason"),
    [
        ("api", (), {"aud": "api"}, None),
        ("api", (), {"aud": ["x", "api"]}, None),
        ("api", (), {"aud": "api", "client_id": "anybody"}, None),
        ("api", ("c",), {"aud": "api", "client_id": "c"}, None),
        ("api", ("c",), {"aud": "api", "client_id": "d"}, Reason.CLIENT),
        ("api", ("c",), {"aud": "apis", "client_id": "c"}, Reason.AUDIENCE),
        ("api", (), {"aud": ABSENT}, Reason.AUDIENCE),
        ("api", (), {"aud": []}, Reason.AUDIENCE),
        ("api", (), {"aud": ""}, Reason.AUDIENCE),
        ("api", (), {"aud": None}, Reason.AUDIENCE),
        ("api", (), {"aud": "api "}, Reason.AUDIENCE),
        ("api", (), {"aud": "an api"}, Reason.AUDIENCE),
        ("api", (), {"aud": ["api", 1]}, Reason.AUDIENCE),
        ("api", (), {"aud": {"api": 1}}, Reason.AUDIENCE),
        ("api", (), {"aud": "api", "client_id": 1}, Reason.MALFORMED_CLAIM),
    ],
)
def test_audience_and_client(
    forge: Forge,
    audience: str,
    client_ids: tuple[str, ...],
    changes: dict[str, Any],
    reason: Reason | None,
) -> None:
    """Where an audience is set `aud` must contain it, and with clients set both must hold."""
    validator = JWTValidator(forge.issuer, audience=audience, client_ids=client_ids, clock=Clock(forge.now))
    assert outcome(validator, forge.access_token(**changes)) == reason


@pytest.mark.parametrize(
    ("header", "changes", "reason"),
    [
        ({"typ": "at+jwt"}, {"token_use": ABSENT}, None),
        ({"typ": "AT+JWT"}, {"token_use": ABSENT}, None),
        ({"typ": "application/at+jwt"}, {}, None),
        ({"typ": "JWT"}, {}, Reason.NOT_AN_ACCESS_TOKEN),
        ({}, {}, Reason.NOT_AN_ACCESS_TOKEN),
        ({"typ": "at+jwt"}, {"token_use": "id"}, Reason.NOT_AN_ACCESS_TOKEN),
        ({"typ": "at+jwt"}, {"iat": ABSENT}, Reason.TIME_CLAIM),
    ],
)
def test_the_rfc_9068_profile(
    forge: Forge, header: dict[str, Any], changes: dict[str, Any], reason: Reason | None
) -> None:
    """There the header says that it is an access token, and no claim can say so in its place."""
    validator = JWTValidator(
        forge.issuer, client_ids={forge.client_id}, profile="rfc9068", clock=Clock(forge.now)
    )
    assert outcome(validator, forge.access_token(forge.header(**header), **changes)) == reason


@pytest.mark.parametrize(
    ("options", "warned"),
    [
        ({"profile": "rfc9068", "client_ids": ["c"]}, True),
        ({"profile": "rfc9068", "client_ids": ["c"], "audience": "api"}, False),
        ({"profile": "rfc9068", "audience": "api"}, False),
        ({"client_ids": ["c"]}, False),
    ],
)
def test_a_profile_without_its_audience_is_warned_of(
    caplog: pytest.LogCaptureFixture, options: dict[str, Any], *, warned: bool
) -> None:
    """RFC 9068 §4 wants `aud` compared; where it cannot be, the log says so at the start."""
    JWTValidator("https://i.example", **options)
    assert ("without an audience" in caplog.text) == warned


def test_a_claim_is_frozen_at_every_depth(forge: Forge) -> None:
    """What one view changes in a claim another would read."""
    rules = ClaimRules(TokenProfile.COGNITO, frozenset({"web-client"}), None, 60)
    given = {"address": {"lines": [{"a": [1]}]}}
    claims = forge.access_claims(**given)
    frozen = judge({}, claims, rules, forge.issuer, forge.now).claims
    with pytest.raises(TypeError):
        frozen["address"]["lines"] = ()
    with pytest.raises(TypeError):
        frozen["address"]["lines"][0]["a"] = 2
    claims["address"]["lines"].append("later")
    assert frozen["address"]["lines"] == ({"a": (1,)},)


def test_a_wider_allow_list(forge: Forge, issuer: LocalIssuer) -> None:
    """RS512 is accepted where it is asked for, with the key that the issuer publishes for it."""
    options: dict[str, Any] = {"client_ids": {forge.client_id}, "clock": Clock(forge.now)}
    validator = JWTValidator(forge.issuer, algorithms=["RS256", "RS512"], **options)
    token = compact(forge.header(alg="RS512"), forge.access_claims(), forge.signer.sign_sha512)
    assert outcome(validator, token) is Reason.UNKNOWN_KEY
    before = issuer.jwks
    issuer.jwks = {"keys": [forge.signer.jwk(alg=ABSENT)]}
    validator = JWTValidator(forge.issuer, algorithms=["RS256", "RS512"], **options)
    assert outcome(validator, token) is None
    assert outcome(validator, forge.access_token()) is None
    issuer.jwks = before


def outcome(validator: JWTValidator, token: str) -> Reason | None:
    """Why the token is refused; `None` where it is accepted."""
    try:
        validator.validate(token)
    except TokenRefused as refused:
        return refused.reason
    return None


def test_the_token_type_is_frozen_and_discreet(forge: Forge) -> None:
    """Nothing can be changed in a verified token, and its repr names nobody."""
    rules = ClaimRules(TokenProfile.COGNITO, frozenset({"web-client"}), None, 60)
    token = judge({}, forge.access_claims(), rules, forge.issuer, forge.now)
    assert token.scopes == {"openid", "api://weather/access"}
    assert (token.username, token.expires_at) == ("alice", forge.now + 3600)
    assert token.sub not in repr(token)
    assert "alice" not in repr(token)
    with pytest.raises(AttributeError):
        token.sub = "other"  # type: ignore[misc]
    with pytest.raises(TypeError):
        token.claims["sub"] = "other"  # type: ignore[index]
    with pytest.raises(AttributeError):
        token.claims["cognito:groups"].append("admins")
    assert token.claims["cognito:groups"] == ("readers",)
    assert isinstance(token, AccessToken)
