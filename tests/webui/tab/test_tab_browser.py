"""The tab in a real browser: what a person does, seen on the page."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import requests
from selenium.webdriver import ActionChains, Chrome, Keys

from fresco.workspace import write_image
from tests.helpers.clips import write_clip
from tests.helpers.job_environment import CANNY
from tests.helpers.source import ROOT
from tests.helpers.tab_browser import (
    CUT,
    FRAMES,
    QUICK,
    TabPage,
    missing_browser,
    resize,
    screenshot,
    slow_uploads,
)
from tests.helpers.tiny_models import square_frames

pytestmark = [
    pytest.mark.skipif(bool(missing_browser()), reason=missing_browser() or "-"),
    pytest.mark.timeout(400),
]

PICTURES = ROOT / "tests" / "screenshots"


def test_from_a_video_to_its_result(page: TabPage, clip: Path) -> None:
    page.open_clip(clip)
    shown = page.element("#fresco_facts").text
    for fact in ("two shots.mp4", "64 x 64", str(FRAMES)):
        assert fact in shown
    page.until("document.querySelector('#fresco_shots').textContent === '2'")
    assert page.keys == [0, CUT - 1, CUT, FRAMES - 1]
    page.until("document.querySelectorAll('#fresco_timeline .fresco_card img[src]').length === 4")
    page.until("document.querySelector('#fresco_view img')?.naturalWidth > 0")
    page.put(**QUICK)
    page.until("document.querySelector('#fresco_estimate').textContent.includes('4 keyframes')")
    page.press("#fresco_run_all")
    page.until("(fresco.state().work.jobs[0] || {}).state === 'running'")
    seen = page.until("document.querySelector('#fresco_stage')?.textContent")
    assert seen
    job = page.job_until("done", "failed")
    assert job["state"] == "done", job["message"]
    page.until("document.querySelectorAll('#fresco_gallery img[src]').length === 4")
    page.until("document.querySelector('#fresco_result video')?.readyState >= 2")
    assert "two shots-a_painting-0.mp4" in page.element("#fresco_files").text
    assert page.script("return document.querySelector('#fresco_result video').duration") > 0
    page.script("const v = document.querySelector('#fresco_result video');"
                "v.muted = true; v.playbackRate = 0.5; v.play()")
    page.until("document.querySelector('#fresco_result video').currentTime > 0.05")
    page.until("document.querySelectorAll('#fresco_measures rect').length > 2")
    page.press("#fresco_log summary")
    page.until("document.querySelector('#fresco_log pre').textContent.includes('keyframes')")
    compare_frames(page)
    screenshot(page.driver, PICTURES / "tab-light.png")


def compare_frames(page: TabPage) -> None:
    """The curtain follows pointer and keys; the slider changes the frame on both sides."""
    curtain = page.element("#fresco_compare .fresco_curtain")
    page.script("arguments[0].scrollIntoView({block: 'center'})", curtain)
    width = curtain.size["width"]
    ActionChains(page.driver).move_to_element(curtain).click_and_hold().move_by_offset(
        int(width * 0.25), 0).release().perform()
    assert abs(float(curtain.get_attribute("aria-valuenow")) - 75) < 3
    curtain.send_keys(Keys.ARROW_LEFT)
    assert abs(float(curtain.get_attribute("aria-valuenow")) - 73) < 3
    pictures = "[...document.querySelectorAll('#fresco_compare img')].map((image) => image.src)"
    before = page.until(pictures)
    slider = page.element("#fresco_compare .fresco_frame_slider")
    slider.send_keys(Keys.END)
    page.until(f"fresco.state().work.pair.frame === {FRAMES - 1}")
    page.until(f"{pictures}.every((source) => !{before!r}.includes(source))")
    page.press(f"#fresco_gallery [data-key='{CUT}']")
    page.until(f"fresco.state().work.pair.frame === {CUT}")
    assert f"Frame {CUT}, keyframe" in page.element("#fresco_compare").text


def test_where_it_failed_and_what_led_to_it(page: TabPage, clip: Path) -> None:
    """The strip under the timeline tells of the job's frames; a click makes one a keyframe."""
    page.open_clip(clip)
    page.until("document.querySelectorAll('.fresco_judged rect').length > 20")
    page.until("!fresco.state().line.stale")
    point_at = """
        const strip = document.querySelector('.fresco_judged');
        strip.scrollIntoView({block: 'center'});
        const box = strip.getBoundingClientRect(), place = {
            clientX: box.left + 6.5 / arguments[0] * box.width, clientY: box.top + 4,
            bubbles: true};
        strip.dispatchEvent(new PointerEvent('pointermove', place));
        const said = strip.querySelector('.fresco_judged_said').textContent;
        if (arguments[1]) strip.dispatchEvent(new MouseEvent('click', place));
        return said;"""
    assert "Frame 6: propagation error" in page.script(point_at, FRAMES, False)
    screenshot(page.driver, PICTURES / "tab-strip.png", whole=False)
    page.script(point_at, FRAMES, True)
    assert page.keys == [0, 6, 11, 12, 23]
    slider = page.element("#fresco_compare .fresco_frame_slider")
    slider.send_keys(Keys.HOME, *[Keys.ARROW_RIGHT] * 6)
    page.until("fresco.state().work.pair?.frame === 6")
    shown = page.script("return fresco.state().work.pair.after")
    for layer in ("flow", "side"):
        page.script("const choice = document.querySelector('.fresco_layer');"
                    "choice.value = arguments[0]; choice.dispatchEvent(new Event('change'))", layer)
        page.until(f"![{shown!r}, null].includes(fresco.state().work.pair.after)")
        shown = page.script("return fresco.state().work.pair.after")
    assert "chosen side" in page.element(".fresco_tag_after").text


