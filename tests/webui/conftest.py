"""A WebUI to ask: the double, whose every trace is gone after a test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.webui.client import Host
from tests.helpers.webui.double import ROOT, DoubleHost, running
from tests.helpers.webui.watcher import Watcher, traces


@pytest.fixture
def double(tmp_path: Path) -> Iterator[DoubleHost]:
    """The double with FRESCO; the UNet must be as before afterwards, and no callback failed."""
    with running(ROOT / "scripts" / "fresco.py", tmp_path) as host:
        before = traces(host.unet)
        yield host
        assert traces(host.unet) == before
        assert host.swallowed == []


@pytest.fixture
def host(double: DoubleHost) -> Host:
    """A WebUI with FRESCO, which tests know from outside only."""
    return double


@pytest.fixture
def watcher(double: DoubleHost) -> Watcher:
    """What happens inside the double."""
    script = Watcher()
    double.add(script)
    return script

