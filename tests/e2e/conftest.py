"""One live stack for the walks, started once."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.chromium import browser, open_page, page, pictures
from tests.e2e.stack import LiveStack

__all__ = ["browser", "open_page", "page", "pictures"]  # fixtures


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveStack]:
    """The local stack with a real redis-server, two workers and tokens that live for six seconds."""
    if shutil.which("redis-server") is None:
        pytest.skip("needs redis-server (Debian, Ubuntu: apt install redis-server)")
    settings = {
        "BFF_WORKERS": "2",
        "IDP_ACCESS_TOKEN_SECONDS": "6",
        "API_CLOCK_SKEW_SECONDS": "0",
        "BFF_REFRESH_LEEWAY_SECONDS": "2",
    }
    live = LiveStack(tmp_path_factory.mktemp("stack") / "state", settings).start()
    yield live
    status = live.stop()
    assert status == 0, live.log
    assert live.children() == []


@pytest.fixture
def empty_state(tmp_path: Path) -> Path:
    """A place for the state of one more stack."""
    return tmp_path / "state"