def test_source_and_result_play_in_step(page: TabPage, clip: Path) -> None:
    """Frame by frame by keys and buttons; handles trim the range; the comparison can be zoomed."""
    page.open_clip(clip)
    videos = "[...document.querySelectorAll('.fresco_player video')]"
    page.until(f"{videos}.length === 2 && {videos}.every((video) => video.readyState >= 2)")
    player = page.element(".fresco_player")
    player.send_keys(Keys.ARROW_RIGHT)
    page.until("document.querySelector('.fresco_player .fresco_frame_number').textContent"
               " === 'Frame 1'")
    player.send_keys(Keys.SHIFT, Keys.ARROW_RIGHT)
    page.until("fresco.state().work.pair?.frame === 11")
    page.press(".fresco_player [aria-label='Frame before']")
    page.until("fresco.state().work.pair?.frame === 10")
    page.until(f"Math.abs({videos}[0].currentTime - {videos}[1].currentTime) < 0.02")
    page.press("#fresco_compare [aria-label='Zoom into the frame']")
    assert "scale(1.5)" in page.script(
        "return document.querySelector('.fresco_curtain').style.getPropertyValue('--fresco_zoom')")
    page.script("document.querySelector('.fresco_player').scrollIntoView({block: 'end'})")
    screenshot(page.driver, PICTURES / "tab-player.png", whole=False)
    press = ("document.querySelector('#fresco_track .fresco_trim_last').dispatchEvent("
             "new KeyboardEvent('keydown', {bubbles: true, ...arguments[0]}))")
    page.script(press, {"key": "ArrowLeft", "shiftKey": True})
    page.until("fresco.state().line.clip.last === 13")
    page.script(press, {"key": "Delete"})
    page.until("fresco.state().line.clip.last === 23")
    page.script(press, {"key": "ArrowRight"})  # there is no frame behind the last one
    page.until("!fresco.state().line.stale")
    assert page.script("return fresco.state().line.message") == ""


