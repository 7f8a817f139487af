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

_TRACEPARENT = re.compile(rb"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}\Z")


def upstream_headers(
    head: RequestHead,
    *,
    host: bytes,
    client: str,
    origin: tuple[bytes, bytes],
    token: str | None,
    extra: frozenset[bytes] = frozenset(),
) -> Headers:
    """The headers of the upstream request.

    `host` is the upstream's, `client` the browser's address, `origin` our public scheme and host, `extra`
    the names that the route passes besides the usual ones.
    """
    passed = [pair for pair in head.headers if pair[0] in REQUEST or pair[0] in extra]
    if head.has(b"connection"):
        nominated = _nominated(head.values(b"connection"))
        passed = [pair for pair in passed if pair[0] not in nominated]
    passed += [
        (b"host", host),
        (b"x-forwarded-for", client.encode()),
        (b"x-forwarded-proto", origin[0]),
        (b"x-forwarded-host", origin[1]),
        (b"x-forwarded-prefix", b"/"),  # nothing of the path is taken off
        (b"x-request-id", head.request_id),
        *trace_context(head),
    ]
    if token is not None:
        passed.append((b"authorization", b"Bearer " + token.encode()))
    return passed


def _nominated(connection: list[bytes]) -> set[bytes]:
    """Headers that `Connection` declares to be for this hop only (RFC 9110 §7.6.1).

    Content-Length is exempt: nominating it would have us send a body of unknown length.
    """
    names = {part.strip().lower() for value in connection for part in value.split(b",")}
    return names - {b"content-length"}


def response_headers(upstream: Headers, extra: frozenset[bytes]) -> Headers:
    """The upstream's headers that the browser may see; `no-store` where the upstream says nothing."""
    passed, connection, told = [], [], False
    for pair in upstream:
        name = pair[0]
        if (
            name in RESPONSE
            or name.startswith(_RESPONSE_FAMILIES)
            or (name in extra and not never_back(name))
        ):
            passed.append(pair)
            told = told or (name == b"cache-control" and pair[1] != b"")
        elif name == b"connection":
            connection.append(pair[1])
    if connection:
        nominated = _nominated(connection)
        passed = [pair for pair in passed if pair[0] not in nominated]
        told = told and b"cache-control" not in nominated
    if not told:
        passed.append((b"cache-control", b"no-store"))
    return passed


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
    trace, span = random.getrandbits(128) or 1, random.getrandbits(64) or 1
    return [(b"traceparent", b"00-%032x-%016x-00" % (trace, span))]
