"""More connections than a worker may have open."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.processes.fleet import Fleet, fleet, request
from tests.support.wire import line, until

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.redis_server,
    pytest.mark.skipif(sys.platform != "linux", reason="limits another process: Linux's own"),
]

ROOM = 40
"""File descriptors that are left to the worker."""


@pytest.fixture
def own() -> Iterator[Fleet]:
    with fleet(1) as found:
        yield found


def test_more_connections_than_file_descriptors(own: Fleet) -> None:
    """Who is connected is served while others find no room; when they leave, everybody is served again,
    by the same process."""
    node, visitor = own.nodes[0], own.plant("fresh")
    worker = node.worker
    used = len(list(Path(f"/proc/{worker}/fd").iterdir()))
    with line(node.port) as early, ExitStack() as stack:
        asked = request("GET", "/weather", visitor).replace(b"Connection: close\r\n", b"")
        assert early.send(asked).answer().text == visitor.first
        resource.prlimit(worker, resource.RLIMIT_NOFILE, (used + ROOM, used + ROOM))
        for _ in range(3 * ROOM):
            stack.enter_context(line(node.port))
        time.sleep(0.5)
        for _ in range(3):
            assert early.send(asked).answer().text == visitor.first
    assert until(node.ready)
    assert node.get("/weather", visitor).text == visitor.first
    assert node.worker == worker
    assert "Traceback" not in node.output