def test_a_keyframe_goes_to_img2img_and_comes_back(page: TabPage, clip: Path) -> None:
    """In the stead of img2img stand its box, its gallery and its text."""
    page.open_clip(clip)
    page.until("document.querySelector('#fresco_gallery [data-key]')")
    page.script("""
        window.switch_to_img2img = () => { window.switched = true; };
        document.body.insertAdjacentHTML('beforeend', `<div id="img2img_image"><input type="file">
            </div><div><div id="image_buttons_img2img"></div></div><div id="img2img_gallery"></div>
            <div id="html_info_img2img"></div>`);
        document.querySelector('#img2img_image input').addEventListener('change', (event) => {
            const image = document.createElement('img');
            image.src = URL.createObjectURL(event.target.files[0]);
            document.querySelector('#img2img_gallery').append(image);
            document.querySelector('#html_info_img2img').textContent = 'FRESCO frame: 12, made';
        });""")
    page.press("#fresco_gallery [data-key='12']")
    page.until("fresco.state().work.pair?.frame === 12")
    made = page.script("return fresco.state().work.detail.keys[12]")
    page.script("document.querySelector('#fresco_compare [data-send]').click()")
    page.until("window.switched && document.querySelector('#img2img_gallery img')")
    page.until("document.querySelector('.fresco_results button')?.textContent"
               " === 'Back to the FRESCO tab as keyframe 12'")
    page.script("document.querySelector('.fresco_results button').click()")
    page.until(f"fresco.state().work.detail.keys[12] > {made}")
    assert page.job_until("done", "failed")["state"] == "done"
    assert not page.script("return fresco.state().work.message")


def point(page: TabPage, frame: int) -> ActionChains:
    """The pointer over a frame of the timeline."""
    track = page.element("#fresco_track")
    page.script("arguments[0].scrollIntoView({block: 'center'})", track)
    width = track.size["width"]
    offset = (frame + 0.5) / FRAMES * width - width / 2
    return ActionChains(page.driver).move_to_element_with_offset(track, int(offset), 30)


def test_keyframes_by_mouse(page: TabPage, clip: Path) -> None:
    page.open_clip(clip)
    point(page, 5).click().perform()
    assert page.keys == [0, 5, 11, 12, 23]
    assert page.text("keyframes_keys") == "0,5,11,12,23"
    point(page, 5).click_and_hold().perform()
    point(page, 8).release().perform()
    assert page.keys == [0, 8, 11, 12, 23]
    point(page, 12).click().perform()
    assert page.keys == [0, 8, 11, 12, 23], "the ends of a shot stay"
    assert "always keyframes" in page.element("#fresco_said").text
    words = page.element("#fresco_timeline [data-card='8'] input")
    words.send_keys("a red hat" + Keys.TAB)
    assert page.text("sampling_key_prompts") == "8: a red hat"
    point(page, 8).click().perform()
    assert page.keys == [0, 11, 12, 23]
    assert page.text("sampling_key_prompts") == ""
    for expected in ([0, 8, 11, 12, 23],) * 2 + ([0, 5, 11, 12, 23], [0, 11, 12, 23]):
        page.press("#fresco_timeline [data-focus='undo']")
        assert page.keys == expected
    assert page.text("keyframes_keys") == "", "automatic again"
    page.press("#fresco_timeline [data-focus='redo']")
    assert page.keys == [0, 5, 11, 12, 23]


