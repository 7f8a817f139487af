"""An upstream: its connections, and how a request is sent to it."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterable
from typing import Any
from urllib.parse import urlsplit

from bff.errors import UpstreamTimeout, UpstreamUnreachable
from bff.request import Headers
from bff.routes import PLAIN, Route, TLSFiles
from bff.upstream.connection import Broken, Connection, Late
from bff.upstream.response import Response

CONNECT_SECONDS = 5.0
KEEP_SECONDS = 3.0
"""Idle connections are used no longer than this: shorter than common servers keep them open."""
KEEP_CONNECTIONS = 64
_IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})  # RFC 9110 §9.2.2


class Origin:
    """Connections to one upstream."""

    def __init__(self, url: str, tls: TLSFiles = PLAIN) -> None:
        """`url` is scheme, host, port and perhaps a base path. Raises OSError for files that are no good."""
        parts = urlsplit(url)
        self.host = parts.netloc.encode()
        self.base_path = parts.path.encode()
        self._address = (parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80))
        self._tls = _context(tls) if parts.scheme == "https" else None
        self._idle: list[Connection] = []

    async def send(
        self,
        method: str,
        target: bytes,
        headers: Headers,
        body: AsyncIterable[bytes] | None,
        patience: float,
        *,
        upgrade: bool = False,
    ) -> Response:
        """Send a request and wait `patience` seconds at most for the head of its response; with `upgrade`
        that may be a 101, else one is an error.

        `body` is sent as it comes, framed by the Content-Length among `headers` or else in chunks.
        Raises UpstreamUnreachable or UpstreamTimeout.
        """
        head = _request_head(method, target, headers, chunked=body is not None and not _sized(headers))
        try:
            connection = self._kept(fresh=body is not None or method not in _IDEMPOTENT)
            if connection is None:
                connection = await self._connect()
            try:
                return await self._exchange(connection, method, head, headers, body, patience, upgrade)
            except Broken as error:
                # The upstream closed an idle connection while we were taking it: nothing was answered, and
                # the request may be repeated.
                if not (connection.used and error.virgin and body is None and method in _IDEMPOTENT):
                    raise
            connection = await self._connect()
            return await self._exchange(connection, method, head, headers, body, patience, upgrade)
        except (Late, TimeoutError):
            raise UpstreamTimeout(reason="no response head in time") from None
        except Broken as error:
            raise UpstreamUnreachable(reason=str(error)) from None

    async def _exchange(
        self,
        connection: Connection,
        method: str,
        head: bytes,
        headers: Headers,
        body: AsyncIterable[bytes] | None,
        patience: float,
        upgrade: bool,
    ) -> Response:
        connection.begin(head_only=method == "HEAD", upgrade=upgrade)
        sender: asyncio.Task[None] | None = None
        try:
            connection.send(head)
            if body is None:
                await connection.head_within(patience)
                connection.check_head()
            else:
                await connection.writable(patience)
                sender = asyncio.create_task(
                    _send_body(connection, body, patience, chunked=not _sized(headers))
                )
                await _head_while_sending(connection, sender, patience)
        except BaseException:
            if sender is not None:
                sender.cancel()
            connection.close()
            raise
        response = Response(connection, self, patience)
        response.sender = sender
        return response

    def _kept(self, *, fresh: bool) -> Connection | None:
        """An idle connection; none where only one will do of which nothing can be stale."""
        now = time.monotonic()
        while self._idle and not fresh:
            connection = self._idle.pop()
            if not connection.closed and now - connection.idle_since < KEEP_SECONDS:
                connection.used = True
                return connection
            connection.close()
        return None

    async def _connect(self) -> Connection:
        loop = asyncio.get_running_loop()
        host, port = self._address
        try:
            options: dict[str, Any] = {"ssl": self._tls} if self._tls else {}
            async with asyncio.timeout(CONNECT_SECONDS):
                _, made = await loop.create_connection(lambda: Connection(loop), host, port, **options)
        except (OSError, TimeoutError) as error:
            raise Broken(f"connecting: {type(error).__name__}") from None
        return made

    def keep(self, connection: Connection) -> None:
        """Take back a connection whose exchange is whole."""
        if connection.closed or len(self._idle) >= KEEP_CONNECTIONS:
            connection.close()
            return
        connection.idle_since = time.monotonic()
        self._idle.append(connection)

    def close(self) -> None:
        """Close what is idle; exchanges under way go on."""
        while self._idle:
            self._idle.pop().close()


def _context(tls: TLSFiles) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=tls.ca)
    if tls.certificate is not None:
        context.load_cert_chain(tls.certificate, tls.key)
    return context


async def _head_while_sending(connection: Connection, sender: asyncio.Task[None], patience: float) -> None:
    """The clock of the response head starts when the body has been sent; it may also come earlier."""
    await asyncio.wait({sender, connection.head_done}, return_when=asyncio.FIRST_COMPLETED)
    if not connection.head_done.done():
        error = sender.exception()
        if error is not None and not isinstance(error, Broken):
            raise error  # the client's body broke off, or grew too large
    await connection.head_within(patience)
    connection.check_head()


async def _send_body(
    connection: Connection, body: AsyncIterable[bytes], patience: float, *, chunked: bool
) -> None:
    async for piece in body:
        if piece:
            connection.send(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
            await connection.writable(patience)
    if chunked:
        connection.send(b"0\r\n\r\n")


def _sized(headers: Headers) -> bool:
    return any(name == b"content-length" for name, _ in headers)


def _request_head(method: str, target: bytes, headers: Headers, *, chunked: bool) -> bytes:
    lines = [b"%b %b HTTP/1.1" % (method.encode(), target), *map(b": ".join, headers)]
    if chunked:
        lines.append(b"transfer-encoding: chunked")
    lines.append(b"\r\n")
    return b"\r\n".join(lines)


class Upstreams:
    """The origins of all routes."""

    def __init__(self) -> None:
        self._origins: dict[tuple[str, TLSFiles], Origin] = {}

    def origin(self, route: Route) -> Origin:
        """The connections to a route's upstream; routes share those that are secured in the same way."""
        place = (route.upstream, route.tls)
        found = self._origins.get(place)
        if found is None:
            found = self._origins[place] = Origin(*place)
        return found

    def close(self) -> None:
        """Close idle connections."""
        for origin in self._origins.values():
            origin.close()
