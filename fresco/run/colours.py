"""Keyframes of a shot brought to one exposure and colour, before they are carried to all frames.

What counts is how a keyframe changed against its source: a source that dims may dim. Both are
compared along the motion, so that a new object does not count as a change of colour.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fresco.blending.histogram import to_lab, to_rgb
from fresco.digests import digest, digest_content
from fresco.errors import PropagationError
from fresco.flow.arrays import find_inside, remap
from fresco.flow.interface import FlowEstimator
from fresco.flow.motion import estimate_motion
from fresco.planning.keyframes import KeyframePlan
from fresco.planning.prompts import compose_prompts
from fresco.run.context import RunContext, log_stage
from fresco.run.propagate import ORIGIN, read_origin
from fresco.workspace import frame_name, read_image, write_image, write_json

Image = NDArray[np.uint8]
Change = NDArray[np.float64]
"""[3] of lightness, a and b on the scale of 8-bit Lab."""

VERSION = 1
"""Raised when the same keyframes are changed in another way."""
_SMALLEST_SHARE = 0.1
"""Share of a frame that must be seen in another one for the two to be compared."""
_ALIKE = 25.0
"""Mean absolute difference of source colours, of 255, up to which a pixel counts as the same."""
_MOST = 30.0
"""Largest change of a channel; more is taken to be meant."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """How two keyframes of a shot differ, their sources' own difference taken off."""

    first: int
    """Position of the earlier one."""
    second: int
    """Position of the later one."""
    change: Change
    """What the later one has more."""


def compare_keyframes(
    first: tuple[Image, Image], second: tuple[Image, Image], estimator: FlowEstimator
) -> Change | None:
    """What a keyframe has more than an earlier one, each given with its source; None: they show too
    little of the same.

    It is the median over the pixels that both show.
    """
    motion = estimate_motion(first[1], second[1], estimator)
    flow = motion.backward
    moved = remap(first[1].astype(np.float32), flow)
    gap = np.abs(second[1] - moved).mean(axis=-1)
    same = ~motion.backward_occlusion & find_inside(flow) & (gap <= _ALIKE)
    if same.mean() < _SMALLEST_SHARE:
        return None
    changes = []
    for early, late in zip(first, second, strict=True):
        before = remap(np.moveaxis(to_lab(early), 0, -1), flow)
        changes.append((np.moveaxis(to_lab(late), 0, -1) - before)[same])
    return np.median(changes[0] - changes[1], axis=0).astype(np.float64)


def solve_levels(count: int, comparisons: Sequence[Comparison]) -> NDArray[np.float64]:
    """The level [count, 3] of every keyframe by least squares; each group of keyframes that are
    compared with each other has a mean of 0."""
    if not comparisons:
        return np.zeros((count, 3))
    differences = np.zeros((len(comparisons), count))
    for row, each in zip(differences, comparisons, strict=True):
        row[each.first], row[each.second] = -1, 1
    changes = np.stack([each.change for each in comparisons])
    # Of all solutions, which differ by a constant a group, this is the one of least norm.
    return np.linalg.lstsq(differences, changes, rcond=None)[0].clip(-_MOST, _MOST)


def find_levels(
    read: Callable[[int], tuple[Image, Image]], prompts: Sequence[str], estimator: FlowEstimator
) -> NDArray[np.float64]:
    """The level [N, 3] of every keyframe of a shot above their common one.

    Keyframes are compared with the one before and with the first, if their prompts are the same.
    No more than three are in memory.

    Args:
        read: a keyframe and its source by position.
        prompts: of every keyframe.
    """
    found = []
    start = before = read(0)
    for second in range(1, len(prompts)):
        late = read(second)
        for first, early in {0: start, second - 1: before}.items():
            if prompts[first] != prompts[second]:
                continue
            change = compare_keyframes(early, late, estimator)
            if change is not None:
                found.append(Comparison(first, second, change))
        before = late
    return solve_levels(len(prompts), found)


def even_keyframes(
    run: RunContext, plans: Sequence[KeyframePlan], keys: Path, estimator: FlowEstimator
) -> Path:
    """The folder of keyframes to carry: of one exposure and colour, if that is asked for.

    Args:
        keys: folder of the keyframes, at the size of the run's frames; they stay as they are.
    """
    if not run.settings.propagation.even_colours:
        return keys
    folder = run.workspace.folder("evened", digest(VERSION, keys.name, estimator.fingerprint))
    numbers = [number for plan in plans for number in plan.keyframes]
    now = {str(number): digest_content(keys / frame_name(number)) for number in numbers}
    now |= {"prompts": digest(compose_prompts(numbers, run.settings.sampling))}
    whole = all(read_image(folder / frame_name(number)) is not None for number in numbers)
    if whole and read_origin(folder) == now:
        return folder
    with log_stage("colours"), run.progress.stage("colours", len(numbers)) as stage:
        for plan in plans:
            shot = plan.keyframes

            def read(place: int, shot: Sequence[int] = shot) -> tuple[Image, Image]:
                number = shot[place]
                return _read(keys, number), run.clip.frames.pick([number])[0]

            prompts = compose_prompts(shot, run.settings.sampling)
            for number, level in zip(shot, find_levels(read, prompts, estimator), strict=True):
                write_image(folder / frame_name(number), take_off(_read(keys, number), level))
                stage.advance()
    write_json(folder / ORIGIN, now)
    return folder


def take_off(image: Image, level: Change) -> Image:
    """An image without a change of its colours."""
    return to_rgb(to_lab(image) - level[:, None, None].astype(np.float32))


def _read(folder: Path, number: int) -> Image:
    image = read_image(folder / frame_name(number))
    if image is None:
        raise PropagationError(
            f"The image of keyframe {number} is missing or damaged. Start the same command again: "
            "it makes what is missing."
        )
    return image
