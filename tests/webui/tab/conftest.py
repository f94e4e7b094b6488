"""One program with the tab for all tests of the page."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from selenium.webdriver import Chrome

from tests.helpers.clips import write_clip
from tests.helpers.tab_browser import CUT, TabPage, resize
from tests.helpers.tab_program import running_tab
from tests.helpers.tiny_models import square_frames


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the program keeps its files."""
    return tmp_path_factory.mktemp("app")


@pytest.fixture(scope="session")
def address(folder: Path) -> Iterator[str]:
    """The tab in a program of its own."""
    with running_tab(folder, OMP_NUM_THREADS="1") as program:
        yield program.address


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A moving square, then, after a cut, its negative."""
    frames = square_frames(CUT)
    path = tmp_path_factory.mktemp("clip") / "two shots.mp4"
    return write_clip(path, [*frames, *(255 - frames)])


@pytest.fixture
def page(driver: Chrome, address: str) -> Iterator[TabPage]:
    """The tab, newly opened; its own code must not complain.

    Jobs that a failed test leaves are cancelled, so that the next test finds none at work.
    """
    resize(driver, 1280, 1000)
    found = TabPage(driver, address)
    yield found
    cancel_jobs(address)
    resize(driver, 1280, 1000)
    assert found.complaints() == []


def cancel_jobs(address: str) -> None:
    """Cancel every job that has not ended, and wait until it has."""
    jobs = f"{address}/fresco/jobs"

    def list_going() -> list[str]:
        return [job["id"] for job in requests.get(jobs, timeout=20).json()["jobs"]
                if job["state"] in ("queued", "running", "cancelling")]

    for job in reversed(list_going()):  # a queued one first: it would begin
        requests.post(f"{jobs}/{job}/cancel", timeout=20)
    while list_going():
        time.sleep(0.05)
