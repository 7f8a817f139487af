"""Forward-auth: a proxy asks here whether a request may go on, and with which token.

The request that is judged is not the one that comes, but one that the proxy tells of. So only configured
proxies are heard, on a listener of its own: on the public one, anybody with a session could have its access
token shown. Judged is as for a proxied request, by the same functions and in the same order.
"""

from __future__ import annotations

import re
from urllib.parse import quote

import structlog

from bff.access import Access
from bff.answers import CommonHeaders, error_answer
from bff.audit import Audit
from bff.errors import (
    BadRequest,
    CSRFRequired,
    InternalError,
    ProxyNotTrusted,
    PublicError,
    RouteNotFound,
    SignInNeeded,
)
from bff.exchange import Exchange
from bff.guard import Guard, safe_return_url
from bff.paths import check_query
from bff.request import Headers, RequestHead, TrustedProxies
from bff.routes import Route, RouteTable, allow

PATH = b"/bff/forward-auth"
NGINX = (b"x-original-uri", b"x-original-method")
FORWARDED = (b"x-forwarded-uri", b"x-forwarded-method")
_METHOD = re.compile(rb"[A-Z]{1,32}\Z")

log = structlog.get_logger("bff.access")


class ForwardAuth:
    """Judges requests that another proxy will send upstream."""

    def __init__(
        self,
        *,
        guard: Guard,
        table: RouteTable,
        proxies: TrustedProxies,
        access: Access,
        common: CommonHeaders,
        audit: Audit,
    ) -> None:
        """`proxies` are those that may ask."""
        self._guard = guard
        self._table = table
        self._proxies = proxies
        self._access = access
        self._common = common
        self._audit = audit

    async def answer(self, exchange: Exchange) -> None:
        """200, with the `Authorization` for the upstream where the route has one; else an error as that of a
        proxied request."""
        exchange.stop_when_lost = True
        told: RequestHead | None = None
        cause: BaseException | None = None
        try:
            self._check_peer(exchange.head.peer)
            told = told_request(exchange.head)
            token = await self._judge(told)
        except PublicError as error:
            failure = error
        except Exception as error:  # noqa: BLE001  the last line of defence: no stack trace gets out
            failure, cause = InternalError(reason=type(error).__name__), error
        else:
            headers = [] if token is None else [(b"authorization", b"Bearer " + token.encode())]
            exchange.answer(200, self._common.add(headers, ours=True), b"")
            return
        _report(failure, exchange.head, cause)
        self._audit.refused(failure, PATH.decode(), told or exchange.head)
        answer = error_answer(failure, None, exchange.head.request_id)
        headers = answer.headers + _for_proxies(failure, answer.body, told)
        exchange.answer(answer.status, self._common.add(headers, ours=True), answer.body)

    def _check_peer(self, peer: str | None) -> None:
        if not self._proxies.trusts(peer):
            raise ProxyNotTrusted("Only the proxies in front may ask here.")

    async def _judge(self, head: RequestHead) -> str | None:
        """The token that the request may take upstream, if any. Raises PublicError."""
        _, entry = self._table.resolve(head.path)
        check_query(head.query)
        if not isinstance(entry, Route):  # our own addresses are for us to answer
            raise RouteNotFound("No route has this address.")
        allow(entry, head.method)
        self._guard.check_origin(head, entry.proof)
        if head.has(b"sec-websocket-key") and not self._guard.same_origin(head):
            # Neither a preflight nor CORS stands between a foreign page and a WebSocket.
            raise CSRFRequired("A WebSocket needs the Origin of this site.")
        return (await self._access.grant(head, entry)).token


def told_request(head: RequestHead) -> RequestHead:
    """The request that the proxy tells of, with the browser's headers as the proxy passed them. Raises
    RouteNotFound or BadRequest.

    What could come from the browser itself is refused: one family of headers, each once. A proxy overwrites
    its own family only, so that a second one is the browser's.
    """
    families = [family for family in (NGINX, FORWARDED) if any(head.has(name) for name in family)]
    if head.path == PATH:
        if len(families) != 1:
            raise BadRequest(
                "The request to judge must be named by X-Original-URI and X-Original-Method, or by "
                "X-Forwarded-Uri and X-Forwarded-Method, and not by both."
            )
        target, method = (head.single(name) for name in families[0])
    elif head.path.startswith(PATH + b"/"):
        target, method = _told_by_path(head), head.method.encode()
    else:
        raise RouteNotFound("Only /bff/forward-auth is here.")
    if target is None or method is None:
        raise BadRequest("The address and the method of the request to judge must come once each.")
    if b"#" in target or not _METHOD.match(method):
        raise BadRequest("The request to judge is not HTTP/1.1 as it should be.")
    path, _, query = target.partition(b"?")
    return RequestHead(method.decode(), path, query, head.headers, head.peer)


def _told_by_path(head: RequestHead) -> bytes:
    """Envoy appends the request's own address to ours, and keeps its method. Headers that say something else
    would be the browser's."""
    target = head.path[len(PATH) :] + (b"?" + head.query if head.query else b"")
    agreed = {b"x-forwarded-uri": target, b"x-forwarded-method": head.method.encode()}
    if any(head.has(name) and head.single(name) != agreed.get(name) for name in NGINX + FORWARDED):
        raise BadRequest("The headers name another request than the path does.")
    return target


def _for_proxies(error: PublicError, document: bytes, told: RequestHead | None) -> Headers:
    """The refusal in headers, for a proxy that keeps nothing else of the answer (nginx); and, where a person
    can be sent there, the address that signs in and leads back."""
    headers = [(b"x-problem", document)]  # one line of ASCII, all of it our own words
    if isinstance(error, SignInNeeded) and told is not None and told.method == "GET":
        headers.append((b"x-login-url", _login_url(error, told).encode()))
    return headers


def _login_url(error: SignInNeeded, told: RequestHead) -> str:
    url: str = error.members["login_url"]
    target = (told.path + (b"?" + told.query if told.query else b"")).decode()
    try:
        return_url = quote(safe_return_url(target), safe="")
    except BadRequest:  # too long, say
        return url
    return f"{url}{'&' if '?' in url else '?'}returnUrl={return_url}"


def _report(error: PublicError, head: RequestHead, cause: BaseException | None) -> None:
    """A line for the operator; never an address's query, a header or a body."""
    fields = {"code": error.code, "status": error.status, "reason": error.reason or None, "peer": head.peer}
    if cause is not None:
        log.error("forward_auth_failed", **fields, exc_info=cause)
    elif error.status >= 500 or isinstance(error, ProxyNotTrusted):
        log.warning("forward_auth_failed", **fields)
    else:
        log.info("forward_auth_refused", **fields)
