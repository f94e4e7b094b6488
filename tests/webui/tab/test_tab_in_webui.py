"""The tab and the script's controls in the page of a real WebUI, which `WEBUI_DIR` names."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium.webdriver import Chrome

from tests.helpers.clips import write_clip
from tests.helpers.tab_browser import TabPage, browser, missing_browser, resize, screenshot
from tests.helpers.tiny_models import square_frames
from tests.helpers.webui.http_host import HttpHost, given_folder

pytestmark = [
    pytest.mark.skipif(given_folder() is None, reason="WEBUI_DIR names no WebUI"),
    pytest.mark.skipif(bool(missing_browser()), reason=missing_browser() or "-"),
    pytest.mark.timeout(900),
]

QUICK = {
    "sampling_prompt": "a red car", "sampling_steps": 4, "sampling_resolution": 128,
    "keyframes_batch_size": 3, "guidance_optimization_iterations": 1,
}
PHONE = 375
"""Pixels across."""
OWN = ("fresco", "Fresco", "FRESCO")
"""What complaints of our own code name."""


@pytest.fixture(scope="module")
def driver() -> Iterator[Chrome]:
    with browser(1400, 1100) as found:
        yield found


def open_tab(driver: Chrome, webui: HttpHost, theme: str) -> TabPage:
    """The WebUI's page with the tab FRESCO shown."""
    page = TabPage(driver, webui.address, theme)
    page.script(
        "[...document.querySelectorAll('#tabs button')]"
        ".find((button) => button.textContent.trim() === 'FRESCO').click()"
    )
    page.until("document.querySelector('#fresco_root').offsetHeight > 100")
    return page


def list_own_complaints(page: TabPage) -> list[str]:
    return [text for text in page.complaints() if any(name in text for name in OWN)]


def test_from_a_video_to_its_result(driver: Chrome, webui: HttpHost, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "square.mp4", square_frames(12))
    resize(driver, 1400, 1100)
    page = open_tab(driver, webui, "light")
    page.open_clip(clip)
    assert "square.mp4" in page.element("#fresco_facts").text
    assert len(page.keys) > 1
    page.put(**QUICK)
    page.press("#fresco_run_all")
    job = page.job_until("done", "failed", seconds=600)
    assert job["state"] == "done", job["message"]
    page.until("document.querySelector('#fresco_result video')?.readyState >= 2")
    assert page.script("return document.querySelector('#fresco_result video').duration") > 0
    screenshot(driver, tmp_path / "light.png")
    assert list_own_complaints(page) == []


def test_a_keyframe_goes_to_img2img_and_comes_back(
    driver: Chrome, webui: HttpHost, tmp_path: Path
) -> None:
    """As the keyframe that its text names; only the frames beside it are made again."""
    clip = write_clip(tmp_path / "there and back.mp4", list(square_frames(12)))
    resize(driver, 1400, 1100)
    page = open_tab(driver, webui, "light")
    page.open_clip(clip)
    page.put(**QUICK, keyframes_keys="0,5,11")
    page.script("fresco.core.edit([0, 5, 11], {}, '')")
    page.press("#fresco_run_all")
    job = page.job_until("done", "failed", seconds=600)
    assert job["state"] == "done", job["message"]
    page.until("Object.keys(fresco.state().work.detail?.keys || {}).join() === '0,5,11'")
    made = page.script("return fresco.state().work.detail.output")
    page.script("fresco.core.compare(5, true)")
    page.until("document.querySelector('.fresco_retouch [data-send=\"5\"]')")
    page.press(".fresco_retouch [data-send='5']")
    page.until("document.querySelector('#img2img_image img')")
    page.script("""
        for (const [name, value] of [['steps', 3], ['width', 128], ['height', 128]]) {
            const field = document.querySelector(`#img2img_${name} input[type=number]`);
            Object.getOwnPropertyDescriptor(HTMLInputElement.prototype, 'value')
                .set.call(field, value);
            field.dispatchEvent(new Event('input', {bubbles: true}));
        }""")
    page.press("#img2img_generate")
    page.until("document.querySelector('.fresco_results button')?.textContent"
               " === 'Back to the FRESCO tab as keyframe 5'", 300)
    page.until("document.querySelector('#html_info_img2img').textContent"
               ".includes('FRESCO source: there and back.mp4')")
    page.until("document.querySelector('#img2img_gallery img')?.naturalWidth > 0")
    screenshot(driver, tmp_path / "img2img.png")
    page.press(".fresco_results button")
    page.until(f"fresco.state().work.detail?.output > {made}", 300)
    page.job_until("done")
    assert list_own_complaints(page) == []


def test_in_the_dark_and_on_a_phone(driver: Chrome, webui: HttpHost, tmp_path: Path) -> None:
    for theme, width in (("dark", 1400), ("light", PHONE), ("dark", PHONE)):
        resize(driver, width, 1100, phone=width == PHONE)
        page = open_tab(driver, webui, theme)
        wide = page.script("""
            const root = document.querySelector('#fresco_root').getBoundingClientRect();
            return [...document.querySelectorAll('#fresco_root *')].filter((element) => {
                const place = element.getBoundingClientRect();
                return place.width && place.right > Math.max(root.right, arguments[0]) + 1
                    && !element.closest('.fresco_scroll, #fresco_timeline, svg');
            }).map((element) => element.id || element.className || element.tagName)""", width)
        screenshot(driver, tmp_path / f"{theme}-{width}.png")
        assert wide == []
        assert list_own_complaints(page) == []
