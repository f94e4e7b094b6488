"""Give the keyframes of a shot the same exposure and colour, before they are propagated.

What counts is how a keyframe differs from its source, so a shot that becomes darker stays so.
Keyframes are compared along the motion, so that a new object does not count as a change of colour.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fresco.blending.histogram import to_lab, to_rgb
from fresco.flow.arrays import find_inside, remap
from fresco.flow.interface import FlowEstimator
from fresco.flow.motion import estimate_motion

Image = NDArray[np.uint8]
Change = NDArray[np.float64]
"""[3] change of lightness, a and b, on the scale of 8-bit Lab."""

VERSION = 1
"""Increased when the same keyframes are changed in another way."""
_SMALLEST_SHARE = 0.1
"""Two frames are compared if this share of one is visible in the other."""
_ALIKE = 25.0
"""Mean absolute difference of source colours, of 255, up to which a pixel counts as the same."""
_MOST = 30.0
"""Largest change of a channel; a larger one is assumed to be intended."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """How two keyframes of a shot differ, minus the difference of their sources."""

    first: int
    """Position of the earlier one."""
    second: int
    """Position of the later one."""
    change: Change
    """The later one minus the earlier one."""


def compare_keyframes(
    first: tuple[Image, Image], second: tuple[Image, Image], estimator: FlowEstimator
) -> Change | None:
    """Compare a keyframe with an earlier one; each is given with its source.

    Returns:
        The change: the median over the pixels that both show. None if both show too little of the
        same.
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
    """Find the level [count, 3] of every keyframe by least squares.

    Each group of keyframes that are compared with each other has a mean of 0.
    """
    if not comparisons:
        return np.zeros((count, 3))
    differences = np.zeros((len(comparisons), count))
    for row, each in zip(differences, comparisons, strict=True):
        row[each.first], row[each.second] = -1, 1
    changes = np.stack([each.change for each in comparisons])
    # Solutions differ by a constant for each group; this one has the smallest norm.
    return np.linalg.lstsq(differences, changes, rcond=None)[0].clip(-_MOST, _MOST)


def find_levels(
    read: Callable[[int], tuple[Image, Image]], prompts: Sequence[str], estimator: FlowEstimator
) -> NDArray[np.float64]:
    """Find the level [N, 3] of every keyframe of a shot, compared with their mean.

    A keyframe is compared with the one before and with the first, if their prompts are the same. At
    most three keyframes are in memory.

    Args:
        read: returns a keyframe and its source, by position.
        prompts: prompt of every keyframe.
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


def even_shot(
    read: Callable[[int], tuple[Image, Image]], prompts: Sequence[str], estimator: FlowEstimator
) -> Iterator[Image]:
    """Give the keyframes of a shot one exposure and colour; yield them one after the other."""
    for place, level in enumerate(find_levels(read, prompts, estimator)):
        yield take_off(read(place)[0], level)


def take_off(image: Image, level: Change) -> Image:
    """Subtract a change of colours from an image."""
    return to_rgb(to_lab(image) - level[:, None, None].astype(np.float32))
