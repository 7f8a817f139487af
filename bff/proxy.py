"""Proxied routes: the request goes upstream with its token, the answer comes back, both as streams."""

from __future__ import annotations

from urllib.parse import urlsplit

from bff.access import Access
from bff.answers import CommonHeaders
from bff.exchange import Body, Exchange, has_body
from bff.headers import response_headers, upstream_headers
from bff.request import TrustedProxies
from bff.routes import Route
from bff.upstream import Response, Upstreams


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
        max_body_bytes: int,
    ) -> None:
        origin = urlsplit(public_url)
        self._origin = (origin.scheme.encode(), origin.netloc.encode())
        self._access = access
        self._proxies = proxies
        self._upstreams = upstreams
        self._common = common
        self._max_body_bytes = max_body_bytes

    async def pass_on(self, route: Route, path: str, exchange: Exchange) -> None:
        """Answer an admitted request from its upstream. Raises PublicError or Disconnected."""
        head = exchange.head
        grant = await self._access.grant(head, route)
        origin = self._upstreams.origin(route.upstream)
        target = origin.base_path + path.encode() + (b"?" + head.query if head.query else b"")
        headers = upstream_headers(
            head,
            host=origin.host,
            client=self._proxies.client_address(head),
            origin=self._origin,
            token=grant.token,
        )
        body = Body(exchange.receive, self._max_body_bytes) if has_body(head) else None
        response = await origin.send(head.method, target, headers, body, route.timeout)
        try:
            await self._relay(response, route, exchange)
        finally:
            response.finish()

    async def _relay(self, response: Response, route: Route, exchange: Exchange) -> None:
        """The upstream's answer to the browser: in one piece where it is here already, else as it comes."""
        headers = response_headers(response.headers, route.response_headers)
        if response.status in (204, 304):
            # The length that a 304 may tell is another answer's (RFC 9110 §8.6): nobody sends that body.
            headers = [pair for pair in headers if pair[0] != b"content-length"]
        headers = self._common.add(headers, ours=False)
        whole = response.whole()
        if whole is not None:
            exchange.answer(response.status, headers, whole)
            return
        exchange.begin(response.status, headers)
        async for piece in response.body():
            await exchange.write(piece)
        exchange.end()
