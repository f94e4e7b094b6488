"""Read configuration files of Rerender A Video, flat JSON files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fresco.config.translation import LIST, NUMBER, TEXT, WHOLE, ImportedRun, Translation
from fresco.errors import SettingsError

ALL_NOISE = -1
"""Rerender's word for denoising from pure noise; anything above 1 says the same."""
FULL_STRENGTH = 1.0
"""Our word for it."""
CANNY = (100, 200)
"""Thresholds of canny where a file gives none."""
FREEU_FACTORS = 4
"""b1, b2, s1, s2."""
WITHOUT_COUNTERPART = (
    "warp_period", "mask_period", "mask_strength", "inner_strength", "ada_period", "cross_period",
    "smooth_boundary", "loose_cfattn", "style_update_freq", "color_perserve",
)
"""Keys without a counterpart in FRESCO."""


def import_rerender(values: Mapping[str, Any], path: Path) -> ImportedRun:
    """Convert a configuration of Rerender A Video (JSON).

    Args:
        values: the parsed file.
        path: the file itself, from which relative paths are resolved.
    """
    run = Translation(values, path)
    source, base = run.clip("input")
    target = run.take("output", TEXT)
    output = base / Path(target).expanduser() if target else None
    if output:
        run.mapped.append(f"output: the result is {output}.")
    for key, option, kind in (
        ("prompt", "sampling.prompt", TEXT),
        ("control_strength", "sampling.control_weight", NUMBER),
        ("ddim_steps", "sampling.steps", WHOLE),
        ("scale", "sampling.guidance_scale", NUMBER),
        ("image_resolution", "sampling.resolution", WHOLE),
    ):
        run.map(key, option, kind)
    run.put("sampling.scheduler", "ddim")
    run.mapped.append("sampling.scheduler is 'ddim', which Rerender always uses.")
    run.seed("seed")
    run.model("sd_model")
    run.control("control_type")
    for step in (Translation.added_words, _range, _strength, _canny,
                 _freeu, _rest):
        step(run)
    return run.result("Configuration of Rerender", source, output)


def _range(run: Translation) -> None:
    interval = run.take("interval", WHOLE)
    if interval is None:
        run.leave_open("interval", "keyframes.max_interval")
    else:
        run.put("keyframes.min_interval", interval)
        run.put("keyframes.max_interval", interval)
        run.mapped.append(
            f"interval: keyframes.min_interval and max_interval are {interval}, which makes every "
            f"{interval}th frame a keyframe, the last one too."
        )
    frames = run.take("frame_count", WHOLE)
    if frames is None:
        run.leave_open("frame_count", "output.last_frame")
    elif frames < 1:
        raise SettingsError(f"frame_count is {frames} in {run.path}; give at least 1.")
    else:
        run.put("output.last_frame", frames - 1)
        run.mapped.append(f"frame_count: output.last_frame is {frames - 1}, counted from 0.")


def _strength(run: Translation) -> None:
    value = run.take("x0_strength", NUMBER)
    if value is None:
        run.leave_open("x0_strength", "sampling.strength")
        return
    strength = FULL_STRENGTH if value == ALL_NOISE or value > FULL_STRENGTH else value
    run.put("sampling.strength", strength)
    run.mapped.append(f"x0_strength ({value:g}): sampling.strength is {strength:g}.")


def _canny(run: Translation) -> None:
    for key, target, default in zip(
        ("canny_low", "canny_high"), ("sampling.canny_low", "sampling.canny_high"), CANNY,
        strict=True,
    ):
        if run.take(key, WHOLE) is None:
            run.put(target, default)
            run.defaulted.append(f"{key} is not there: {target} is {default}, as in Rerender.")
        else:
            run.map(key, target, WHOLE)


def _freeu(run: Translation) -> None:
    factors = run.take("freeu_args", LIST)
    if factors is None:
        run.defaulted.append("freeu_args is not there: FreeU stays off.")
        return
    numbers = [f for f in factors if isinstance(f, int | float) and not isinstance(f, bool)]
    if len(factors) != FREEU_FACTORS or len(numbers) != FREEU_FACTORS:
        raise SettingsError(
            f"freeu_args is {factors!r} in {run.path}; give four numbers, b1, b2, s1, s2."
        )
    run.freeu(numbers)
    run.mapped.append(f"freeu_args: the FreeU factors b1, b2, s1, s2 are {numbers}.")


def _rest(run: Translation) -> None:
    crop = run.take("crop", LIST)
    if crop is not None and any(crop):
        run.ignore("crop", "nothing is cropped here; crop the clip before.")
    else:
        run.ignore("crop", "it crops nothing.")
    run.ignore("work_dir", "a run keeps its artefacts beside the result, or in the workspace.")
    run.ignore("key_subdir", "names are fixed; Rerender counts keyframes from 1, we from 0.")
    run.ignore("use_limit_device_resolution", "the size is sampling.resolution; where memory runs "
               "out the batch shrinks instead.")
    run.ignore("color_preserve", "Rerender itself looks for another spelling and never reads it.")
    for key in WITHOUT_COUNTERPART:
        run.ignore(key, "a part of Rerender that FRESCO does not have.")
