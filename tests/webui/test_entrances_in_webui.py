"""Other ways into FRESCO in a real WebUI, which `WEBUI_DIR` names: X/Y/Z plots and infotexts."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.helpers.webui.client import REQUEST
from tests.helpers.webui.http_host import (
    ANSWER_SECONDS,
    START_SECONDS,
    HttpHost,
    given_folder,
    text_of,
)
from tests.helpers.webui.networks import LORA
from tests.helpers.webui.requests import QUICK, frames, pixels

if given_folder() is None:
    pytest.skip("WEBUI_DIR names no WebUI", allow_module_level=True)

pytestmark = pytest.mark.timeout(START_SECONDS + ANSWER_SECONDS)  # the first one starts the WebUI

PLOT = "x/y/z plot"
AXIS = "[FRESCO] batch size"


def request_of(given: Sequence[Image.Image], **fields: Any) -> dict[str, Any]:
    return REQUEST | {
        "init_images": [text_of(frame) for frame in given], "save_images": False, **fields,
    }


def images_of(answer: dict[str, Any]) -> list[np.ndarray]:
    files = [io.BytesIO(base64.b64decode(text)) for text in answer["images"]]
    return [np.asarray(Image.open(file).convert("RGB"), np.float32) for file in files]


def test_an_x_y_z_plot_over_an_option(webui: HttpHost) -> None:
    """Its cells are the first images of calls with that option."""
    listed = webui.ask("/sdapi/v1/script-info")
    plot = next(one for one in listed if one["name"] == PLOT and one["is_img2img"])
    names = [argument["label"] for argument in plot["args"]]
    values = [argument.get("value") for argument in plot["args"]]
    axes = plot["args"][names.index("X type")]["choices"]
    assert axes.count(AXIS) == 1
    for name in ("X type", "Y type", "Z type"):
        values[names.index(name)] = axes.index(AXIS if name == "X type" else "Nothing")
    values[names.index("X values")] = "3, 4"
    values[names.index("Include Sub Images")] = True
    given = frames(4)
    answer = webui.ask("/sdapi/v1/img2img", request_of(
        given, script_name=PLOT, script_args=values,
        alwayson_scripts={"FRESCO": {"args": [QUICK | {"optimization_end": 0.2}]}},
    ))
    texts = json.loads(answer["info"])["infotexts"]
    cells = images_of(answer)
    options = QUICK | {"optimization_end": 0.2}
    for size, text in ((3, "FRESCO batch size: 3"), (4, "FRESCO batch size: 4")):
        first = pixels(webui.img2img(given, options | {"batch_size": size}))[0]
        assert any(cell.shape == first.shape and (cell == first).all() for cell in cells)
        assert any(text in told for told in texts)


def test_an_infotext_gives_the_same_images_again(webui: HttpHost) -> None:
    options = QUICK | {"batch_size": 3, "spatial_weight": 12.5, "cross_frame_attention": False}
    given = frames(4)
    first = webui.img2img(given, options)
    assert "FRESCO spatial weight: 12.5" in first.infotext
    assert "FRESCO cross frame attention: False" in first.infotext
    # Of the size the API takes nothing out of an infotext.
    again = webui.ask("/sdapi/v1/img2img", request_of(given, infotext=first.infotext))
    assert np.array_equal(np.stack(images_of(again)), pixels(first))


def test_an_infotext_without_fresco_leaves_it_off(webui: HttpHost) -> None:
    given = frames(1)
    plain = webui.img2img(given)
    assert "FRESCO" not in plain.infotext
    again = webui.ask("/sdapi/v1/img2img", request_of(given, infotext=plain.infotext))
    assert "FRESCO" not in json.loads(again["info"])["infotexts"][0]
    assert np.array_equal(np.stack(images_of(again)), pixels(plain))


def test_words_drawn_by_a_script_are_drawn_once_a_shot(webui: HttpHost) -> None:
    given = frames(5)
    drawn = webui.img2img(given, QUICK | {"batch_size": 3}, prompt="a __seed__ car", seed=11)
    assert {text.splitlines()[0] for text in drawn.infotexts} == {"a number 11 car"}
    told = webui.img2img(given, QUICK | {"batch_size": 3}, prompt="a number 11 car", seed=11)
    assert np.array_equal(pixels(drawn), pixels(told))


def test_a_lora_in_the_prompt(webui: HttpHost) -> None:
    """It counts for all frames of its call, and for no other call."""
    given = frames(4)
    before = [pixels(webui.img2img(given, QUICK)), pixels(webui.img2img(given[:1]))]
    named = pixels(webui.img2img(given, QUICK, prompt=f"a red car <lora:{LORA}:1>"))
    assert (np.abs(named - before[0]).mean((1, 2, 3)) > 1).all()
    unknown = webui.img2img(given, QUICK, prompt="a red car <lora:nowhere:1>")
    assert np.array_equal(pixels(unknown), before[0])
    after = [pixels(webui.img2img(given, QUICK)), pixels(webui.img2img(given[:1]))]
    assert all(map(np.array_equal, before, after))
