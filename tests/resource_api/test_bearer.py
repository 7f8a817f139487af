"""How a token may come with a request, and what is said when it does not (RFC 6750)."""

from __future__ import annotations

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.datastructures import Headers

from bff.resource_api import JWTValidator, requires
from bff.resource_api.bearer import Credentials
from tests.forge import Forge
from tests.resource_api.conftest import Clock, bearer

NO_CREDENTIALS = (401, "Bearer")
INVALID_TOKEN = (401, 'Bearer error="invalid_token"')
INVALID_REQUEST = (400, 'Bearer error="invalid_request"')


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, NO_CREDENTIALS),
        ("", NO_CREDENTIALS),
        ("Basic dXNlcjpwYXNz", NO_CREDENTIALS),
        ('Digest username="a", realm="b"', NO_CREDENTIALS),
        ("DPoP TOKEN", NO_CREDENTIALS),
        ("TOKEN", NO_CREDENTIALS),
        ("Bearertoken", NO_CREDENTIALS),
        ("Bearer:TOKEN", NO_CREDENTIALS),
        ("Bearer", INVALID_TOKEN),
        ("Bearer ", INVALID_TOKEN),
        ("Bearer\tTOKEN", NO_CREDENTIALS),
        ("Bearer garbage", INVALID_TOKEN),
        ("Bearer TOKEN TOKEN", INVALID_TOKEN),
        ("Bearer Bearer TOKEN", INVALID_TOKEN),
        ('Bearer "TOKEN"', INVALID_TOKEN),
        ("Bearer TOKEN;", INVALID_TOKEN),
        ("Bearer TOKEN\u00a0", INVALID_TOKEN),
        ("Bearer \u00fc", INVALID_TOKEN),
        ("Bearer null", INVALID_TOKEN),
        ("Bearer TOKEN,", INVALID_REQUEST),
        ("Bearer TOKEN,TOKEN", INVALID_REQUEST),
        ("Bearer TOKEN, Bearer TOKEN", INVALID_REQUEST),
        ("Bearer TOKEN,Basic dXNlcjpwYXNz", INVALID_REQUEST),
        ("Basic dXNlcjpwYXNz, Bearer TOKEN", INVALID_REQUEST),
        ("Basic dXNlcjpwYXNz,bearer TOKEN", INVALID_REQUEST),
        ("Bearer TOKEN,Negotiate", INVALID_REQUEST),
        ("Bearer TOKEN,,", INVALID_REQUEST),
        ("Bearer ,TOKEN", INVALID_REQUEST),
        ("Bearer,TOKEN", INVALID_REQUEST),
        ("Bearer TOKEN,a=b", INVALID_REQUEST),
        ('Bearer TOKEN,"x"', INVALID_REQUEST),
        ("Bearer TOKEN , {}", INVALID_REQUEST),
        ("Bearer a b, Basic dXNlcjpwYXNz", INVALID_REQUEST),
        ("Basic eA==,Bearer", INVALID_REQUEST),
        ("Bearer,Basic eA==", INVALID_REQUEST),
        ("Bearer,Bearer", INVALID_REQUEST),
        (",Bearer", INVALID_REQUEST),
        ("Basic eA==,Negotiate", NO_CREDENTIALS),
        ("Basic eA==,Bearertoken", NO_CREDENTIALS),
        ('Bearer TOKEN, Digest username="a", realm="b"', INVALID_REQUEST),
        ('Bearer {"payload":"e30","signatures":[]}', INVALID_TOKEN),
        ('Bearer {"payload":"e30", "protected":"e30", "signature":"AA"}', INVALID_TOKEN),
        ("Bearer [1,2]", INVALID_TOKEN),
    ],
)
def test_a_header_that_is_no_token(
    api: FlaskClient, forge: Forge, header: str | None, expected: tuple[int, str]
) -> None:
    """No credentials, a bad token and an ambiguous request are told apart."""
    headers = {} if header is None else {"Authorization": header.replace("TOKEN", forge.access_token())}
    answer = api.get("/weather", headers=headers)
    assert (answer.status_code, answer.headers["WWW-Authenticate"]) == expected
    assert answer.content_type == "application/problem+json"
    assert answer.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("header", ["Bearer TOKEN", "bearer TOKEN", "BEARER  TOKEN", " Bearer TOKEN "])
