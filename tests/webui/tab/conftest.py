"""One program with the tab, and one browser, for all tests of the page."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium.webdriver import Chrome

from tests.helpers.clips import write_clip
from tests.helpers.tab_browser import CUT, TabPage, browser, missing_browser, resize
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
def driver() -> Iterator[Chrome]:
    """A browser."""
    if missing := missing_browser():
        pytest.skip(missing)
    with browser() as found:
        yield found


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A moving square, then, after a cut, its negative."""
    frames = square_frames(CUT)
    path = tmp_path_factory.mktemp("clip") / "two shots.mp4"
    return write_clip(path, [*frames, *(255 - frames)])


@pytest.fixture
def page(driver: Chrome, address: str) -> Iterator[TabPage]:
    """The tab, newly opened; its own code must not complain."""
    resize(driver, 1280, 1000)
    found = TabPage(driver, address)
    yield found
    resize(driver, 1280, 1000)
    assert found.complaints() == []
