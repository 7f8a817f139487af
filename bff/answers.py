"""Answers that every part gives the same way: errors, and the headers that no answer may lack. Pure."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import formatdate

from bff.errors import PROBLEM_JSON, PublicError, problem
from bff.guard import DATA_POLICY, page_policy, security_headers
from bff.request import Headers, RequestHead
from bff.routes import Endpoint, Route

RenderPage = Callable[[PublicError], bytes]


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole response."""

    status: int
    headers: Headers
    body: bytes


def is_page(entry: Endpoint | Route | None, head: RequestHead) -> bool:
    """Whether a person looks at the answer: then errors are pages, else RFC 9457 documents.

    The sign-out is both: a link and a form of a page lead there, a script with `X-CSRF` and who knows what.
    """
    if not isinstance(entry, Endpoint) or not entry.page:
        return False
    if not entry.session or head.method == "GET":
        return True
    return head.method == "POST" and _is_form(head) and not head.has(b"x-csrf")


def _is_form(head: RequestHead) -> bool:
    kind = (head.single(b"content-type") or b"").partition(b";")[0].strip().lower()
    return kind in (b"application/x-www-form-urlencoded", b"multipart/form-data")


def error_answer(error: PublicError, render: RenderPage | None, request_id: bytes | None = None) -> Answer:
    """The answer for an error: a page if there is a renderer, else problem+json. `request_id`
    lets whoever complains of it say which line of the log is meant."""
    headers = [(name.lower().encode(), value.encode()) for name, value in error.headers]
    if render is None:
        body, kind = problem(error), PROBLEM_JSON
    else:
        body, kind = render(error), "text/html; charset=utf-8"
        headers += [
            (b"content-security-policy", page_policy().encode()),
            (b"referrer-policy", b"no-referrer"),
        ]
    headers += [
        (b"content-type", kind.encode()),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
    ]
    if request_id is not None:
        headers.append((b"x-request-id", request_id))
    return Answer(error.status, headers, body)


class CommonHeaders:
    """Adds what every answer carries; what the answer says itself wins."""

    def __init__(self, *, secure: bool, local: bool = False) -> None:
        pairs = security_headers(secure=secure, local=local)
        self._always = [(name.lower().encode(), value.encode()) for name, value in pairs]
        self._always.append((b"content-security-policy", DATA_POLICY.encode()))
        self._names = frozenset(name for name, _ in self._always)
        self._second = 0
        self._formatted = b""

    def add(self, headers: Headers, *, ours: bool) -> Headers:
        """`headers` completed; `ours` are the answers of `/bff/*`, which nobody may store."""
        names = dict(headers)
        if self._names.isdisjoint(names):
            added = self._always
        else:
            added = [pair for pair in self._always if pair[0] not in names]
        headers = headers + added
        if ours and b"cache-control" not in names:
            headers.append((b"cache-control", b"no-store"))
        if b"date" not in names:  # RFC 9110 §6.6.1
            headers.append((b"date", self._date()))
        return headers

    def _date(self) -> bytes:
        second = int(time.time())
        if second != self._second:
            self._second, self._formatted = second, formatdate(second, usegmt=True).encode()
        return self._formatted
