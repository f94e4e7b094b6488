"""ControlNet in a real WebUI, which `WEBUI_DIR` names: every frame's own hint, told by images.

Its network is random, and copies hints strongly into the latents. A1111 has ControlNet if
`CONTROLNET_DIR` names a clone of sd-webui-controlnet.
"""

from __future__ import annotations

import base64
import io
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.helpers.clips import write_clip
from tests.helpers.job_environment import TINY
from tests.helpers.webui.client import REQUEST, Refused
from tests.helpers.webui.http_host import (
    ANSWER_SECONDS,
    START_SECONDS,
    HttpHost,
    given_folder,
    text_of,
)
from tests.helpers.webui.networks import NETWORK
from tests.helpers.webui.requests import NONE, QUICK

if given_folder() is None:
    pytest.skip("WEBUI_DIR names no WebUI", allow_module_level=True)

pytestmark = pytest.mark.timeout(START_SECONDS + ANSWER_SECONDS)  # the first one starts the WebUI

PATIENCE, ENDED = 900, ("cancelled", "failed", "done")
Images = NDArray[np.float32]
Ask = Callable[..., Images]


@pytest.fixture(scope="module")
def model(webui: HttpHost) -> str:
    """The network's name there."""
    if "controlnet" not in webui.ask("/sdapi/v1/scripts")["img2img"]:
        pytest.skip("this WebUI has no ControlNet")
    listed = webui.ask("/controlnet/model_list")["model_list"]
    return next(name for name in listed if NETWORK in name)


@pytest.fixture(scope="module")
def ask(webui: HttpHost, model: str) -> Ask:
    """Images of a request with units of ControlNet: [N, H, W, 3] in grey levels."""

    def answer(
        given: Sequence[Image.Image], options: dict[str, Any] | None, *units: dict[str, Any],
        **payload: Any
    ) -> Images:
        scripts: dict[str, Any] = {"ControlNet": {"args": list(units)}} if units else {}
        if options is not None:
            scripts["FRESCO"] = {"args": [options]}
        done = webui.ask("/sdapi/v1/img2img", REQUEST | payload | {
            "init_images": [text_of(frame) for frame in given], "save_images": False,
            "alwayson_scripts": scripts,
        })
        files = [io.BytesIO(base64.b64decode(text)) for text in done["images"][:len(given)]]
        return np.stack([np.asarray(Image.open(file).convert("RGB"), np.float32) for file in files])

    return answer


@pytest.fixture(scope="module")
def unit(webui: HttpHost, model: str) -> Callable[..., dict[str, Any]]:
    """A unit as a program sends it."""
    listed = webui.ask("/controlnet/module_list")["module_list"]
    module = next(name for name in listed if name.lower() == "none")

    def make(**fields: Any) -> dict[str, Any]:
        return {
            "enabled": True, "module": module, "model": model, "save_detected_map": False, **fields,
        }

    return make


LEVELS = 2
"""Grey levels that images of one hint may differ by: sd-webui-controlnet computes a hint for all
frames in one row, and one for each in as many, which rounds otherwise. The effect is far larger."""


def are_same(first: np.ndarray, second: np.ndarray) -> bool:
    return bool(np.abs(first.astype(int) - second.astype(int)).max() <= LEVELS)


