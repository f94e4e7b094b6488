"""What surrounds a run in the tab: settings back from results, names, waiting, order."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from selenium.webdriver import Keys

from fresco.options import from_dict
from fresco.run.embedded import describe_settings
from fresco.server.ports import Offer
from fresco.settings import FrescoSettings
from fresco.video.png_text import add_text
from fresco.webui.tab.values import read_img2img
from tests.helpers.job_environment import CANNY
from tests.helpers.tab_browser import QUICK, TabPage, missing_browser

pytestmark = [
    pytest.mark.skipif(bool(missing_browser()), reason=missing_browser() or "-"),
    pytest.mark.timeout(400),
]


def write_result(path: Path, settings: FrescoSettings, **host: object) -> Path:
    """The smallest image with settings in it."""
    import cv2
    import numpy as np

    png = cv2.imencode(".png", np.zeros((2, 2, 3), np.uint8))[1].tobytes()
    path.write_bytes(add_text(png, describe_settings(settings, host)))
    return path


def test_a_dropped_result_restores_its_settings(page: TabPage, clip: Path, tmp_path: Path) -> None:
    page.open_clip(clip)
    settings = from_dict({
        "sampling": {"prompt": "a fox in snow", "seed": 77, "steps": 9,
                     "key_prompts": {"5": "a hat"}},
        "keyframes": {"keys": "0,5,11,12,23"}, "output": {"crf": 21},
        "guidance": {"temporal_attention": False},
    })
    result = write_result(
        tmp_path / "frame.png", settings, model="tiny two", sampler="euler", scheduler="",
        control=[{"model": CANNY, "module": "canny", "weight": 0.4}, {"model": "gone"}],
    )
    page.press("#fresco_section_restore .label-wrap")
    page.upload(result, "restore")
    page.until("document.querySelector('#fresco_restored').textContent.includes('are restored')")
    assert "gone" in page.element("#fresco_restored").text, "what is not here is named"
    assert page.text("sampling_prompt") == "a fox in snow"
    shown = "return document.querySelector('#fresco_{} input').value".format
    assert page.script(shown("host_model")) == "tiny two"
    assert page.script(shown("host_sampler")) == "euler"
    (unit,) = json.loads(page.text("control_units"))
    assert (unit["model"], unit["module"], unit["weight"]) == (CANNY, "canny", 0.4)
    page.until(f"document.querySelector('#fresco_control_1_model')?.value === {CANNY!r}")
    assert float(page.script(shown("output_crf"))) == 21
    assert page.script(shown("sampling_seed")) == "77"
    assert not page.script(
        "return document.querySelector('#fresco_guidance_temporal_attention input').checked")
    page.until("fresco.state().line.keys.join() === '0,5,11,12,23'")
    page.until("fresco.state().line.words[5] === 'a hat'")
    page.upload(clip, "restore")
    page.until("document.querySelector('#fresco_restored').textContent"
               ".includes('two shots.mp4 has no settings of FRESCO inside')")
    assert page.text("sampling_prompt") == "a fox in snow"


def test_waiting_is_told(page: TabPage, clip: Path) -> None:
    """The batch at work, the title of the page, and a word of the browser at the end.

    The job that was cancelled meanwhile can be resumed and deleted.
    """
    before = page.script("return document.title")
    page.script("""
        window.told = [];
        window.Notification = class {
            constructor(title, more) { window.told.push([title, more.body]); }
            static requestPermission() {
                this.permission = 'granted';
                return Promise.resolve('granted');
            }
        };
        window.Notification.permission = 'default';""")
    page.press("#fresco_wait input")
    page.until("document.querySelector('#fresco_wait input').checked")
    page.open_clip(clip)
    page.put(**{**QUICK, "sampling_steps": 600, "sampling_strength": 1, "sampling_seed": 5})
    page.press("#fresco_run_preview")
    page.until("document.querySelector('#fresco_preview img')?.naturalWidth > 0")
    page.until("/^[0-9]+ %.* FRESCO$/.test(document.title)")
    assert page.script("return document.querySelector('#fresco_preview').textContent")
    page.press("#fresco_cancel")
    page.script("Object.defineProperty(document, 'hidden', {value: true, configurable: true})")
    job = page.job_until("cancelled", "done", "failed")  # another page is looked at meanwhile
    assert job["state"] == "cancelled"
    page.until("window.told.length === 1")
    page.script("delete document.hidden")
    page.until("!document.querySelector('#fresco_preview img')")
    page.until(f"document.title === {before!r}")
    page.press("#fresco_resume")
    assert page.job_until("running", "done")["id"] == job["id"]
    page.press("#fresco_cancel")
    page.job_until("cancelled")
    delete_selected(page)
    page.press("#fresco_wait input")


def delete_selected(page: TabPage) -> None:
    """A job goes only after it was asked for twice."""
    chosen = page.script("return fresco.state().work.chosen")
    page.press(f"#fresco_jobs [data-focus='delete{chosen}']")
    assert page.job() is not None
    page.press(f"#fresco_jobs [data-job='{chosen}'] .fresco_danger")
    page.until(f"!fresco.state().work.jobs.some((job) => job.id === '{chosen}')")


def test_jobs_are_kept_in_order(page: TabPage, clip: Path) -> None:
    """Named, filtered, moved in the queue, deleted together; old ones only where asked for."""
    page.open_clip(clip)
    page.put(**{**QUICK, "sampling_steps": 300, "sampling_strength": 1})
    jobs = []
    for seed in range(4):
        page.put(sampling_seed=900 + seed, sampling_prompt=f"prompt {'abcd'[seed]}")
        page.press("#fresco_run_keyframes")
        page.until(f"fresco.state().work.chosen && !{jobs}.includes(fresco.state().work.chosen)"
                   " && fresco.state().work.jobs.some("
                   "(job) => job.id === fresco.state().work.chosen"
                   f" && job.prompt === 'prompt {'abcd'[seed]}')")
        jobs.append(page.script("return fresco.state().work.chosen"))
    places = "fresco.state().work.jobs.find((job) => job.id === '{}').place".format
    page.until(f"{places(jobs[3])} === 3")
    page.press(f"#fresco_jobs [data-focus='up{jobs[3]}']")
    page.until(f"{places(jobs[3])} === 2")
    page.press(f"#fresco_jobs [data-focus='edit{jobs[1]}']")
    name = page.element(f"#fresco_jobs [data-focus='name{jobs[1]}']")
    name.send_keys(Keys.CONTROL, "a")
    name.send_keys("a fine name", Keys.ENTER)
    page.until("[...document.querySelectorAll('#fresco_jobs .fresco_job_title')]"
               ".some((title) => title.textContent === 'a fine name')")
    filtered = page.element("#fresco_jobs [data-focus='filter']")
    filtered.send_keys("prompt c")
    page.until("document.querySelectorAll('#fresco_jobs li').length === 1")
    filtered.send_keys(Keys.BACKSPACE * len("prompt c"))
    page.until("document.querySelectorAll('#fresco_jobs li').length >= 4")
    page.press("#fresco_jobs [data-focus='several']")
    for job in jobs[1:]:
        page.press(f"#fresco_jobs [data-focus='job{job}']")
    page.press("#fresco_jobs [data-focus='delete_several']")
    page.press("#fresco_jobs [data-focus='sure']")
    page.until(f"!fresco.state().work.jobs.some((job) => {jobs[1:]}.includes(job.id))")
    page.script("fresco.core.choose(arguments[0])", jobs[0])
    page.press("#fresco_cancel")
    page.job_until("cancelled")
    page.until("document.querySelector('#fresco_jobs .fresco_room').textContent.includes('free')")
    page.press("#fresco_jobs [data-focus='empty']")
    page.press("#fresco_jobs [data-focus='empty_look']")
    page.until("document.querySelector('#fresco_jobs .fresco_emptier').textContent"
               ".includes('nothing that old')")


def test_prompt_and_seed_have_the_tools_of_the_webui(page: TabPage, clip: Path) -> None:
    page.put(sampling_prompt="a dog")
    page.until("document.querySelector('#fresco_sampling_prompt .fresco_tokens')?.textContent"
               " === '2/75'")
    page.choose("add_lora", "soft light")
    page.until("document.querySelector('#fresco_sampling_prompt textarea').value"
               " === 'a dog <lora:soft light:1>'")
    page.choose("add_style", "ink")
    page.until("document.querySelector('#fresco_sampling_prompt textarea').value"
               ".endsWith(', ink drawing')")
    assert page.text("sampling_negative_prompt").endswith("no ink drawing")
    seed = "document.querySelector('#fresco_sampling_seed input').value"
    page.press("#fresco_sampling_seed [aria-label='Random seed']")
    page.until(f"{seed} === '-1'")
    page.open_clip(clip)
    page.put(**{**QUICK, "sampling_seed": -1})
    before = page.script("return fresco.state().work.jobs.map((job) => job.id)")
    # A double click, not by the pointer: what appears above meanwhile moves the button from it.
    page.script("arguments[0].click(); arguments[0].click()", page.element("#fresco_run_preview"))
    drawn = page.until(f"!{[*before, None]}.includes(fresco.state().work.chosen)".replace(
        "None", "null") + " && fresco.state().work.detail?.seed")
    page.put(sampling_seed=1)
    page.press("#fresco_sampling_seed [aria-label='Use the seed again']")
    page.until(f"{seed} === '{drawn}'")
    assert not page.element("#fresco_from_img2img").is_displayed(), "there is no img2img here"
    job = page.job_until("done", "failed")
    assert job["state"] == "done", job["message"]
    page.until("!document.querySelector('#fresco_run_preview').disabled")
    assert page.script("return fresco.state().work.jobs.length") == len(before) + 1
    assert "Seed is" in page.element("#fresco_progress").text


def test_img2img_is_read_as_far_as_it_is_offered_here() -> None:
    offer = Offer(("m.safetensors [1234]",), ("Euler a",), ("Karras",))
    values, host, missing = read_img2img({
        "prompt": "a cat", "negative_prompt": "", "steps": "25", "strength": "0.6", "seed": "-1",
        "guidance_scale": "99", "sampler": "Euler a", "scheduler": "Automatic",
        "model": "other.safetensors",
    }, offer)
    assert values == {"prompt": "a cat", "negative_prompt": "", "steps": 25, "strength": 0.6,
                      "guidance_scale": 50, "seed": -1}
    assert host == {"sampler": "Euler a", "scheduler": "Automatic"}
    assert missing == ["other.safetensors"]
    assert read_img2img({"steps": "x"}, offer)[0] == {"prompt": "", "negative_prompt": ""}
