"""Connections that are silent for long: the operating system asks whether the peer is still there."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress

QUIET_SECONDS, PROBE_SECONDS, PROBES = 60, 15, 4


def probe_when_quiet(transport: asyncio.BaseTransport | None) -> None:
    """Notice within two minutes that a silent peer has gone without a word (a closed laptop, a router that
    forgot): such a stream would hold its place until its session ends."""
    found = transport.get_extra_info("socket") if transport is not None else None
    if found is None:
        return
    with suppress(OSError, AttributeError):  # Unix sockets have none of it
        found.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        found.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, QUIET_SECONDS)
        found.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, PROBE_SECONDS)
        found.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, PROBES)
