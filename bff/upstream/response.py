"""A response whose head has come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from bff.errors import UpstreamTimeout, UpstreamUnreachable
from bff.sockets import probe_when_quiet
from bff.upstream.connection import Broken, Connection, Late

if TYPE_CHECKING:
    from bff.upstream.origin import Origin


class Response:
    """A response whose head has come. Iterate over `body()`, then the connection takes care of itself."""

    def __init__(self, connection: Connection, origin: Origin, patience: float) -> None:
        self._connection = connection
        self._origin = origin
        self._patience = patience
        self.status = connection.status
        self.headers = connection.headers
        self.sender: asyncio.Task[None] | None = None

    def be_patient(self, seconds: float) -> None:
        """Let the body pause for so long: it is a stream. Whether the upstream is still there is asked of the
        operating system."""
        self._patience = seconds
        probe_when_quiet(self._connection.transport)

    def hand_over(self, successor: asyncio.Protocol) -> tuple[asyncio.Transport, bytes]:
        """After a 101: give the connection to `successor`; its transport, and what has come already. Raises
        UpstreamUnreachable."""
        try:
            return self._connection.hand_over(successor)
        except Broken as error:
            raise UpstreamUnreachable(reason=str(error)) from None

    def whole(self) -> bytes | None:
        """The body, where it has come with the head; then `body` has nothing left to give."""
        return self._connection.whole()

    async def body(self) -> AsyncIterator[bytes]:
        """Pieces of the body as they come. Raises UpstreamUnreachable or UpstreamTimeout when they stop."""
        connection = self._connection
        while True:
            try:
                piece = await connection.chunk(self._patience)
            except Late:
                raise UpstreamTimeout(reason="the body stopped") from None
            except Broken as error:
                raise UpstreamUnreachable(reason=str(error)) from None
            if not piece:
                return
            yield piece

    def finish(self) -> None:
        """Give the connection back, or close it if the exchange was cut short."""
        if self._sent() and self._connection.complete and self._connection.reusable:
            self._origin.keep(self._connection)
        else:
            self._connection.close()

    def _sent(self) -> bool:
        """Whether the request went out whole: after half a body, the next request would be taken for the
        rest of it (request smuggling). A sender that is still at it stops."""
        if self.sender is None:
            return True
        if not self.sender.done():
            self.sender.cancel()
            return False
        return not self.sender.cancelled() and self.sender.exception() is None
