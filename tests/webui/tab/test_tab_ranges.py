"""Ranges of frames in the page: a table above their text."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.tab_browser import QUICK, TabPage, missing_browser, screenshot

pytestmark = [
    pytest.mark.skipif(bool(missing_browser()), reason=missing_browser() or "-"),
    pytest.mark.timeout(400),
]


def fill(page: TabPage, name: str, text: str) -> None:
    """Write into a cell of the table, and leave it."""
    page.script(
        "const cell = document.querySelector(`[data-focus=${arguments[0]}]`);"
        "cell.value = arguments[1]; cell.dispatchEvent(new Event('change'))", name, text)


def test_ranges_are_made_of_the_shots_filled_in_and_refused_where_they_overlap(
    page: TabPage, clip: Path, tmp_path: Path
) -> None:
    page.open_clip(clip)
    page.put(**QUICK)
    page.press("#fresco_section_ranges .label-wrap")
    page.press("#fresco_ranges [data-focus=each]")
    fill(page, "prompt1", "a sea")
    fill(page, "strength1", "0.6")
    screenshot(page.driver, tmp_path / "ranges.png")
    assert page.text("sampling_ranges") == "0-11 seed=0\n12-23 strength=0.6 seed=0 prompt=a sea"
    fill(page, "last0", "12")
    page.press("#fresco_run_keyframes")
    page.until("document.querySelector('#fresco_run_message').textContent"
               ".includes('overlap at frame 12')")
    page.put(sampling_ranges="4 seed=3")
    page.until("document.querySelectorAll('#fresco_ranges .fresco_range').length === 1")
    page.press("#fresco_ranges [data-focus=drop0]")
    assert page.text("sampling_ranges") == ""
