"""One live stack for the walks, started once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.chromium import browser, open_page, page, pictures
from tests.e2e.stack import LiveStack

__all__ = ["browser", "open_page", "page", "pictures"]  # fixtures


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory, redis_process: str) -> Iterator[LiveStack]:
    """The local stack on a real redis-server of ours, two workers and tokens that live for six seconds."""
    settings = {
        "BFF_REDIS_URL": redis_process,
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
