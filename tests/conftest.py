"""Rules for all tests: one thread, no network, a logged ERROR fails the test."""

from __future__ import annotations

import gc
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
import torch

torch.set_num_threads(1)

LONG = (
    "webui/tab", "ui", "cli/test_signals.py", "server/jobs/test_jobs_killed.py", "propagation",
    "webui/img2img", "hosts", "run", "server", "devices", "demo", "tools", "compat", "cli",
)
"""Rooms whose tests take long or share what is slow to start, such as a browser, longest first."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put long tests first: a process that is idle takes over what is last in another's queue.

    So no browser and no model is started a second time, and short tests are left for the end.
    """
    tests = Path(__file__).parent

    def rank(item: pytest.Item) -> int:
        path = item.path.relative_to(tests)
        places = {path.as_posix(), *(parent.as_posix() for parent in path.parents)}
        return next((k for k, long in enumerate(LONG) if long in places), len(LONG))

    items.sort(key=rank)


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Spare later garbage collections the half a million objects of what was imported."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def demo_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small untrained model of the demo, as a diffusers folder."""
    from demo.make_model import write_model  # diffusers takes seconds; the controller needs none

    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="session")
def driver() -> Iterator[Chrome]:
    """One browser for all tests of pages."""
    from tests.helpers.tab_browser import browser, missing_browser  # selenium: for these only

    if missing := missing_browser():
        pytest.skip(missing)
    with browser() as found:
        yield found


@pytest.fixture(autouse=True)
def _no_logged_error(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    yield
    errors = [
        record.getMessage()
        for when in ("setup", "call")
        for record in caplog.get_records(when)
        if record.levelno >= logging.ERROR and record.name.startswith("fresco")
    ]
    assert not errors, errors
