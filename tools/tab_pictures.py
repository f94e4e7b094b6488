"""Make docs/tab.webp and docs/strip.webp: the tab after a job, and the curves under its timeline.

`python -m tools.tab_pictures` starts `fresco ui` with the demo's model, has the first frames of a
shipped clip translated, and photographs the page. It needs Debian's chromium and chromium-driver,
and some minutes.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import cv2
from selenium.webdriver.common.keys import Keys

from benchmarks.clips import packaged_clip
from tests.helpers.tab_browser import TabPage, browser, missing_browser, resize, screenshot
from tests.helpers.ui_program import running_ui

DOCS = Path(__file__).resolve().parents[1] / "docs"
WIDTH, FRAMES, SHOWN = 1080, 48, 33
"""Of the page, in pixels; of the clip; and the frame that is pointed at."""
FIELDS = {
    "sampling_prompt": "autumn colours, a photo of a rabbit",
    "sampling_steps": 10, "sampling_strength": 0.5, "sampling_guidance_scale": 1,
    "sampling_resolution": 192, "guidance_optimization_iterations": 1,
}
_POINT_AT = """
    const strip = document.querySelector('.fresco_judged'), box = strip.getBoundingClientRect();
    strip.dispatchEvent(new PointerEvent('pointermove', {
        clientX: box.left + box.width * arguments[0], clientY: box.top + 4, bubbles: true}));
    document.querySelector('#fresco_timeline').scrollIntoView();"""


def write(picture: Path, name: str, height: int | None = None) -> None:
    """Write the upper part of a picture into docs/, at a sixth of PNG's size."""
    image = cv2.imread(str(picture))
    assert image is not None, picture
    cv2.imwrite(str(DOCS / f"{name}.webp"), image[:height], [cv2.IMWRITE_WEBP_QUALITY, 85])


def main() -> int:
    """Write both images."""
    if missing := missing_browser():
        sys.stderr.write(f"{missing}.\n")
        return 1
    with tempfile.TemporaryDirectory() as folder, \
            running_ui(Path(folder), "--jobs-dir", f"{folder}/jobs") as program, \
            browser() as driver:
        resize(driver, WIDTH, 1000)
        page = TabPage(driver, program.address)
        page.open_clip(packaged_clip("bigbuckbunny.mp4"))
        page.put(**FIELDS)
        page.press("#fresco_section_keyframes .label-wrap")
        last = page.element("#fresco_output_last_frame input[type=number]")
        last.send_keys(Keys.CONTROL, "a")
        last.send_keys(str(FRAMES - 1))
        page.until(f"fresco.state().line.keys.includes({FRAMES - 1})")
        page.press("#fresco_section_keyframes .label-wrap")
        page.press("#fresco_run_all")
        page.job_until("done", seconds=1200)
        page.until("document.querySelectorAll('.fresco_judged rect').length > 20")
        page.until("fresco.state().work.pair")
        time.sleep(2)  # until all images are drawn
        screenshot(driver, Path(folder) / "tab.png")
        below = page.script(
            "return document.querySelector('#fresco_compare').getBoundingClientRect().bottom"
            " + window.scrollY"
        )
        write(Path(folder) / "tab.png", "tab", int(below) + 12)
        resize(driver, WIDTH, 480)
        page.script(_POINT_AT, (SHOWN + 0.5) / FRAMES)
        time.sleep(1)
        screenshot(driver, Path(folder) / "strip.png", whole=False)
        write(Path(folder) / "strip.png", "strip")
    return 0


if __name__ == "__main__":
    sys.exit(main())
