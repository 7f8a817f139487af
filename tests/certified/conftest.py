"""The stage, once for all tests here."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.certified.provider import NEEDED, can_run
from tests.certified.stage import Stage
from tests.e2e.chromium import browser, open_page

__all__ = ["browser", "open_page"]  # fixtures


@pytest.fixture(scope="package")
def stage(redis_process: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Certified providers and BFFs, with a real Redis."""
    if not can_run():
        pytest.skip(NEEDED)
    stage = Stage(tmp_path_factory.mktemp("certified"), redis_process)
    yield stage
    stage.close()