def test_keyframes_by_keys(page: TabPage, clip: Path) -> None:
    page.open_clip(clip)
    track = page.element("#fresco_track")
    track.send_keys(Keys.ARROW_RIGHT * 3, Keys.SPACE)
    assert page.keys == [0, 3, 11, 12, 23]
    assert page.script("return document.activeElement.id") == "fresco_track", "focus is kept"
    assert track_value(page, "valuenow") == "3"
    assert ", keyframe" in track_value(page, "valuetext")
    keys = ActionChains(page.driver)
    keys.key_down(Keys.ALT).send_keys(Keys.ARROW_RIGHT).key_up(Keys.ALT).perform()
    assert page.keys == [0, 4, 11, 12, 23]
    page.element("#fresco_track").send_keys(Keys.DELETE)
    assert page.keys == [0, 11, 12, 23]
    page.element("#fresco_track").send_keys(Keys.SHIFT, Keys.ARROW_RIGHT)
    assert track_value(page, "valuenow") == "14"
    page.element("#fresco_track").send_keys("[")
    assert track_value(page, "valuenow") == "12"
    page.element("#fresco_track").send_keys(Keys.CONTROL, "z")
    assert page.keys == [0, 4, 11, 12, 23]
    outline = page.script("return getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid", "the focus is seen"


def track_value(page: TabPage, name: str) -> str:
    return page.element("#fresco_track").get_attribute(f"aria-{name}")


def test_keyframes_follow_their_settings(page: TabPage, clip: Path) -> None:
    page.open_clip(clip)
    before = len(page.keys)
    for name, frames in (("min", 2), ("max", 4)):
        box = page.element(f"#fresco_keyframes_{name}_interval input[type=number]")
        box.send_keys(Keys.CONTROL, "a")
        box.send_keys(str(frames))
    page.until(f"fresco.state().line.keys.length > {before}")
    page.until("!fresco.state().line.stale")
    keys = page.keys
    assert max(b - a for a, b in itertools.pairwise(keys)) <= 4


def test_keyframes_as_text(page: TabPage, clip: Path) -> None:
    """What is being written is left alone until the field is left."""
    page.open_clip(clip)
    page.put(sampling_resolution=4000)
    page.script("document.querySelector('#fresco_estimate_now').click()")
    page.until("document.querySelector('#fresco_estimate .fresco_bad')?.textContent"
               ".startsWith('Resolution is 4000; this server takes up to 1024')")
    page.press("#fresco_section_keys .label-wrap")
    field = page.element("#fresco_keyframes_keys textarea")
    field.send_keys("6, ")
    page.until("fresco.state().line.keys.join() === '0,6,11,12,23'")
    assert page.text("keyframes_keys") == "6, "
    field.send_keys("18")
    page.until("fresco.state().line.keys.join() === '0,6,11,12,18,23'")
    field.send_keys(Keys.TAB)
    page.until("document.querySelector('#fresco_keyframes_keys textarea').value"
               " === '0,6,11,12,18,23'")
    assert page.script("return fresco.state().line.undo.length") == 2
    field.send_keys(Keys.CONTROL, "a", Keys.NULL, "0_99")
    wrong = "document.querySelector('#fresco_timeline .fresco_status .fresco_bad')?.textContent"
    page.until(f"{wrong}?.includes('outside the frames')")
    page.put(sampling_key_prompts="7: a hat")
    page.script("fresco.core.edit(fresco.state().line.keys, {7: 'a hat'}, '')")
    page.until(f"{wrong}?.includes('no keyframes: 7.')")


def test_keyframes_by_hand_outlive_another_range_and_a_failed_load(
    page: TabPage, clip: Path
) -> None:
    page.open_clip(clip)
    for frame in (5, 18):
        point(page, frame).click().perform()
    assert page.keys == [0, 5, 11, 12, 18, 23]
    page.put(path="/nowhere/clip.mp4")
    page.press("#fresco_load")
    page.until("document.querySelector('#fresco_source_message').textContent.includes('/nowhere')")
    page.until("!fresco.state().line.reading && fresco.state().line.state === 'ready'")
    assert page.keys == [0, 5, 11, 12, 18, 23]
    page.press("#fresco_section_keyframes .label-wrap")
    last = page.element("#fresco_output_last_frame input[type=number]")
    last.send_keys(Keys.CONTROL, "a")
    last.send_keys("14")
    page.until("fresco.state().line.keys.join() === '0,5,14'")
    page.press("#fresco_timeline [data-focus='undo']")
    assert page.keys == [0, 5, 14]
    page.press("#fresco_timeline [data-focus='redo']")
    last.send_keys(Keys.CONTROL, "a")
    last.send_keys("23")
    page.until("fresco.state().line.keys.join() === '0,5,11,12,18,23'")
    page.press("#fresco_timeline [data-focus='undo']")
    assert page.keys == [0, 5, 11, 12, 23]


def result_shown(page: TabPage) -> str:
    """Address of the video that is shown and can be played."""
    return page.until("document.querySelector('#fresco_result video')?.readyState >= 2"
                      " && document.querySelector('#fresco_result video').src")


def text_of(page: TabPage, identity: str) -> str:
    return page.script(f"return document.querySelector('#fresco_{identity}').textContent")


def test_a_result_stays_while_a_keyframe_is_translated_again(
    page: TabPage, tmp_path: Path
) -> None:
    """And a finished job has nothing to resume; what comes next is named."""
    page.open_clip(write_clip(tmp_path / "short.mp4", square_frames(6)))
    page.put(**QUICK, sampling_seed=11)
    before = page.script("return fresco.state().work.chosen")
    page.press("#fresco_run_all")
    page.until(f"![{before!r}, null].includes(fresco.state().work.chosen)".replace("None", "null"))
    job = page.job_until("done", "failed")
    assert job["state"] == "done", job["message"]
    first = result_shown(page)
    page.press("#fresco_resume")
    page.until("document.querySelector('#fresco_progress').textContent"
               ".includes('nothing to resume')")
    assert page.job_until("done")["version"] == job["version"], "it was not queued"
    assert result_shown(page) == first
    page.press("#fresco_gallery [data-key='5']")
    page.until("fresco.state().work.key === 5")
    page.press("#fresco_compare .fresco_again button")
    page.until("fresco.state().work.jobs.find((job) => job.id === fresco.state().work.chosen)"
               f".version > {job['version']}")
    page.until("!document.querySelector('#fresco_progress').textContent"
               ".includes('nothing to resume')")  # it goes with the state
    assert result_shown(page), "the video before stays until there is a new one"
    page.until(f"document.querySelector('#fresco_result video')?.src !== {first!r}")
    assert page.job_until("done", "failed")["state"] == "done"
    second = result_shown(page)
    assert "Press Run" not in text_of(page, "progress")
    replace_a_keyframe(page, second)


def replace_a_keyframe(page: TabPage, before: str) -> None:
    """An image takes the place of a keyframe; the frame that is looked at comes as a draft."""
    page.press("#fresco_gallery [data-key='5']")
    page.until("fresco.state().work.pair?.frame === 5")
    assert "Replace this keyframe" in page.element("#fresco_compare .fresco_retouch").text
    slider = page.element("#fresco_compare .fresco_frame_slider")
    slider.send_keys(Keys.HOME, Keys.ARROW_RIGHT)
    page.until("fresco.state().work.pair?.frame === 1")
    # A black image, as if it had been chosen; and all that is shown from then on.
    page.script("""
        const black = document.createElement('canvas'), shown = window.shown = new Set();
        black.width = black.height = 80;
        black.getContext('2d').fillRect(0, 0, 80, 80);
        HTMLInputElement.prototype.click = function () {
            delete HTMLInputElement.prototype.click;
            black.toBlob((blob) => {
                const files = new DataTransfer();
                files.items.add(new File([blob], 'black.png', {type: 'image/png'}));
                this.files = files.files;
                this.dispatchEvent(new Event('change'));
            });
        };
        const tag = document.querySelector('.fresco_tag_after');
        new MutationObserver(() => shown.add(tag.textContent)).observe(tag, {childList: true});""")
    page.press("#fresco_compare .fresco_retouch button[data-key='5']")
    page.until("window.shown.has('draft') || fresco.state().work.message")
    assert not page.script("return fresco.state().work.message")
    page.until(f"document.querySelector('#fresco_result video')?.src !== {before!r}")
    page.until("fresco.state().work.detail.retouched.length === 0")
    page.until("fresco.state().work.pair.kind === ''")


def test_uploads_are_listed_and_deleted(
    page: TabPage, clip: Path, tmp_path: Path
) -> None:
    other = write_clip(tmp_path / "other.mp4", square_frames(7))
    page.open_clip(other)
    page.open_clip(clip)
    names = "[...document.querySelectorAll('#fresco_uploads .fresco_job_title')]"
    page.until(f"{names}.some((name) => name.textContent === 'two shots.mp4')")
    page.press("#fresco_uploads summary")
    listed = page.script(f"return {names}.map((name) => name.textContent)")
    assert [listed.count(name) for name in ("other.mp4", "two shots.mp4")] == [1, 1]
    assert f"Uploads ({len(listed)}, " in text_of(page, "uploads")
    rows = {
        name: page.script(
            "return [...document.querySelectorAll('#fresco_uploads li')].find((row) =>"
            " row.textContent.includes(arguments[0])).dataset.video", name)
        for name in listed
    }
    opened = f"#fresco_uploads [data-video='{rows['two shots.mp4']}'] button"
    assert page.script("return document.querySelector(arguments[0]).disabled", opened), (
        "it is open in this tab"
    )
    page.press(f"#fresco_uploads [data-video='{rows['other.mp4']}'] button")
    page.press("#fresco_uploads .fresco_danger")
    page.until(f"!{names}.some((name) => name.textContent === 'other.mp4')")


def test_the_files_of_jobs_are_had_by_the_api_alone(
    page: TabPage, address: str, folder: Path
) -> None:
    """Gradio serves what lies in folders that it may, to everybody, but not those of jobs."""
    result = page.until("fresco.state().work.jobs.length && fresco.state().work.jobs[0].id")
    path = folder / "service" / "jobs" / result / "status.json"
    assert path.is_file()
    (folder / "open.txt").write_text("served")

    prefix = page.script("return window.gradio_config.api_prefix || ''")

    def status(place: Path) -> int:
        return requests.get(f"{address}{prefix}/file={place}", timeout=20).status_code

    assert status(folder / "open.txt") == 200
    assert status(path) == 403
    assert status(folder / "service" / "videos" / "x.mp4") == 403
    assert requests.get(f"{address}/fresco/jobs/{result}", timeout=20).status_code == 200


def test_controlnets_are_added_one_by_one(page: TabPage, clip: Path) -> None:
    """Each brings its preprocessor, or is warned about; its hint of the shown frame is seen."""
    page.open_clip(clip)
    page.press("#fresco_section_control .label-wrap")
    assert not page.script("return document.querySelectorAll('.fresco_control_unit').length")
    page.press("#fresco_control_add")
    choose = (
        "const select = document.querySelector('#fresco_control_1_{}');"
        "select.value = arguments[0];"
        "select.dispatchEvent(new Event('change', {{bubbles: true}}));"
    ).format
    page.until("document.querySelector('#fresco_control_1_model')")
    page.script(choose("model"), CANNY)
    module = "document.querySelector('#fresco_control_1_module')"
    assert page.script(f"return {module}.selectedOptions[0].textContent") == "auto: canny"
    warned = "document.querySelector('#fresco_control_board .fresco_bad')"
    page.script(choose("module"), "none")
    assert "itself as its hint" in page.script(f"return {warned}.textContent")
    page.script(choose("module"), "auto")
    assert page.script(f"return {warned}") is None
    page.press("#fresco_control_1_show")
    page.until("document.querySelector('#fresco_control_1_hint')?.naturalWidth > 0")
    for _ in range(2):
        page.press("#fresco_control_add")
    page.until("document.querySelectorAll('.fresco_control_unit').length === 3")
    assert not page.element("#fresco_control_add").is_enabled(), "no more than there are"
    for _ in range(3):
        page.press(".fresco_control_unit legend button")
    assert json.loads(page.text("control_units")) == []


def test_a_preset_sets_its_switches(page: TabPage) -> None:
    page.press("#fresco_section_parts .label-wrap")
    switches = ("guidance_consensus", "propagation_join_keyframes")
    on = " && ".join(f"document.querySelector('#fresco_{name} input').checked" for name in switches)
    off = " && ".join(f"!document.querySelector('#fresco_{name} input').checked"
                      for name in switches)
    for choice, wanted in (("steady", on), ("paper", off)):
        page.press(f"#fresco_preset input[value={choice}]")
        page.until(wanted)


def test_own_keyframes(page: TabPage, clip: Path, tmp_path: Path) -> None:
    page.open_clip(clip)
    page.put(**QUICK)
    page.press("#fresco_section_own .label-wrap")
    for number, level in ((3, 40), (CUT + 3, 200)):
        write_image(tmp_path / f"{number:06d}.png", np.full((90, 90, 3), level, np.uint8))
    page.upload("\n".join(str(path) for path in sorted(tmp_path.iterdir())), "own_files")
    page.until("document.querySelectorAll('#fresco_own_files a').length === 2")
    page.press("#fresco_run_propagation")
    page.until("(fresco.state().work.jobs.find((job) => job.id === fresco.state().work.chosen)"
               " || {}).goal === 'propagation'")
    job = page.job_until("done", "failed")
    assert job["state"] == "done", job["message"]
    page.until("document.querySelector('#fresco_result video')?.readyState >= 2")


def test_an_upload_survives_what_is_done_meanwhile(
    page: TabPage, clip: Path, tmp_path: Path
) -> None:
    page.open_clip(clip)
    page.press("#fresco_section_own .label-wrap")
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8)
    for number in (3, CUT + 3):
        write_image(tmp_path / f"{number:06d}.png", noise)
    with slow_uploads(page.driver, 2_000):
        page.upload("\n".join(str(path) for path in sorted(tmp_path.iterdir())), "own_files")
        page.until("document.querySelector('#fresco_own_files progress').value > 0")
        page.press("#fresco_check")
        page.until("document.querySelectorAll('#fresco_checked tr').length > 4")
        assert page.script("return !!document.querySelector('#fresco_own_files progress')")
    page.until("document.querySelectorAll('#fresco_own_files a').length === 2")


