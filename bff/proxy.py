"""Proxied routes: the request goes upstream with its token, the answer comes back, both as streams."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from bff.access import Access, Grant
from bff.answers import CommonHeaders
from bff.exchange import Body, Exchange, are_events, has_body
from bff.headers import HeaderRules
from bff.location import POINTERS, Pointing
from bff.request import Headers, RequestHead, TrustedProxies
from bff.routes import Route
from bff.sockets import probe_when_quiet
from bff.streaming import held_open
from bff.streams import Streams
from bff.tunnel import Tunnel
from bff.upstream import Origin, Response, Upstreams
from bff.websocket import answer_headers, is_handshake
from bff.websocket import request_headers as handshake_headers

STREAM_IDLE_SECONDS = 3600.0
"""The longest pause of a stream. An API need not send signs of life; whether its host is still there is asked
in another way."""


@dataclass(frozen=True, slots=True)
class Way:
    """The way of one route to its upstream and back."""

    origin: Origin
    headers: HeaderRules
    pointing: Pointing


class Proxy:
    """Moves the bytes of proxied routes."""

    def __init__(
        self,
        *,
        public_url: str,
        access: Access,
        proxies: TrustedProxies,
        upstreams: Upstreams,
        common: CommonHeaders,
        streams: Streams,
        max_body_bytes: int,
    ) -> None:
        origin = urlsplit(public_url)
        self._origin = (origin.scheme.encode(), origin.netloc.encode())
        self._public_url = public_url
        self._access = access
        self._proxies = proxies
        self._upstreams = upstreams
        self._common = common
        self._streams = streams
        self._max_body_bytes = max_body_bytes
        self._ways: dict[str, Way] = {}

    def pass_on(self, route: Route, path: str, exchange: Exchange) -> Coroutine[Any, Any, None]:
        """Answer an admitted request from its upstream. Awaiting it raises PublicError or Disconnected."""
        pass_on = self._answer if route.stream is None else self._hold_open
        return pass_on(route, path, exchange)

    async def _hold_open(self, route: Route, path: str, exchange: Exchange) -> None:
        head = exchange.head
        # What anybody may open is counted by address: a cookie that nobody looks up is easily invented.
        owner = None if route.anonymous else self._access.owner(head)
        with self._streams.place(owner or self._proxies.client_address(head)):
            grant = await self._access.grant(head, route)
            with held_open(exchange, self._streams, grant.record):
                await self._answer(route, path, exchange, grant)

    async def _answer(self, route: Route, path: str, exchange: Exchange, grant: Grant | None = None) -> None:
        head = exchange.head
        if grant is None:
            grant = await self._access.grant(head, route)
        body = Body(exchange.receive, self._max_body_bytes) if has_body(head) else None
        response = await self._ask(route, path, head, grant, body)
        try:
            if response.status == 401 and body is None:
                response = await self._ask_again(route, path, head, grant, response)
            if response.status == 101:
                await self._switch(response, exchange)
            else:
                await self._relay(response, route, exchange, grant)
        finally:
            response.finish()

    def _ask(
        self, route: Route, path: str, head: RequestHead, grant: Grant, body: Body | None
    ) -> Coroutine[Any, Any, Response]:
        way = self._way(route)
        origin = way.origin
        target = origin.base_path + path.encode() + (b"?" + head.query if head.query else b"")
        headers = way.headers.upstream(head, self._proxies.client_address(head), grant.token)
        websocket = route.stream == "websocket" and is_handshake(head)
        if websocket:
            headers += handshake_headers(head)
        return origin.send(head.method, target, headers, body, route.timeout, upgrade=websocket)

    async def _ask_again(
        self, route: Route, path: str, head: RequestHead, grant: Grant, refusal: Response
    ) -> Response:
        """The upstream refuses a token that looks good: once more with a new one, where one is to be had. A
        request that was answered 401 was not done, and without a body it can be sent as it was."""
        try:
            renewed = await self._access.renew(grant, route)
        except BaseException:
            refusal.finish()
            raise
        if renewed is None:
            return refusal
        refusal.finish()
        response = await self._ask(route, path, head, renewed, None)
        self._access.renewed(grant, route, accepted=response.status != 401)
        return response

    async def _relay(self, response: Response, route: Route, exchange: Exchange, grant: Grant) -> None:
        """The upstream's answer to the browser: in one piece where it is here already, else as it comes."""
        way = self._way(route)
        headers = way.headers.back(response.headers)
        if response.status in (204, 304):
            # The length that a 304 may tell is another answer's (RFC 9110 §8.6): nobody sends that body.
            headers = [pair for pair in headers if pair[0] != b"content-length"]
        if [name for name, _ in headers if name in POINTERS]:
            headers = way.pointing.mapped(headers, response.status)
        if route.stream is not None:
            response.be_patient(STREAM_IDLE_SECONDS)
            headers.append((b"x-accel-buffering", b"no"))  # nginx in front would collect the events
        headers = self._common.add(headers, ours=False)
        whole = response.whole()
        if whole is not None:
            exchange.answer(response.status, headers, whole)
            return
        with self._bound(route, exchange, grant, headers):
            exchange.begin(response.status, headers)
            async for piece in response.body():
                await exchange.write(piece)
            exchange.end()

    @contextmanager
    def _bound(self, route: Route, exchange: Exchange, grant: Grant, headers: Headers) -> Iterator[None]:
        """Events end with their session also where the route does not say that it has streams: whoever has
        forgotten to must not find out by what goes on after a sign-out. Raises TooManyStreams."""
        if route.stream is not None or grant.record is None or not are_events(headers):
            yield
            return
        owner = self._access.owner(exchange.head) or self._proxies.client_address(exchange.head)
        with self._streams.place(owner), held_open(exchange, self._streams, grant.record):
            yield

    async def _switch(self, response: Response, exchange: Exchange) -> None:
        """Both have agreed on a WebSocket: from here on their bytes go over as they are."""
        headers = self._common.add(answer_headers(exchange.head, response.headers), ours=False)
        tunnel = Tunnel(asyncio.get_running_loop())
        upstream, early = response.hand_over(tunnel.upstream)
        tunnel.upstream.transport = upstream
        try:
            tunnel.upstream.write(exchange.switch(headers, tunnel))
            tunnel.browser.write(early)
            probe_when_quiet(upstream)
            upstream.resume_reading()
            await tunnel.ended
        finally:
            tunnel.abort()

    def _way(self, route: Route) -> Way:
        found = self._ways.get(route.path)
        if found is None:
            origin = self._upstreams.origin(route)
            headers = HeaderRules(
                host=origin.host, origin=self._origin, up=route.request_headers, back=route.response_headers
            )
            pointing = Pointing(route.upstream, self._public_url)
            found = self._ways[route.path] = Way(origin, headers, pointing)
        return found
