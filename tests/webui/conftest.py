"""A WebUI to ask: the double, whose every trace is gone after a test; or a real one.

With `WEBUI_DIR` set, tests that know a WebUI from outside only ask that one over HTTP instead.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from fresco.guidance import parts
from tests.helpers.webui import devices
from tests.helpers.webui.client import Host
from tests.helpers.webui.double import ROOT, DoubleHost, running
from tests.helpers.webui.http_host import HttpHost, given_folder, given_model, running_webui
from tests.helpers.webui.watcher import Watcher, traces


@pytest.fixture
def double(tmp_path: Path) -> Iterator[DoubleHost]:
    """The double with FRESCO; the UNet must be as before afterwards, and no callback failed."""
    if given_folder():
        pytest.skip("looks inside the double, and WEBUI_DIR names a real WebUI")
    with running(ROOT / "scripts" / "fresco.py", tmp_path) as host:
        before = traces(host.unet)
        yield host
        assert traces(host.unet) == before
        assert host.swallowed == []


@pytest.fixture
def in_double_precision(
    double: DoubleHost, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """The double computes in float64 during the test, and so does the optimisation."""
    for name in ("dtype", "dtype_vae", "dtype_unet"):
        monkeypatch.setattr(devices, name, torch.float64)
    motion = functools.partial(parts.make_feature_motion, dtype=torch.float64)
    monkeypatch.setattr(parts, "make_feature_motion", motion)
    double.model.double()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)
    double.model.float()


@pytest.fixture(scope="session")
def webui(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HttpHost]:
    """The WebUI of `WEBUI_DIR`, started once for all tests."""
    folder = given_folder()
    assert folder is not None
    with running_webui(
        folder, tmp_path_factory.mktemp("webui"), model=given_model()
    ) as host:
        yield host


@pytest.fixture(params=["webui" if given_folder() else "double"])
def host(request: pytest.FixtureRequest) -> Host:
    """A WebUI with FRESCO, which tests know from outside only."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def watcher(double: DoubleHost) -> Watcher:
    """What happens inside the double."""
    script = Watcher()
    double.add(script)
    return script