def test_what_is_wrong_is_said_in_the_tab(page: TabPage, clip: Path, tmp_path: Path) -> None:
    """Until it is no longer true. An upload can be stopped."""
    page.press("#fresco_run_all")
    page.until("document.querySelector('#fresco_run_message').textContent.includes('no video yet')")
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video at all")
    page.upload(broken)
    page.until("document.querySelector('#fresco_source_message').textContent"
               ".includes('broken.mp4 cannot be read')")
    page.put(path="/nowhere/<b id=x>clip</b>.mp4")
    page.press("#fresco_load")
    page.until("document.querySelector('#fresco_source_message').textContent.includes('<b id=x>')")
    with slow_uploads(page.driver, 2_000):
        page.upload(clip)
        page.until("document.querySelector('#fresco_upload progress')")
        page.press("#fresco_upload .fresco_sending button")
        page.until("!document.querySelector('#fresco_upload progress')")
    page.open_clip(clip)
    page.until("!document.querySelector('#fresco_run_message').textContent")


def test_check_installation(page: TabPage) -> None:
    page.press("#fresco_check")
    page.until("document.querySelectorAll('#fresco_checked tr').length > 4")
    assert "tiny models" in page.element("#fresco_checked").text
    resize(page.driver, 360, 800, phone=True)
    page.until("document.documentElement.clientWidth === 360")
    table = page.element("#fresco_checked table")
    page.script("arguments[0].scrollIntoView()", table)
    screenshot(page.driver, PICTURES / "tab-check-phone.png", whole=False)
    assert page.script("return document.documentElement.scrollWidth") <= 360
    assert page.script("return arguments[0].getBoundingClientRect().right", table) <= 360


