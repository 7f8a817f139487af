"""An AWS account in memory, and nothing of a real one."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from moto import mock_aws

from tests.cognito.account import REGION, Built, build


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No configuration of this machine reaches a test, and no test reaches AWS."""
    for name in list(os.environ):
        if name.startswith(("AWS_", "BFF_", "API_", "IDP_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    with mock_aws():
        yield


@pytest.fixture
def built(aws: None) -> Built:
    """The template's resources, with the parameters of a development environment."""
    return build()
