"""Guided img2img as a client sees it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fresco import __version__
from tests.helpers.webui.client import Host
from tests.helpers.webui.double import DoubleHost
from tests.helpers.webui.http_host import given_folder
from tests.helpers.webui.requests import NONE, PARTS, QUICK, frames, pixels

SAMPLERS = ("Euler", *(("Euler a", "Heun", "DPM++ 2M", "DDIM", "LCM") if given_folder() else ()))
"""All of a real WebUI; `test_img2img_inside` tries those of the double."""
LAYOUT_LEVELS = 1
"""Grey levels between one UNet call with all rows and one after the other: rounding."""
NOT_OPTIMIZED = {"spatial_optimization": False, "temporal_optimization": False}
LONG = " ".join(["word"] * 80)
"""More words than one piece of the text model holds."""


@pytest.mark.parametrize("count", [1, 2, 4])
def test_frames_of_one_batch(host: Host, count: int) -> None:
    answer = host.img2img(frames(count), QUICK)
    assert len(answer.images) == len(answer.infotexts) == count
    assert {image.size for image in answer.images} == {(64, 64)}


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_frame_comes_once(host: Host, sampler: str) -> None:
    answer = host.img2img(frames(6), QUICK | {"batch_size": 4}, sampler_name=sampler)
    assert len(answer.images) == len(answer.infotexts) == 6
    found = pixels(answer)
    assert all(np.abs(found[a] - found[b]).max() > 0 for a in range(6) for b in range(a))


def test_frames_come_in_their_order(host: Host) -> None:
    """Hardly changed, every picture is nearest to the plain translation of its own frame."""
    given, some = frames(9), {"denoising_strength": 0.3, "steps": 4}
    found = pixels(host.img2img(given, NONE | {"batch_size": 4}, **some))
    plain = np.concatenate([pixels(host.img2img([frame], **some)) for frame in given])
    distances = np.abs(found[:, None] - plain[None]).mean((2, 3, 4))
    assert list(distances.argmin(1)) == list(range(9))


def test_each_part_alone_changes_the_result(host: Host) -> None:
    without = pixels(host.img2img(frames(4), NONE))
    for part in PARTS:
        alone = pixels(host.img2img(frames(4), NONE | {part: True}))
        assert np.abs(alone - without).max() > 0, part


def in_both_layouts(host: Host, options: dict[str, Any], sampler: str) -> list[Any]:
    """The frames by one UNet call with all rows, and by one call after the other."""
    return [
        pixels(host.img2img(
            frames(4), options, sampler_name=sampler, override_settings={"batch_cond_uncond": on}
        )) for on in (True, False)
    ]


@pytest.mark.parametrize(("sampler", "smoothing"), [("Euler", True), ("DDIM", False)])
def test_both_layouts_agree(host: Host, sampler: str, smoothing: bool) -> None:
    options = QUICK | NOT_OPTIMIZED | {"background_smoothing": smoothing}
    found = in_both_layouts(host, options, sampler)
    assert np.abs(found[0] - found[1]).max() <= LAYOUT_LEVELS


@pytest.mark.parametrize(("sampler", "smoothing"), [("Euler", True), ("DDIM", False)])
def test_both_layouts_agree_with_optimization(
    host: Host, sampler: str, smoothing: bool
) -> None:
    """Rounding may turn the sign of an L1 gradient, so values differ; most of the effect stays.

    `test_both_layouts_agree_in_double_precision` has the narrow bound.
    """
    options = QUICK | {"background_smoothing": smoothing}
    found = in_both_layouts(host, options, sampler)
    plain = pixels(host.img2img(frames(4), options | NOT_OPTIMIZED, sampler_name=sampler))
    effect = np.abs(found[0] - plain).mean()
    assert np.abs(found[0] - found[1]).mean() < effect / 4


@pytest.mark.parametrize("sampler", ["Euler", "DDIM"])
def test_both_layouts_agree_in_double_precision(
    double: DoubleHost, in_double_precision: None, sampler: str
) -> None:
    """With optimisation: rounding is too small here to turn a sign."""
    found = in_both_layouts(double, QUICK, sampler)
    assert np.abs(found[0] - found[1]).max() <= LAYOUT_LEVELS


@pytest.mark.parametrize("payload", [
    {"prompt": LONG}, {"negative_prompt": LONG}, {"cfg_scale": 1.0}, {"s_min_uncond": 2.0},
    {"override_settings": {"skip_early_cond": 0.5}},
    {"prompt": LONG, "override_settings": {"batch_cond_uncond": False}},
], ids=["long prompt", "long negative", "no guidance scale", "NGMS", "early", "long, apart"])
def test_unusual_conditionings_are_guided(host: Host, payload: dict[str, Any]) -> None:
    guided = pixels(host.img2img(frames(5), QUICK | {"batch_size": 3}, **payload))
    without = pixels(host.img2img(frames(5), NONE | {"batch_size": 3}, **payload))
    assert len(guided) == 5
    assert np.abs(guided - without).max() > 0


@pytest.mark.parametrize("size", [(72, 88), (136, 120)])
def test_sides_that_are_no_multiples_of_64(host: Host, size: tuple[int, int]) -> None:
    width, height = size
    answer = host.img2img(frames(3), QUICK | {"background_smoothing": True}, width=width,
                          height=height)
    assert {image.size for image in answer.images} == {size}


def test_infotext_has_what_differs_from_the_defaults(host: Host) -> None:
    answer = host.img2img(frames(4), QUICK | {"batch_size": 4, "spatial_weight": 100.0})
    frames_told = [re.search(r", FRESCO frame: (\d+)", text) for text in answer.infotexts]
    assert [told and told[1] for told in frames_told] == ["0", "1", "2", "3"]
    assert answer.facts["FRESCO frames"] == [0, 1, 2, 3]
    assert any("DIS" in note for note in answer.facts["FRESCO notes"])
    (text,) = {re.sub(r", FRESCO frame: \d+", "", text) for text in answer.infotexts}
    assert f"FRESCO: {__version__}" in text
    for said in ("FRESCO batch size: 4", "FRESCO estimator: dis",
                 "FRESCO optimization iterations: 2"):
        assert said in text
    assert text.count("FRESCO") == 4
    assert "Seed: 7" in text
    assert "FRESCO" not in host.img2img(frames(1)).infotext


def test_a_random_seed_is_one_for_all_frames_and_told(host: Host) -> None:
    """With it the same images come again."""
    first = host.img2img(frames(4), QUICK, seed=-1)
    seeds = {int(re.search(r"Seed: (\d+)", text)[1]) for text in first.infotexts}  # type: ignore[index]
    assert len(seeds) == 1
    again = host.img2img(frames(4), QUICK, seed=seeds.pop())
    assert [image.tobytes() for image in again.images] == [
        image.tobytes() for image in first.images
    ]
    assert host.img2img(frames(4), QUICK, seed=-1).infotexts != first.infotexts


def test_arguments_by_position(host: Host) -> None:
    by_name = host.img2img(frames(4), {"batch_size": 4, "estimator": "dis"})
    by_position = host.img2img(frames(4), [
        True, None, "", 10, 30, 4, "", True, 27.0, 5, "dis",
    ])
    assert by_position.infotext == by_name.infotext
    assert np.array_equal(pixels(by_position), pixels(by_name))


@pytest.mark.parametrize("options", [None, [False], [{"enabled": False}], {"enabled": False}])
def test_off_is_plain(host: Host, options: Any) -> None:
    plain = host.img2img(frames(1))
    assert np.array_equal(pixels(host.img2img(frames(1), options)), pixels(plain))


@pytest.mark.parametrize("sizes", [(64, 64), (80, 48)])
def test_folder_of_frames(host: Host, tmp_path: Path, sizes: tuple[int, int]) -> None:
    for number, frame in enumerate(frames(6)):
        frame.resize(sizes).save(tmp_path / f"{number:03d}.png")
    options = QUICK | {
        "path": str(tmp_path), "min_interval": 2, "max_interval": 2, "detect_shots": False,
    }
    answer = host.img2img([], options, width=64, height=64)
    assert len(answer.images) == 4  # 0, 2, 4 and the last
    assert {image.size for image in answer.images} == {(64, 64)}


def test_what_a_mask_keeps_is_each_frames_own(host: Host) -> None:
    given = frames(7)
    mask = Image.new("L", (64, 64), 0)
    mask.paste(255, (0, 0, 64, 24))
    found = pixels(host.img2img(
        given, QUICK | {"batch_size": 4}, mask=mask, inpaint_full_res=False, inpainting_fill=1,
    ))
    assert len(found) == 7
    own = np.stack([np.asarray(frame, np.float32) for frame in given])
    assert np.abs(found[:, 36:] - own[:, 36:]).max() == 0
    assert np.abs(found[:, :16] - own[:, :16]).max() > 1


def test_colours_are_corrected_by_each_frames_own(host: Host) -> None:
    given = [
        Image.fromarray((np.asarray(frame) * (0.4 + 0.1 * number)).astype(np.uint8))
        for number, frame in enumerate(frames(7))
    ]
    corrected = {"override_settings": {"img2img_color_correction": True}}
    found = pixels(host.img2img(given, NONE | {"batch_size": 4}, **corrected))
    plain = np.concatenate([pixels(host.img2img([frame], **corrected)) for frame in given])
    difference = found.mean((1, 2, 3))[:, None] - plain.mean((1, 2, 3))[None]
    assert list(np.abs(difference).argmin(1)) == list(range(7))
