"""The project's trained model in a real WebUI: `WEBUI_DIR` names it, `WEBUI_MODEL` is `demo`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.helpers.clips import package_clip
from tests.helpers.webui.client import Answer
from tests.helpers.webui.http_host import HttpHost, given_folder, given_model, text_of

if given_folder() is None or given_model() != "demo":
    pytest.skip("the WebUI of WEBUI_DIR has no demo model", allow_module_level=True)

PAYLOAD = {
    "steps": 12, "sampler_name": "Euler a", "cfg_scale": 1.0, "width": 256, "height": 192,
    "negative_prompt": "",
}


@pytest.fixture(scope="module")
def frames() -> list[Image.Image]:
    """Four frames of a clip that the model was not trained on."""
    from fresco.video.reader import open_source
    from fresco.video.size import scale_frame

    clip: Path = package_clip("bigbuckbunny.mp4")
    with open_source(clip) as source:
        pictures = [scale_frame(next(source.frames(n, n)), (256, 192)) for n in (20, 22, 24, 26)]
    return [Image.fromarray(picture) for picture in pictures]


def levels(answer: Answer) -> NDArray[np.float64]:
    return np.stack([np.asarray(image, np.float64) for image in answer.images])


def colourful(pictures: NDArray[np.float64]) -> float:
    return float((pictures.max(axis=-1) - pictures.min(axis=-1)).mean())


def test_the_prompt_chooses_the_look_of_guided_frames(
    webui: HttpHost, frames: list[Image.Image]
) -> None:
    made = {
        look: levels(webui.img2img(frames, {"batch_size": 4}, prompt=look, **PAYLOAD))
        for look in ("a photo", "a pencil sketch", "a photo at night")
    }
    assert all(pictures.shape == (4, 192, 256, 3) for pictures in made.values())
    assert colourful(made["a pencil sketch"]) < 0.5 * colourful(made["a photo"])
    assert made["a photo at night"].mean() < 0.75 * made["a photo"].mean()
    source = np.stack([np.asarray(frame, np.float64) for frame in frames])
    assert np.abs(made["a photo"] - source).mean() < 30


def test_it_also_generates_from_noise(webui: HttpHost) -> None:
    asked = PAYLOAD | {"seed": 3, "prompt": "a photo of trees and hills under a blue sky"}
    done = webui.ask("/sdapi/v1/txt2img", asked)
    assert len(done["images"]) == 1
    assert len(done["images"][0]) > 1000
    assert "fresco-demo" in done["info"]


def test_an_ordinary_img2img_takes_it(webui: HttpHost, frames: list[Image.Image]) -> None:
    done = webui.ask("/sdapi/v1/img2img", PAYLOAD | {
        "init_images": [text_of(frames[0])], "prompt": "a watercolour painting",
        "denoising_strength": 0.6,
    })
    assert len(done["images"]) == 1
