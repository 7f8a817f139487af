"""A TLS handshake in memory: whether a client would take what a server shows."""

from __future__ import annotations

import ssl
from pathlib import Path


def client_context(authorities: Path) -> ssl.SSLContext:
    """A client that knows these authorities, and keeps RFC 5280 to the letter."""
    context = ssl.create_default_context(cafile=authorities)
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    return context


def handshake(server: ssl.SSLContext, client: ssl.SSLContext, host: str) -> ssl.SSLObject:
    """The client's side of a connection to `host`. Raises ssl.SSLError where it does not come about."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = client.wrap_bio(to_client, to_server, server_hostname=host)
    theirs = server.wrap_bio(to_server, to_client, server_side=True)
    open_ = [ours, theirs]
    while open_:
        side = open_.pop(0)
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            open_.append(side)
    return ours
