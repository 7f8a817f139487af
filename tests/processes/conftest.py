"""Two nodes for most tests: patient ones, as by default, and ones that give the provider two seconds."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.processes.fleet import Fleet, fleet


@pytest.fixture(scope="package")
def patient_fleet() -> Iterator[Fleet]:
    with fleet(2, provider_timeout_seconds="10") as found:
        yield found


@pytest.fixture(scope="package")
def quick_fleet() -> Iterator[Fleet]:
    with fleet(2, provider_timeout_seconds="2") as found:
        yield found


@pytest.fixture
def patient(patient_fleet: Fleet) -> Fleet:
    """Two nodes with the default deadline for the provider, ten seconds."""
    patient_fleet.reset()
    return patient_fleet


@pytest.fixture
def quick(quick_fleet: Fleet) -> Fleet:
    """Two nodes that give the provider two seconds."""
    quick_fleet.reset()
    return quick_fleet
