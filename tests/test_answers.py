"""Answers that both planes give the same way: errors for people and programs, and the common headers."""

from __future__ import annotations

import json
from email.utils import parsedate_to_datetime
from unittest.mock import Mock

import pytest

from bff.answers import CommonHeaders, error_answer, is_page
from bff.errors import BadRequest, MethodNotAllowed, PublicError
from bff.exchange import Exchange
from bff.guard import DATA_POLICY, Proof
from bff.request import RequestHead
from bff.routes import ENDPOINTS, Endpoint, Route
from tests.fakes import head

ROUTE = Route("/weather", "http://api", ("GET",), "user", Proof.HEADER, 30, frozenset(), False)
FORM = ("Content-Type", "application/x-www-form-urlencoded")


def _endpoint(path: str) -> Endpoint:
    return next(endpoint for endpoint in ENDPOINTS if endpoint.path == path)


@pytest.mark.parametrize(
    ("entry", "request_head", "page"),
    [
        (None, head(), False),
        (ROUTE, head(), False),
        (_endpoint("/"), head(), True),
        (_endpoint("/bff/user"), head(), False),
        (_endpoint("/bff/callback"), head(method="POST"), True),
        (_endpoint("/bff/logout"), head(), True),
        (_endpoint("/"), head(method="DELETE"), True),
        (_endpoint("/bff/logout"), head(FORM, method="POST"), True),
        (_endpoint("/bff/logout"), head(("Content-Type", "multipart/form-data; x=y"), method="POST"), True),
        (_endpoint("/bff/logout"), head(method="POST"), False),
        (_endpoint("/bff/logout"), head(("Content-Type", "application/json"), method="POST"), False),
        (_endpoint("/bff/logout"), head(FORM, ("X-CSRF", "1"), method="POST"), False),
        (_endpoint("/bff/logout"), head(method="DELETE"), False),
        (_endpoint("/health/live"), head(), False),
    ],
)
def test_who_looks_at_the_answer(
    entry: Endpoint | Route | None, request_head: RequestHead, page: bool
) -> None:
    """Pages for people, problem documents for everything else; the sign-out is both."""
    assert is_page(entry, request_head) is page


def test_an_error_for_a_program() -> None:
    """An RFC 9457 document with the error's own headers, its length, and no-store."""
    answer = error_answer(MethodNotAllowed(("GET",)), None)
    headers = dict(answer.headers)
    assert answer.status == 405
    assert headers == {
        b"allow": b"GET",
        b"content-type": b"application/problem+json",
        b"content-length": str(len(answer.body)).encode(),
        b"cache-control": b"no-store",
    }
    assert json.loads(answer.body)["code"] == "method_not_allowed"


def test_an_error_for_a_person() -> None:
    """The renderer's page, as HTML."""

    def render(error: PublicError) -> bytes:
        return f"<code>{error.code}</code>".encode()

    answer = error_answer(BadRequest(), render)
    assert answer.body == b"<code>bad_request</code>"
    assert dict(answer.headers)[b"content-type"] == b"text/html; charset=utf-8"


@pytest.mark.parametrize("secure", [True, False])
def test_common_headers(secure: bool) -> None:
    """Every answer is completed; HSTS goes over https only."""
    added = CommonHeaders(secure=secure).add([], ours=False)
    headers = dict(added)
    assert len(headers) == len(added)
    assert headers[b"x-content-type-options"] == b"nosniff"
    assert headers[b"content-security-policy"] == DATA_POLICY.encode()
    assert headers[b"cross-origin-opener-policy"] == b"same-origin"
    assert headers[b"cross-origin-resource-policy"] == b"same-origin"
    assert (b"strict-transport-security" in headers) is secure
    assert b"cache-control" not in headers
    parsedate_to_datetime(headers[b"date"].decode())


def test_what_the_answer_says_itself_wins() -> None:
    """A page's own policy stays, and nothing is said twice."""
    own = [(b"content-security-policy", b"own"), (b"date", b"then"), (b"cache-control", b"max-age=1")]
    added = CommonHeaders(secure=True).add(own, ours=True)
    assert added[:3] == own
    assert len({name for name, _ in added}) == len(added)


def test_answers_below_bff_are_never_stored() -> None:
    """Whatever `/bff/*` says is for this moment and this browser."""
    assert (b"cache-control", b"no-store") in CommonHeaders(secure=True).add([], ours=True)


def test_the_date_moves_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """The date is formatted once a second, not once for ever."""
    common = CommonHeaders(secure=False)
    dates = []
    for second in (1_000_000_000.0, 1_000_000_000.9, 1_000_000_001.0):
        monkeypatch.setattr("bff.answers.time.time", lambda second=second: second)
        dates.append(dict(common.add([], ours=False))[b"date"])
    assert dates == [b"Sun, 09 Sep 2001 01:46:40 GMT"] * 2 + [b"Sun, 09 Sep 2001 01:46:41 GMT"]


@pytest.mark.parametrize("broken", [b"a\r\nset-cookie: b=c", b"a\r\n", b"a\r\n\r\n<script>", b"a\n", b"a\rb"])
@pytest.mark.parametrize("in_name", [False, True])
def test_no_answer_is_split(broken: bytes, in_name: bool) -> None:
    """Whatever a header has been made of, a line break in it sends nothing at all (response splitting)."""
    transport = Mock()
    exchange = Exchange(head(), transport, Mock(), Mock(), server=None, keep_alive=True, persistent=True)
    pair = (broken, b"x") if in_name else (b"x-request-id", broken)
    headers = [(b"vary", b"*"), pair]
    with pytest.raises(RuntimeError, match="line break"):
        exchange.answer(200, headers, b"body")
    with pytest.raises(RuntimeError, match="line break"):
        exchange.begin(200, headers)
    transport.write.assert_not_called()
