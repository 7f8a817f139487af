"""How a token may come with a request, and what is said when it does not (RFC 6750)."""

from __future__ import annotations

import pytest
from flask.testing import FlaskClient
from werkzeug.datastructures import Headers

from bff.resource_api.bearer import Credentials
from tests.forge import Forge
from tests.resource_api.conftest import bearer

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
    both = api.get("/weather", query_string={"access_token": token}, headers=bearer(token))
    assert (both.status_code, both.headers["WWW-Authenticate"]) == INVALID_REQUEST


def test_a_token_in_a_form_is_never_accepted(api: FlaskClient, forge: Forge) -> None:
    """Alone it counts as no credentials, beside a header as two methods."""
    form = {"access_token": forge.access_token()}
    alone = api.get("/weather", data=form)
    assert (alone.status_code, alone.headers["WWW-Authenticate"]) == NO_CREDENTIALS
    both = api.get("/weather", data=form, headers=bearer(form["access_token"]))
    assert (both.status_code, both.headers["WWW-Authenticate"]) == INVALID_REQUEST
    other = api.get("/weather", data={"a": "b"}, headers=bearer(form["access_token"]))
    assert other.status_code == 200


def test_a_body_too_large_is_not_read(api: FlaskClient, forge: Forge) -> None:
    """A large form is not searched for tokens, whoever sends it."""
    answer = api.get("/weather", data={"a": "b" * 70_000}, headers=bearer(forge.access_token()))
    assert answer.status_code == 200


def test_credentials_do_not_print_the_token() -> None:
    """A repr ends up in logs."""
    assert "secret" not in repr(Credentials("secret"))
