"""The ASGI layer in front: admits requests, moves the bytes of proxied routes, hands the rest to Flask.

One way through, the same for both planes: target and Host (400) → route (404, 405) → origin (403) →
declared length (413) → session (401, 503) → token → upstream.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from urllib.parse import urlsplit

import structlog

from bff import websocket
from bff.answers import Answer, CommonHeaders, RenderPage, error_answer, is_page
from bff.asgi import (
    MAX_CONTROL_BODY_BYTES,
    ASGIApp,
    Receive,
    Scope,
    Send,
    for_wsgi,
    replay,
    scope_of,
    sending,
    small_body,
)
from bff.audit import Audit
from bff.errors import (
    BadRequest,
    BodyTooLarge,
    InternalError,
    PublicError,
    RouteNotFound,
)
from bff.events import Events
from bff.exchange import Disconnected, Exchange, has_body
from bff.forward_auth import ForwardAuth
from bff.guard import Guard, Proof
from bff.logs import under_way
from bff.paths import check_query
from bff.proxy import Proxy
from bff.rate_limit import RateLimit
from bff.refresh import Refresher
from bff.request import Admitted, RequestHead, TrustedProxies
from bff.routes import ANY_FILE, EVENTS, Endpoint, Route, RouteTable, allow
from bff.sessions.reader import SessionReader
from bff.site import Site, is_navigation
from bff.upstream import Upstreams

LIVE, READY = "/health/live", "/health/ready"


def _health(status: int, body: bytes) -> Answer:
    length = str(len(body)).encode()  # told to HEAD as well
    headers = [(b"content-type", b"application/json"), (b"content-length", length)]
    return Answer(status, [*headers, (b"cache-control", b"no-store")], body)


_ALIVE = _health(200, b'{"status":"ok"}')
_UNREADY = _health(503, b'{"status":"unavailable"}')
LIMITED = frozenset({"/bff/login", "/bff/callback"})
PATIENCE = {
    "/bff/login": None,
    "/bff/callback": None,
    "/bff/backchannel": None,
    "/bff/logout": 1.5,
    "/health/ready": 0.0,
}
"""How long, in seconds, these addresses wait for a provider that is not known yet (None: until it is, or is
not to be had). A sign-out ends the session here in any case, and a probe wants to know at once."""

log = structlog.get_logger("bff.access")


class DataPlane:
    """The whole program as one ASGI application."""

    def __init__(
        self,
        *,
        public_url: str,
        guard: Guard,
        table: RouteTable,
        proxies: TrustedProxies,
        proxy: Proxy,
        events: Events,
        forward_auth: ForwardAuth,
        reader: SessionReader,
        refresher: Refresher,
        upstreams: Upstreams,
        control: ASGIApp,
        provider_ready: Callable[[float | None], Awaitable[None]],
        rate_limit: RateLimit,
        places: Mapping[str, Callable[[], AbstractAsyncContextManager[None]]],
        render_page: RenderPage,
        max_body_bytes: int,
        site: Site | None,
        common: CommonHeaders,
        audit: Audit,
        release: Callable[[], None],
    ) -> None:
        """`control` is the control plane. `provider_ready` waits until the provider is known, is not
        to be had, or so many seconds are over, and holds no thread for it. `places` gives a request to an
        address that may ask the provider something (keys, a pushed request, tokens) its place among the few
        that may hold a thread meanwhile. `release` ends at shutdown what the control plane has under way and
        holds open."""
        origin = urlsplit(public_url)
        self._scheme, self._host = origin.scheme, origin.netloc.encode()
        self._guard = guard
        self._table = table
        self._proxies = proxies
        self._proxy = proxy
        self._events = events
        self._forward_auth = forward_auth
        self._reader = reader
        self._refresher = refresher
        self._upstreams = upstreams
        self._control = control
        self._provider_ready = provider_ready
        self._rate_limit = rate_limit
        self._places = places
        self._render_page = render_page
        self._max_body_bytes = max_body_bytes
        self._site = site
        self._audit = audit
        self._release = release
        self._common = common
        self._draining = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI application: its life alone. What is asked comes as exchanges, from our own connections,
        which have judged the raw bytes of each request."""
        if scope["type"] != "lifespan":
            raise RuntimeError("the data plane is served by `bff serve` alone")
        await self._lifespan(receive, send)

    def drain(self) -> None:
        """From now on say that we are about to end, to probes and on every connection."""
        self._draining = True

    async def forward_auth(self, exchange: Exchange) -> None:
        """Answer one request of the listener that is for forward-auth alone."""
        under_way.set(exchange.head)
        if self._draining:
            exchange.keep_alive = False
        await self._forward_auth.answer(exchange)

    async def exchange(self, exchange: Exchange) -> None:
        """Answer one request."""
        head = exchange.head
        under_way.set(head)
        if self._draining:
            exchange.keep_alive = False
        entry: Endpoint | Route | None = None
        try:
            # The entry first, but only to know how to say what is wrong.
            path, entry = self._table.resolve(head.path)
            entry = self._admit(path, entry, exchange)
            if isinstance(entry, Route):
                self._check_length(head, self._max_body_bytes)
                exchange.stop_when_lost = True
                await self._proxy.pass_on(entry, path, exchange)
            else:
                await self._own(entry, path, exchange)
        except PublicError as error:
            self._fail(error, entry, exchange)
        except Disconnected:
            return
        except Exception as error:  # noqa: BLE001  the last line of defence: no stack trace gets out
            self._fail(InternalError(reason=type(error).__name__), entry, exchange, error)

    def _fail(
        self,
        failure: PublicError,
        entry: Endpoint | Route | None,
        exchange: Exchange,
        cause: BaseException | None = None,
    ) -> None:
        head = exchange.head
        _report(failure, entry, head, cause)
        self._audit.refused(failure, entry.path if entry else None, head)
        if not exchange.response_started:
            page = is_page(entry, head)
            answer = error_answer(failure, self._render_page if page else None, head.request_id)
            self._answer(exchange, answer)
        # Otherwise the connection is closed on an answer that has no end: it must not look whole.

    def _answer(self, exchange: Exchange, answer: Answer) -> None:
        ours = exchange.head.path.startswith(b"/bff/")
        exchange.answer(answer.status, self._common.add(answer.headers, ours=ours), answer.body)

    async def _own(self, entry: Endpoint, path: str, exchange: Exchange) -> None:
        """Answer what is not proxied."""
        if path == LIVE:  # without a thread: a probe must not wait behind a Redis that hangs
            self._answer(exchange, _ALIVE)
        elif self._draining and path == READY:
            self._answer(exchange, _UNREADY)
        elif path == EVENTS:
            exchange.stop_when_lost = True
            await self._events.answer(exchange)
        elif not (entry.site and await self._from_site(entry, path, exchange)):
            self._check_length(exchange.head, MAX_CONTROL_BODY_BYTES)
            if path in LIMITED:
                self._rate_limit.check(self._proxies.client_address(exchange.head))
            await self._to_control(entry, path, exchange)

    def _admit(self, path: str, entry: Endpoint | Route | None, exchange: Exchange) -> Endpoint | Route:
        head = exchange.head
        if head.query:
            check_query(head.query)
        if not path.startswith("/health/"):  # a load balancer asks by address
            self._guard.check_host(self._proxies.host(head))
        entry = allow(entry, head.method)
        proof = entry.proof
        if isinstance(entry, Route) and entry.stream == "websocket" and websocket.is_handshake(head):
            if exchange.hand_over is None:
                raise BadRequest("A WebSocket needs HTTP/1.1.")
            websocket.check(head)
            proof = Proof.WEBSOCKET
        self._guard.check_origin(head, proof)
        return entry

    def _check_length(self, head: RequestHead, limit: int) -> None:
        declared = head.single(b"content-length")
        if declared is not None and int(declared) > limit:
            raise BodyTooLarge(f"The body may have {limit} bytes at most.")

    # -- a single-page app --------------------------------------------------------------------------

    async def _from_site(self, entry: Endpoint, path: str, exchange: Exchange) -> bool:
        """Answer from the app's files; False where it is one of our own that is asked for."""
        if self._site is None:
            return False
        own = (
            entry.below and entry is not ANY_FILE
        )  # the app's files come first, then ours, and no page of the app
        try:
            navigation = not own and is_navigation(exchange.head)
            scope = scope_of(exchange, path, self._scheme)
            await self._site(
                path, scope, exchange.receive, sending(exchange, self._common), navigation=navigation
            )
        except RouteNotFound:
            if not own:
                raise
            return False
        return True

    # -- the control plane --------------------------------------------------------------------------

    async def _to_control(self, endpoint: Endpoint, path: str, exchange: Exchange) -> None:
        """Hand a request to Flask, with its body read: a slow sender must not hold a thread."""
        head = exchange.head
        body = await small_body(exchange.receive) if has_body(head) else b""
        if path in PATIENCE:
            await self._provider_ready(PATIENCE[path])
        admitted = Admitted(
            head, self._proxies.client_address(head), endpoint.session, is_page(endpoint, head)
        )
        inner = scope_of(exchange, path, self._scheme) | {
            "headers": for_wsgi(head, self._host, len(body)),
            Admitted.KEY: admitted,
        }
        async with self._places.get(path, nullcontext)():
            await self._control(inner, replay(body), sending(exchange, self._common))

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                await self._provider_ready(0.0)  # begins to ask; nobody waits
                await send({"type": "lifespan.startup.complete"})
            elif message["type"] == "lifespan.shutdown":
                await self._refresher.drain()
                self._upstreams.close()
                await self._reader.close()
                await asyncio.to_thread(self._release)
                await send({"type": "lifespan.shutdown.complete"})
                return


def _report(
    error: PublicError, entry: Endpoint | Route | None, head: RequestHead, cause: BaseException | None
) -> None:
    """A line for the operator; never the query, a header or a body."""
    fields = {
        "code": error.code,
        "status": error.status,
        "method": head.method,
        "route": entry.path if entry else None,
        "reason": error.reason or None,
    }
    if cause is not None:
        log.error("request_failed", **fields, exc_info=cause)
    elif error.status >= 500:
        log.warning("request_failed", **fields)
    else:
        log.info("request_refused", **fields)
