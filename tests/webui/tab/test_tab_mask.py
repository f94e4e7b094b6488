"""Masks drawn in the page, on frames of the clip."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from selenium.webdriver.common.action_chains import ActionChains

from tests.helpers.job_environment import CANNY
from tests.helpers.tab_browser import CUT, QUICK, TabPage, missing_browser, screenshot

pytestmark = [
    pytest.mark.skipif(bool(missing_browser()), reason=missing_browser() or "-"),
    pytest.mark.timeout(400),
]
DRAWN = "document.querySelector('#fresco_mask_drawings textarea').value"


def read_drawings(page: TabPage) -> dict[int, NDArray[np.uint8]]:
    """What the page would send, as grey images."""
    sent: dict[str, str] = json.loads(page.text("mask_drawings") or "{}")
    found: dict[int, NDArray[np.uint8]] = {}
    for number, address in sent.items():
        data = np.frombuffer(base64.b64decode(address.partition(",")[2]), np.uint8)
        found[int(number)] = np.asarray(cv2.imdecode(data, cv2.IMREAD_GRAYSCALE), np.uint8)
    return found


def drag(page: TabPage, *steps: tuple[int, int]) -> None:
    """A stroke over the middle of the drawing."""
    canvas: Any = page.element("#fresco_mask_paint")
    page.script("arguments[0].scrollIntoView({block: 'center'})", canvas)
    actions = ActionChains(page.driver).move_to_element(canvas).click_and_hold()
    for x, y in steps:
        actions = actions.move_by_offset(x, y)
    actions.release().perform()


def press(page: TabPage, text: str) -> None:
    page.script(
        "[...document.querySelectorAll('#fresco_mask_board button')]"
        ".find((button) => button.textContent === arguments[0]).click()", text)


def test_a_mask_is_drawn_erased_undone_and_corrected_on_another_frame(
    page: TabPage, clip: Path, tmp_path: Path
) -> None:
    page.open_clip(clip)
    page.press("#fresco_section_mask .label-wrap")
    page.choose("mask_source", "drawing")
    page.press("#fresco_mask_open")
    page.until("document.querySelector('#fresco_mask_paint')")
    drag(page, (40, 0), (0, 30))
    page.until(f"{DRAWN} !== ''")
    screenshot(page.driver, tmp_path / "mask.png")
    first = read_drawings(page)
    assert list(first) == [0]
    mask = first[0]
    assert mask[mask.shape[0] // 2, mask.shape[1] // 2] == 255
    assert 0.002 < (mask > 127).mean() < 0.9
    page.script("document.querySelector('#fresco_mask_board input[type=checkbox]').click()")
    drag(page, (20, 0))
    erased = read_drawings(page)[0]
    assert 0 < (erased > 127).sum() < (mask > 127).sum()
    press(page, "Undo")
    assert np.array_equal(read_drawings(page)[0], mask)
    press(page, "Invert")
    assert ((read_drawings(page)[0] > 127) != (mask > 127)).mean() > 0.95
    press(page, "Undo")
    page.script("fresco.core.go(9)")
    page.press("#fresco_mask_open")
    page.until("document.querySelector('#fresco_mask_board').textContent.includes('Frame 9')")
    page.script("document.querySelector('#fresco_mask_board input[type=checkbox]').click()")
    drag(page, (-20, 0))
    assert sorted(read_drawings(page)) == [0, 9]
    press(page, "Clear")
    assert list(read_drawings(page)) == [0]
    page.upload(clip, "mask_file")  # a video of masks
    page.until("document.querySelector('#fresco_mask_told').textContent.includes('24 frames')")
    page.until("/^[0-9a-f]{16}$/.test(document.querySelector('#fresco_mask_path textarea').value)")
    assert page.script("return document.querySelector('#fresco_mask_source input').value") == (
        "files")
    screenshot(page.driver, tmp_path / "file.png")
    page.upload(clip)  # what was drawn belongs to the video of before
    page.until(f"{DRAWN} === ''")
    assert not page.script("return document.querySelector('#fresco_mask_paint')")


def test_a_job_shows_its_mask_and_hint_and_gives_them_back_to_be_corrected(
    page: TabPage, clip: Path, tmp_path: Path
) -> None:
    """On keyframes already; a page that was loaded anew takes the drawings of the job."""
    page.open_clip(clip)
    page.put(**QUICK, control_units=json.dumps([{"model": CANNY, "module": "canny"}]))
    page.press("#fresco_section_mask .label-wrap")
    page.choose("mask_source", "drawing")
    for frame in (0, CUT):
        page.script("fresco.core.go(arguments[0])", frame)
        page.press("#fresco_mask_open")
        page.until("document.querySelector('#fresco_mask_board').textContent"
                   f".includes('Frame {frame}')")
        drag(page, (60, 0), (0, 30))
    page.until(f"Object.keys(JSON.parse({DRAWN} || '{{}}')).length === 2")
    drawn = read_drawings(page)
    page.press("#fresco_run_keyframes")
    page.until("fresco.state().work.chosen")
    page.job_until("done")
    page.until("fresco.state().work.detail?.hints.length === 1")
    page.until(f"fresco.state().work.detail.keys[{CUT - 1}]")
    page.script(f"fresco.core.compare({CUT - 1}, true)")
    page.until(f"fresco.state().work.pair?.frame === {CUT - 1} && fresco.state().work.pair.after")
    shown = page.script("return fresco.state().work.pair.after")
    for layer in ("hint&unit=1", "mask"):
        page.script("const choice = document.querySelector('.fresco_layer');"
                    "choice.value = arguments[0]; choice.dispatchEvent(new Event('change'))", layer)
        page.until(f"![{shown!r}, null].includes(fresco.state().work.pair.after)"
                   f" && fresco.core.find_layer() === {layer!r}")
        shown = page.script("return fresco.state().work.pair.after")
    screenshot(page.driver, tmp_path / "layers.png")
    page.script("fresco.core.go(arguments[0])", CUT - 1)
    page.press("#fresco_mask_open")
    page.until(f"document.querySelector('#fresco_mask_board').textContent.includes('{CUT - 1}')")
    page.press("#fresco_mask_tracked")
    page.until(f"{CUT - 1} in JSON.parse({DRAWN})")
    tracked = read_drawings(page)[CUT - 1]
    assert 0.002 < (tracked > 127).mean() < 0.9
    job = page.script("return fresco.state().work.chosen")
    again = TabPage(page.driver, page.script("return location.origin"))
    again.open_clip(clip)
    again.script("fresco.core.choose(arguments[0])", job)
    again.press("#fresco_section_mask .label-wrap")
    again.press("#fresco_mask_again")
    again.until(f"{DRAWN} !== ''")
    found = read_drawings(again)
    assert found.keys() == drawn.keys()
    for number, mask in found.items():
        assert ((mask > 127) != (drawn[number] > 127)).mean() < 0.01