def test_the_scheme_is_read_as_http_reads_it(api: FlaskClient, forge: Forge, header: str) -> None:
    """In any case, with blanks around (RFC 9110 §11.1)."""
    headers = {"Authorization": header.replace("TOKEN", forge.access_token())}
    assert api.get("/weather", headers=headers).status_code == 200


def test_two_headers_are_refused(api: FlaskClient, forge: Forge) -> None:
    """Even where both are the same: a server in front may have looked at the other."""
    line = ("Authorization", f"Bearer {forge.access_token()}")
    answer = api.get("/weather", headers=Headers([line, line]))
    assert (answer.status_code, answer.headers["WWW-Authenticate"]) == INVALID_REQUEST


def test_a_token_in_the_query_is_never_accepted(api: FlaskClient, forge: Forge) -> None:
    """Alone it counts as no credentials, beside a header as two methods."""
    token = forge.access_token()
    alone = api.get("/weather", query_string={"access_token": token})
    assert (alone.status_code, alone.headers["WWW-Authenticate"]) == NO_CREDENTIALS
    for other in (token, forge.access_token(exp=1, iat=0), "junk"):
        both = api.get("/weather", query_string={"access_token": token}, headers=bearer(other))
        assert (both.status_code, both.headers["WWW-Authenticate"]) == INVALID_REQUEST


BODILESS = ["GET", "HEAD", "DELETE", "OPTIONS"]


@pytest.fixture
def orders(forge: Forge) -> FlaskClient:
    """An API that takes every method."""
    app = Flask("tests", static_folder=None)
    app.testing = True

    @app.route("/orders", methods=[*BODILESS, "POST", "PUT", "PATCH"])
    @requires(scope="openid")
    def view() -> str:
        return "in"

    JWTValidator(forge.issuer, client_ids={forge.client_id}, clock=Clock(forge.now)).protect(app)
    return app.test_client()


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
def test_a_token_in_a_form_is_never_accepted(orders: FlaskClient, forge: Forge, method: str) -> None:
    """Alone it counts as no credentials, beside a header as two methods."""
    form = {"access_token": forge.access_token()}
    alone = orders.open("/orders", method=method, data=form)
    assert (alone.status_code, alone.headers["WWW-Authenticate"]) == NO_CREDENTIALS
    both = orders.open("/orders", method=method, data=form, headers=bearer(form["access_token"]))
    assert (both.status_code, both.headers["WWW-Authenticate"]) == INVALID_REQUEST
    other = orders.open("/orders", method=method, data={"a": "b"}, headers=bearer(form["access_token"]))
    assert other.status_code == 200


class Unread:
    """A body that would keep whoever reads it waiting."""

    def read(self, _size: int = -1) -> bytes:
        """Not to be called."""
        raise AssertionError("the body was read")


def status_of(client: FlaskClient, method: str, token: str, length: int) -> int:
    """The status for a form of so many bytes that never come."""
    answer = client.open(
        "/orders",
        method=method,
        headers=bearer(token),
        environ_overrides={
            "wsgi.input": Unread(),
            "CONTENT_TYPE": "application/x-www-form-urlencoded",
            "CONTENT_LENGTH": str(length),
        },
    )
    return answer.status_code


@pytest.mark.parametrize("method", BODILESS)
def test_a_body_that_means_nothing_is_not_read(orders: FlaskClient, forge: Forge, method: str) -> None:
    """RFC 6750 §2.2 knows no form with GET, and a slow one would keep a thread."""
    assert status_of(orders, method, forge.access_token(), 100) == 200


def test_the_body_of_who_may_not_call_is_not_read(orders: FlaskClient, forge: Forge) -> None:
    """A token that holds and lacks the scope keeps no thread waiting either."""
    assert status_of(orders, "POST", forge.access_token(scope="other"), 100) == 403
    with pytest.raises(AssertionError, match="was read"):
        status_of(orders, "POST", forge.access_token(), 100)


def test_a_body_too_large_is_not_read(orders: FlaskClient, forge: Forge) -> None:
    """A large form is not searched for tokens, whoever sends it."""
    assert status_of(orders, "POST", forge.access_token(), 70_000) == 200


def test_credentials_do_not_print_the_token() -> None:
    """A repr ends up in logs."""
    assert "secret" not in repr(Credentials("secret"))
