"""Tokens that moto's Cognito issues, which none of us wrote, at the resource API."""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from typing import Any

import pytest
from flask.testing import FlaskClient

from bff.cognito.aws import Account
from bff.cognito.stack import setting_name
from bff.cognito.users import create_user
from bff.resource_api import create_app
from bff.resource_api.settings import load
from tests.cognito.account import Built, client
from tests.dev_idp.flow import decode

PASSWORD = "Correct-horse-1"
SIGNED_IN_BY_API = "aws.cognito.signin.user.admin"
"""The one scope of a token that was got by the API; only the sign-in pages give others."""


def sign_in(built: Built, email: str, groups: tuple[str, ...], app: str = "AppClient") -> dict[str, str]:
    """Make a user as `bff cognito user create` does, and get tokens for the app client of the template."""
    create_user(Account(), built.pool_id, email, PASSWORD, groups, None)
    described = built.app_client(app)
    # AWS: the HMAC of user name and client id under the client's secret.
    message = (email + described["ClientId"]).encode()
    proof = hmac.digest(described["ClientSecret"].encode(), message, hashlib.sha256)
    answer = client().admin_initiate_auth(
        UserPoolId=built.pool_id,
        ClientId=described["ClientId"],
        AuthFlow="ADMIN_USER_PASSWORD_AUTH",
        AuthParameters={
            "USERNAME": email,
            "PASSWORD": PASSWORD,
            "SECRET_HASH": base64.b64encode(proof).decode(),
        },
    )
    return answer["AuthenticationResult"]  # type: ignore[no-any-return]


def api(built: Built, **changes: str) -> FlaskClient:
    """The resource API, configured by the stack's outputs; keys come from moto's own addresses."""
    outputs = {setting_name(name): value for name, value in built.evaluation.outputs().items()}
    return create_app(load({**outputs, "API_SCOPE": SIGNED_IN_BY_API, **changes})).test_client()


def ask(resource: FlaskClient, token: str, path: str = "/weather") -> Any:
    """Call it with a token."""
    return resource.get(path, headers={"Authorization": f"Bearer {token}"})


def test_an_access_token_of_the_pool_is_accepted(built: Built) -> None:
    """Issuer, keys, client, use and scope are found good, with the settings that the stack gives."""
    tokens = sign_in(built, "test@example.com", ("readers",))
    answer = ask(api(built), tokens["AccessToken"])
    assert answer.status_code == 200, answer.text
    assert len(answer.get_json()) == 5


def test_an_id_token_of_the_pool_is_refused(built: Built) -> None:
    """Same issuer, same key, same user; but it is for the client to read, not for an API."""
    tokens = sign_in(built, "test@example.com", ("admins", "readers"))
    assert decode(tokens["IdToken"])[1]["token_use"] == "id"
    for path in ("/weather", "/weather/admin"):
        answer = ask(api(built), tokens["IdToken"], path)
        assert answer.status_code == 401
        assert 'error="invalid_token"' in answer.headers["WWW-Authenticate"]


def test_an_id_token_is_refused_although_its_audience_fits(built: Built) -> None:
    """What gets past a gateway that compares audiences only: `token_use` tells the two apart."""
    tokens = sign_in(built, "test@example.com", ("readers",))
    audience = decode(tokens["IdToken"])[1]["aud"]
    resource = api(built, API_CLIENT_IDS="", API_AUDIENCE=audience)
    assert ask(resource, tokens["IdToken"]).status_code == 401


@pytest.mark.parametrize(
    ("groups", "status"), [(("readers",), 403), (("admins",), 200), (("admins", "readers"), 200), ((), 403)]
)
def test_groups_of_the_pool_decide(built: Built, groups: tuple[str, ...], status: int) -> None:
    """cognito:groups of the token opens /weather/admin, and nothing else does."""
    tokens = sign_in(built, "test@example.com", groups)
    assert ask(api(built), tokens["AccessToken"], "/weather/admin").status_code == status


def test_a_token_without_the_apis_scope_is_not_enough(built: Built) -> None:
    """The template's scope is demanded unless told otherwise: 403, and not 401, since the token is good."""
    tokens = sign_in(built, "test@example.com", ("readers",))
    answer = ask(api(built, API_SCOPE="api://weather/access"), tokens["AccessToken"])
    assert answer.status_code == 403
    assert 'error="insufficient_scope"' in answer.headers["WWW-Authenticate"]


def test_a_client_of_the_same_pool_that_is_not_ours_is_refused(built: Built) -> None:
    """The pool signs for all its clients with the same key: only client_id tells them apart."""
    other = client().create_user_pool_client(
        UserPoolId=built.pool_id, ClientName="other", GenerateSecret=True
    )
    built.evaluation.known["Other"] = other["UserPoolClient"]["ClientId"]
    tokens = sign_in(built, "test@example.com", ("readers",), "Other")
    assert ask(api(built), tokens["AccessToken"]).status_code == 401


def test_another_pool_is_refused(built: Built) -> None:
    """A pool of another environment, whose keys moto makes the same: the issuer is compared."""
    pool = client().create_user_pool(PoolName="other")["UserPool"]["Id"]
    issuer = built.issuer.replace(built.pool_id, pool)
    tokens = sign_in(built, "test@example.com", ("readers",))
    assert ask(api(built, API_ISSUER=issuer), tokens["AccessToken"]).status_code == 401


def test_an_expired_token_is_refused(built: Built) -> None:
    """After its hour and the leeway it opens nothing."""
    tokens = sign_in(built, "test@example.com", ("readers",))
    outputs = {setting_name(name): value for name, value in built.evaluation.outputs().items()}
    settings = load({**outputs, "API_SCOPE": SIGNED_IN_BY_API})
    for seconds, status in ((3590, 200), (3600 + 61, 401)):
        later = time.time() + seconds
        app = create_app(settings, clock=lambda later=later: later)  # type: ignore[misc]
        assert ask(app.test_client(), tokens["AccessToken"]).status_code == status


def test_the_local_provider_issues_what_moto_does(built: Built) -> None:
    """Every claim of moto's tokens that is not about the way of signing in is one of our provider's, too."""
    from bff.dev_idp import Settings
    from bff.dev_idp.server import create_app as local_provider
    from tests.dev_idp.flow import Browser, services

    app = local_provider(Settings())
    local = Browser(app).tokens()
    services(app).storage.close()
    theirs = sign_in(built, "test@example.com", ("readers",))
    for ours, other in (("access_token", "AccessToken"), ("id_token", "IdToken")):
        missing = set(decode(theirs[other])[1]) - set(decode(local[ours])[1])
        assert missing == set(), ours
