"""Which headers pass, upstream and back: allow-lists, pure. What no list names does not pass."""

from __future__ import annotations

import random
import re

from bff.request import Headers, RequestHead
from bff.settings import never_back

# To the upstream. Cookie, Authorization, Host, Forwarded, X-Forwarded-* and every hop-by-hop header are
# missing on purpose: the browser's are dropped, ours are added last (RFC 10017 §6.1, RFC 9700 §4.13).
REQUEST = frozenset(
    b"accept accept-encoding accept-language cache-control content-encoding content-language content-type "
    b"content-length if-match if-modified-since if-none-match if-range if-unmodified-since "
    b"idempotency-key last-event-id pragma prefer range user-agent x-requested-with".split()
)

# Back to the browser, as documented. Set-Cookie, Server, Service-Worker-Allowed, Clear-Site-Data, Refresh
# and CORS headers of an upstream would act with this origin's authority.
RESPONSE = frozenset(
    b"content-type content-length content-encoding content-language content-disposition content-range "
    b"content-location cache-control etag last-modified expires age vary accept-ranges retry-after location "
    b"link allow date www-authenticate deprecation sunset x-total-count x-request-id".split()
)
_RESPONSE_FAMILIES = (b"ratelimit", b"x-ratelimit-")
_NOBODY_NOMINATED = (b"keep-alive", b"close")  # what `Connection` says as a rule

_TRACE = re.compile(rb"(?!0{32})[0-9a-f]{32}\Z")
_TRACEPARENT = re.compile(rb"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}\Z")


class HeaderRules:
    """What passes on one route, both ways."""

    def __init__(
        self,
        *,
        host: bytes,
        origin: tuple[bytes, bytes],
        up: frozenset[bytes] = frozenset(),
        back: frozenset[bytes] = frozenset(),
    ) -> None:
        """`host` is the upstream's, `origin` our public scheme and host; `up` and `back` are the names that
        the route passes besides the usual ones."""
        self._up = REQUEST | up
        self._back = RESPONSE | {name for name in back if not never_back(name)}
        self._ours = [
            (b"host", host),
            (b"x-forwarded-proto", origin[0]),
            (b"x-forwarded-host", origin[1]),
            (b"x-forwarded-prefix", b"/"),  # nothing of the path is taken off
        ]

    def upstream(self, head: RequestHead, client: str, token: str | None) -> Headers:
        """The headers of the upstream request; `client` is the browser's address."""
        passed = [pair for pair in head.headers if pair[0] in self._up]
        if head.has(b"connection"):
            nominated = _nominated(head.values(b"connection"))
            passed = [pair for pair in passed if pair[0] not in nominated]
        passed += self._ours
        passed += ((b"x-forwarded-for", client.encode()), (b"x-request-id", head.request_id))
        passed += trace_context(head)
        if token is not None:
            passed.append((b"authorization", b"Bearer " + token.encode()))
        return passed

    def back(self, upstream: Headers) -> Headers:
        """The upstream's headers that the browser may see; `no-store` where the upstream says nothing."""
        passes = self._back
        passed = [pair for pair in upstream if pair[0] in passes or pair[0].startswith(_RESPONSE_FAMILIES)]
        told = dict(upstream)
        if len(told) != len(upstream) or told.get(b"connection", b"close") not in _NOBODY_NOMINATED:
            nominated = _nominated([value for name, value in upstream if name == b"connection"])
            passed = [pair for pair in passed if pair[0] not in nominated]
            told = {name: value for name, value in passed if value}
        if not told.get(b"cache-control"):
            passed.append((b"cache-control", b"no-store"))
        return passed


def _nominated(connection: list[bytes]) -> set[bytes]:
    """Headers that `Connection` declares to be for this hop only (RFC 9110 §7.6.1).

    Content-Length is exempt: nominating it would have us send a body of unknown length.
    """
    names = {part.strip().lower() for value in connection for part in value.split(b",")}
    return names - {b"content-length"}


def trace_context(head: RequestHead) -> Headers:
    """The caller's place in a distributed trace where it is one, else the beginning of a new one (W3C Trace
    Context §3.2, §4.3)."""
    if head.trace is not None:
        return head.trace
    parent = head.single(b"traceparent")
    if parent is not None and _TRACEPARENT.match(parent):
        state = b",".join(head.values(b"tracestate"))
        known = [(b"tracestate", state)] if state and len(state) <= 512 else []
        return [(b"traceparent", parent), *known]
    # One name for both is easier to find; a caller's request id may be anything, and then is no trace's.
    request_id = head.request_id
    fits = not head.has(b"x-request-id") or _TRACE.match(request_id)  # one of ours always does
    trace = request_id if fits else b"%032x" % (random.getrandbits(128) or 1)
    return [(b"traceparent", b"00-%b-%016x-00" % (trace, random.getrandbits(64) or 1))]
