"""Providers for the tests. Keys are made once: making them is the slow part of a start."""

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bff.dev_idp import Settings
from bff.dev_idp.server import create_app
from tests.dev_idp.flow import Browser, Clock, services

MakeBrowser = Callable[..., Browser]


@pytest.fixture(scope="session")
def state_with_keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state file that holds keys and the test users."""
    path = tmp_path_factory.mktemp("idp") / "state"
    services(create_app(Settings(state_file=path))).storage.close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return path


@pytest.fixture
def clock() -> Clock:
    """The providers' clock."""
    return Clock()


@pytest.fixture
def make(state_with_keys: Path, tmp_path: Path, clock: Clock) -> Iterator[MakeBrowser]:
    """Makes a browser at a provider with the given settings; all share one state file."""
    state = tmp_path / "state"
    shutil.copy(state_with_keys, state)
    apps = []

    def make_browser(**changes: Any) -> Browser:
        settings = replace(Settings(), **{"state_file": state, **changes})
        app = create_app(settings, clock)
        apps.append(app)
        return Browser(app, settings, settings.public_url)

    yield make_browser
    for app in apps:
        services(app).storage.close()


@pytest.fixture
def browser(make: MakeBrowser) -> Browser:
    """A browser at a provider with the default settings."""
    return make()