def test_on_a_phone_and_in_the_dark(driver: Chrome, address: str, clip: Path) -> None:
    page = TabPage(driver, address, "dark")
    page.open_clip(clip)
    page.until("document.querySelectorAll('#fresco_timeline .fresco_card img[src]').length === 4")
    screenshot(driver, PICTURES / "tab-dark.png")
    ink, paper = (page.script(
        f"return getComputedStyle(document.querySelector('#fresco_timeline')).{what}"
    ) for what in ("color", "backgroundColor"))
    assert brightness(ink) > 150 > 80 > brightness(paper)
    resize(driver, 390, 844, phone=True)
    page.until("document.documentElement.clientWidth === 390")
    page.until("document.querySelector('#fresco_track').clientWidth < 390")
    for section in ("parts", "own", "output"):
        page.press(f"#fresco_section_{section} .label-wrap")
    assert page.script("return document.documentElement.scrollWidth") <= 390
    wide = page.script(
        "return [...document.querySelectorAll('#fresco_root *')].filter((element) => {"
        "const box = element.getBoundingClientRect();"
        "return box.width && box.right > 391 && !element.closest('.fresco_scroll, .fresco_shelf')"
        "}).map((element) => element.id || element.className)"
    )
    assert wide == []
    screenshot(driver, PICTURES / "tab-phone.png")
    resize(driver, 1280, 1000)


def brightness(colour: str) -> float:
    """Of a colour as the browser gives it, such as `rgb(1, 2, 3)`."""
    numbers = colour.partition("(")[2].rstrip(")").split(",")[:3]
    return sum(map(float, numbers)) / 3