def stripes(count: int, side: int = 64) -> list[Image.Image]:
    """White bands in different places."""
    frames = np.zeros((count, side, side, 3), np.uint8)
    for place, frame in enumerate(frames):
        frame[place * side // count:(place + 1) * side // count] = 255
    return [Image.fromarray(frame) for frame in frames]


def test_every_frame_has_its_own_hint(ask: Ask, unit: Callable[..., dict[str, Any]]) -> None:
    """A row is what the host makes of it with that frame as the unit's one image."""
    given = stripes(3)
    without = ask(given, NONE)
    own = ask(given, NONE, unit())
    assert (np.abs(own - without).mean((1, 2, 3)) > 3).all()
    for place, frame in enumerate(given):
        all_of_one = ask(given, NONE, unit(image=text_of(frame)))
        same = [are_same(a, b) for a, b in zip(own, all_of_one, strict=True)]
        assert same == [row == place for row in range(3)]
    assert are_same(ask(given, NONE, unit(weight=0.0)), without)


def test_in_a_second_batch_of_another_size(
    ask: Ask, unit: Callable[..., dict[str, Any]]
) -> None:
    given = stripes(6)
    own = ask(given, NONE | {"batch_size": 3}, unit())
    assert len(own) == 6
    one = ask(given, NONE | {"batch_size": 3}, unit(image=text_of(given[4])))
    assert [are_same(a, b) for a, b in zip(own, one, strict=True)].count(True) <= 1
    assert are_same(own[4], one[4])


def test_a_plain_request_before_and_after(ask: Ask, unit: Callable[..., dict[str, Any]]) -> None:
    given = stripes(3)
    before = [ask(given[:1], None), ask(given[:1], None, unit())]
    ask(given, QUICK, unit(module="canny", pixel_perfect=True), unit())
    for wrong in ({"module": "inpaint_only"}, {"model": "unheard"}):
        with pytest.raises(Refused):
            ask(given, QUICK, unit(**wrong))
    after = [ask(given[:1], None), ask(given[:1], None, unit())]
    assert all(map(np.array_equal, before, after))


@pytest.mark.parametrize(("fields", "said"), [
    ({"module": "inpaint_only"}, "changes the sampling by one image for all frames"),
    ({"model": "unheard"}, "did not start"),
])
def test_units_that_are_refused(
    ask: Ask, unit: Callable[..., dict[str, Any]], fields: dict[str, Any], said: str
) -> None:
    with pytest.raises(Refused, match=said) as caught:
        ask(stripes(3), QUICK, unit(**fields))
    assert caught.value.status == 422


def keyframes(webui: HttpHost, body: dict[str, Any]) -> np.ndarray:
    """Of a job, once it is done."""
    job = webui.ask("/fresco/jobs", body)["id"]
    end = time.monotonic() + PATIENCE
    while (status := webui.ask(f"/fresco/jobs/{job}"))["state"] not in ENDED:
        assert time.monotonic() < end, status
        time.sleep(0.1)
    assert status["state"] == "done", status
    images = webui.ask(f"/fresco/jobs/{job}/keyframes")["images"]
    return np.stack([np.asarray(Image.open(io.BytesIO(base64.b64decode(i)))) for i in images])


@pytest.fixture(scope="module")
def body(webui: HttpHost, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Of a job for the keyframes of a small clip."""
    clip = tmp_path_factory.mktemp("clip") / "stripes.mp4"
    write_clip(clip, np.stack([np.asarray(frame) for frame in stripes(4)]))
    settings = {**TINY, "sampling": {**TINY["sampling"], "strength": 0.75}}
    models = webui.ask("/fresco/models")["models"]
    return {
        "video": base64.b64encode(clip.read_bytes()).decode(), "goal": "keyframes",
        "settings": settings, "host": {"sampler": "Euler a", "model": next(filter(None, models))},
    }


def test_two_units_one_of_them_for_a_part_of_the_steps(
    webui: HttpHost, model: str, body: dict[str, Any]
) -> None:
    assert webui.ask("/fresco/models")["control_units"] >= 2
    first = {"model": NETWORK, "module": "canny", "weight": 0.5}

    def with_second(**second: Any) -> np.ndarray:
        units = [first, {"model": NETWORK, "module": "none", **second}]
        return keyframes(webui, {**body, "controlnet": units})

    alone = keyframes(webui, {**body, "controlnet": [first]})
    late, never = with_second(start=0.5), with_second(start=1, end=1)
    effect, rounding = (np.abs(each.astype(int) - alone).mean() for each in (late, never))
    assert rounding < effect / 4
    soft = keyframes(webui, {**body, "controlnet": [{**first, "control_mode": "prompt"}]})
    assert not are_same(soft, alone)


def test_hints_and_numbers_of_preprocessors(
    webui: HttpHost, model: str, body: dict[str, Any]
) -> None:
    canny = {"model": NETWORK, "module": "canny"}
    wish = {name: body[name] for name in ("video", "settings")} | {"frame": 1}
    hint = np.asarray(Image.open(io.BytesIO(webui.read("/fresco/hint", wish | {"unit": canny}))))
    assert hint.shape == (64, 64, 3)
    assert 0 < (hint > 200).mean() < 0.2, "lines on black"
    slider = webui.ask("/fresco/models")["control_sliders"]["canny"]["threshold_b"]
    assert slider["high"] in (255, 256)
    for unit, said in (
        ({"threshold_a": 9999}, "is 9999; give"), ({"module": "reference_only"}, "of one image"),
    ):
        with pytest.raises(Refused, match=said):
            webui.ask("/fresco/jobs", {**body, "controlnet": [{**canny, **unit}]})


def test_jobs_with_units(webui: HttpHost, model: str, body: dict[str, Any]) -> None:
    """Their preprocessor may be written as everywhere else, and the model without its hash."""
    offered = webui.ask("/fresco/models")
    assert model in offered["control_models"]
    assert offered["control_modules"][0].lower() == "none"
    assert "canny" in offered["control_modules"]
    plain = keyframes(webui, body)

    def controlled(**unit: Any) -> np.ndarray:
        return keyframes(webui, {**body, "controlnet": [{"model": NETWORK, **unit}]})

    strong, without = controlled(module="none"), controlled(weight=0)
    # Optimisation makes more of the rounding that another way through the UNet brings.
    effect, rounding = (np.abs(each.astype(int) - plain).mean() for each in (strong, without))
    assert rounding < effect / 4
    assert not any(are_same(a, b) for a, b in zip(strong, plain, strict=True))
    assert not are_same(controlled(module="canny"), strong)
    with pytest.raises(Refused, match="preprocessor is 'unheard'; choose one of"):
        controlled(module="unheard")
