"""Jobs on the model of a real WebUI, which `WEBUI_DIR` names."""

from __future__ import annotations

import base64
import time
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.clips import write_clip
from tests.helpers.job_environment import TINY
from tests.helpers.tiny_models import square_frames
from tests.helpers.webui.checkpoints import SECOND
from tests.helpers.webui.http_host import HttpHost, given_folder
from tests.helpers.webui.requests import frames

if given_folder() is None:
    pytest.skip("WEBUI_DIR names no WebUI", allow_module_level=True)

FRAMES, PATIENCE = 8, 600
ENDED = ("cancelled", "failed", "done")


@pytest.fixture
def request_of_keys(tmp_path: Path) -> dict[str, Any]:
    """A job of all keyframes of a short clip."""
    clip = tmp_path / "square.mp4"
    write_clip(clip, square_frames(FRAMES))
    settings = {**TINY, "sampling": {**TINY["sampling"], "steps": 6, "strength": 0.75}}
    return {
        "video": base64.b64encode(clip.read_bytes()).decode(), "goal": "keyframes",
        "settings": settings, "host": {"sampler": "Euler a"},
    }


def ended(webui: HttpHost, job: str, *, interrupted: bool = False) -> str:
    """The state in which a job ends.

    Args:
        interrupted: press Interrupt once the second batch is at work.
    """
    end = time.monotonic() + PATIENCE
    while (status := webui.ask(f"/fresco/jobs/{job}"))["state"] not in ENDED:
        assert time.monotonic() < end, status
        if interrupted and status["message"].startswith("batch 2"):
            webui.ask("/sdapi/v1/interrupt", {})
        time.sleep(0.1)
    return status["state"]


def keys(webui: HttpHost, job: str) -> list[str]:
    return webui.ask(f"/fresco/jobs/{job}/keyframes")["images"]


def translated(webui: HttpHost, body: dict[str, Any]) -> list[str]:
    job = webui.ask("/fresco/jobs", body)["id"]
    assert ended(webui, job) == "done"
    return keys(webui, job)


def test_the_same_job_gives_the_same_pictures_and_its_own_options_count(
    webui: HttpHost, request_of_keys: dict[str, Any]
) -> None:
    first = translated(webui, request_of_keys)
    assert len(first) > 2
    assert translated(webui, request_of_keys) == first
    settings = request_of_keys["settings"]
    for change in ({"seed": 1}, {"steps": 9}):
        sampling = {**settings["sampling"], **change}
        other = {**request_of_keys, "settings": {**settings, "sampling": sampling}}
        assert translated(webui, other) != first
    assert translated(webui, {**request_of_keys, "host": {"sampler": "DDIM"}}) != first


def test_a_whole_job_by_the_steady_preset(
    webui: HttpHost, request_of_keys: dict[str, Any]
) -> None:
    """It also joins the keyframes, so its video is another one."""
    videos = []
    for change in ({"preset": "paper"}, {"preset": "steady"}):
        guidance = {**request_of_keys["settings"]["guidance"], **change}
        settings = {**request_of_keys["settings"], "guidance": guidance}
        job = webui.ask(
            "/fresco/jobs", {**request_of_keys, "goal": "all", "settings": settings}
        )["id"]
        assert ended(webui, job) == "done"
        videos.append(webui.read(f"/fresco/jobs/{job}/video"))
    assert videos[0] != videos[1]


def test_a_job_on_another_checkpoint_leaves_the_selected_one_to_all_others(
    webui: HttpHost, request_of_keys: dict[str, Any]
) -> None:
    selected = webui.ask("/sdapi/v1/options")["sd_model_checkpoint"]
    assert SECOND not in selected
    models = [model["title"] for model in webui.ask("/sdapi/v1/sd-models")]
    other = next(title for title in models if SECOND in title)
    assert translated(webui, {**request_of_keys, "host": {"model": other}})
    assert webui.ask("/sdapi/v1/options")["sd_model_checkpoint"] == selected
    answer = webui.img2img(frames(1), steps=2)
    assert SECOND not in answer.infotext


def test_scripts_that_choose_words_by_the_seed_choose_the_same_for_every_frame(
    webui: HttpHost, request_of_keys: dict[str, Any]
) -> None:
    def told(prompt: str) -> list[str]:
        settings = request_of_keys["settings"]
        sampling = {**settings["sampling"], "prompt": prompt, "seed": 5}
        return translated(
            webui, {**request_of_keys, "settings": {**settings, "sampling": sampling}}
        )

    assert told("a dog, __seed__") == told("a dog, number 5") != told("a dog, number 6")


def test_interrupted_in_the_webui_and_resumed_it_gives_the_same_pictures(
    webui: HttpHost, request_of_keys: dict[str, Any]
) -> None:
    whole = translated(webui, request_of_keys)
    job = webui.ask("/fresco/jobs", request_of_keys)["id"]
    assert ended(webui, job, interrupted=True) == "cancelled"
    kept = keys(webui, job)
    assert 0 < len(kept) < len(whole)
    webui.ask(f"/fresco/jobs/{job}/resume", {})
    assert ended(webui, job) == "done"
    assert keys(webui, job) == whole
