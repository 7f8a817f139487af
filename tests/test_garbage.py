"""Connections that have ended leave nothing to the collector of cycles, which comes late."""

from __future__ import annotations

import asyncio
import gc
import socket
import time
import weakref
from collections.abc import Iterator

import pytest

from bff.upstream.connection import Connection
from tests.support.stack import Stack, running, store
from tests.support.upstream import Request, Wire, ok
from tests.support.wire import until

ENDS = 20
PART = b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n" + b"x" * 1000


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with store() as found, running(found) as stack:
        yield stack


def at_once(wire: Wire, request: Request) -> object:
    wire.body(request)
    wire.send(ok(b"x"))
    return True


def late(wire: Wire, request: Request) -> object:
    wire.body(request)
    time.sleep(0.3)
    return False


def partly(wire: Wire, request: Request) -> object:
    wire.body(request)
    wire.send(PART)
    time.sleep(0.3)
    return False


def broken(wire: Wire, request: Request) -> object:
    wire.body(request)
    wire.send(b"nonsense\r\n\r\n")
    return False


CASES = {
    "answered": (at_once, "GET /weather", True, True),
    "answered by the control plane": (at_once, "GET /", True, True),
    "without a session": (at_once, "GET /weather", False, True),
    "nothing at that address": (at_once, "GET /nowhere", True, True),
    "malformed": (at_once, "GET http://x/", True, True),
    "an upstream that fails": (broken, "GET /weather", True, True),
    "gone before the answer": (late, "GET /weather", True, False),
    "gone in the middle of the answer": (partly, "GET /weather", True, True),
}


@pytest.mark.parametrize("case", CASES)
def test_ends(stack: Stack, case: str) -> None:
    """However a connection ends, reference counts alone set its memory free."""
    stack.upstream.script, line, signed_in, read = CASES[case]
    cookie = stack.sign_in(stack.browser()).session
    headers = [f"{line} HTTP/1.1", f"Host: localhost:{stack.port}", "X-CSRF: 1"]
    headers += [f"Cookie: bff={cookie}"] if signed_in else []
    request = "\r\n".join([*headers, "", ""]).encode()

    def connect() -> None:
        before = len(stack.upstream.requests)
        with socket.create_connection(("127.0.0.1", stack.port)) as client:
            client.sendall(request)
            if read:
                assert client.recv(65_536)
            else:
                assert until(lambda: len(stack.upstream.requests) > before)

    connect()
    time.sleep(0.5)
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        for _ in range(ENDS):
            connect()
        time.sleep(0.7)
        gc.collect()
        left = [type(each).__name__ for each in gc.garbage if _ours(each)]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    assert left == []


def test_a_connection_that_is_never_made() -> None:
    """A browser may leave while the upstream is being connected to."""
    loop = asyncio.new_event_loop()
    gc.disable()
    try:
        connection = weakref.ref(Connection(loop))
        assert connection() is None
    finally:
        gc.enable()
        loop.close()


def _ours(each: object) -> bool:
    """Whether it is of a connection or a request."""
    names = {kind.__module__ + "." + kind.__name__ for kind in type(each).__mro__}
    return not names.isdisjoint(
        {"bff.connection.Protocol", "bff.exchange.Exchange", "bff.upstream.connection.Connection"}
    )
