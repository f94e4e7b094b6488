"""The strict device, for every test of this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from tests.helpers.strict_device import Log, strict_device


@pytest.fixture
def strict() -> Iterator[tuple[torch.device, Log]]:
    """The device while a test runs, and what it sees."""
    with strict_device() as given:
        yield given


@pytest.fixture
def device(strict: tuple[torch.device, Log]) -> torch.device:
    """The device while a test runs."""
    return strict[0]


@pytest.fixture
def log(strict: tuple[torch.device, Log]) -> Log:
    """What the device sees."""
    return strict[1]
