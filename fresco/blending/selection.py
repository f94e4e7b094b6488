"""Select for every pixel the side that it is taken from: the forward or the backward one.

The official rule, w1 d1 >= w2 d2, compares errors weighted by time. Ours is its logarithm, with a
smaller influence of time. The official mask can only grow from frame to frame. Ours gathers the
evidence of neighbouring frames along the motion, so the selection is steady in time but can change
back. Where the sides differ, whole regions are taken from one of them (`cut`).
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from fresco.blending.cut import cut_sides
from fresco.blending.histogram import to_lab

Map = NDArray[np.floating]

SMALLEST_ERROR = 1e-6
"""Added to both errors before the logarithm, so that the weights decide between perfect matches."""
PRIOR = 0.25
"""Weight of time against the errors. In a scene whose true frames are known, the errors say which
side is right, and time adds nothing: PSNR is 26.13 dB with 1, 26.24 with 0.5, 26.30 with 0.25, and
26.37 with 0 (benchmarks/truth.py). Time decides where both sides fit, and keeps regions whole."""
RAMP = 0.5
"""Width of the change from one side's values to the other's, in units of the log evidence. It is
half the width that would weight both sides by their errors, because errors are too large where the
sides differ."""
SEAM, PATCH_SEAM = 0.02, 0.05
"""Cost of a seam for each level by which the sides differ, in units of the log evidence. The first
is for keyframes moved along the flow, whose hidden regions are narrow and certain; the second is
for patches."""
MOST_DIFFERENT = 30.0
"""Levels of Lab above which a larger difference costs no more."""
SUREST = 2.0
"""Evidence is limited to this, so that a single pixel cannot outvote its region."""
CELLS = 128
"""Cells on the shorter side of the grid on which the regions are found, for every image size. A
seam is three quarters of a cell wide."""


def weigh_sides(position: int, length: int) -> tuple[float, float]:
    """Weights (w1, w2) of the forward and the backward error of a frame between two keyframes.

    w1 = j / n and w2 = 1 - w1, for j = 1 ... n - 1. So no frame is forced to one side.

    Args:
        position: frames since the segment's first key, j.
        length: frames from its first to its last key, n.
    """
    if not 0 < position < length:
        raise ValueError(f"position is {position}; interior frames are 1 to {length - 1}")
    weight = position / length
    return weight, 1.0 - weight


def weigh_evidence(
    forward: Map, backward: Map, *, weights: tuple[float, float]
) -> NDArray[np.float32]:
    """Evidence for the backward side: log(d1 / d2) + PRIOR log(w1 / w2).

    The backward side is taken where it is 0 or more. With a PRIOR of 1 this is the official rule.

    Args:
        forward, backward: error maps d1 and d2, [H, W].
        weights: (w1, w2), both above 0.
    """
    first = forward.astype(np.float32) + np.float32(SMALLEST_ERROR)
    second = backward.astype(np.float32) + np.float32(SMALLEST_ERROR)
    time = PRIOR * np.log(weights[0] / weights[1])
    return np.log(first / second) + np.float32(time)


def gather_evidence(own: Map, carried: Map, valid: NDArray[np.bool_], *, memory: float) -> Map:
    """Join the evidence of a frame with that of its neighbour: (1 - m) own + m carried.

    Applied over a segment in both directions, it is an exponential mean over both sides in time.

    Args:
        own: [H, W].
        carried: the gathered evidence of the neighbour, moved along the flow.
        valid: where the motion can be trusted; elsewhere only `own` counts.
        memory: m, in 0..1: share of the neighbour.
    """
    share = np.where(valid, np.float32(memory), np.float32(0.0))
    return own + share * (carried - own)


def share_backward(
    total: Map, *, softness: int, ramp: float = RAMP
) -> NDArray[np.float32]:
    """Compute the share of the backward side from the evidence, in 0..1, without isolated pixels.

    Args:
        total: evidence, [H, W].
        softness: side in pixels of the neighbourhood that decides together.
        ramp: width of the change in units of the log evidence.
    """
    sigma = max(softness / 4.0, 0.25)
    smooth = cv2.GaussianBlur(total.astype(np.float32), (0, 0), sigma)
    return (0.5 + 0.5 * np.tanh(smooth / (2 * ramp))).astype(np.float32)


def _fit_grid(size: tuple[int, int], cells: int) -> tuple[int, int]:
    """Rows and columns of a grid with `cells` on the shorter side, at most those of the image."""
    factor = max(1.0, min(size) / cells)
    return max(1, round(size[0] / factor)), max(1, round(size[1] / factor))


def _shrink(values: NDArray, size: tuple[int, int]) -> NDArray:
    if values.shape[:2] == size:
        return values
    return np.asarray(cv2.resize(values, size[::-1], interpolation=cv2.INTER_AREA))


def compare_sides(forward: NDArray[np.uint8], backward: NDArray[np.uint8]) -> Map:
    """Measure how much two sides differ, in levels of Lab, on a grid of at most 2 * CELLS rows.

    Args:
        forward, backward: [H, W, 3].
    """
    size = _fit_grid((forward.shape[0], forward.shape[1]), 2 * CELLS)
    gap = to_lab(_shrink(forward, size)) - to_lab(_shrink(backward, size))
    return np.sqrt(cv2.GaussianBlur(np.square(gap).sum(axis=0), (0, 0), 1.0))


def choose_sides(total: Map, difference: Map, *, seam: float) -> NDArray[np.float32]:
    """Select one side for each region: the share of the backward side, [H, W], near 0 or 1.

    Args:
        total: evidence, [H, W].
        difference: how much the sides differ, [h, w], see `compare_sides`.
        seam: cost of a seam for each level of difference.
    """
    size = (total.shape[0], total.shape[1])
    grid = _fit_grid(size, CELLS)
    evidence = _shrink(np.clip(total, -SUREST, SUREST).astype(np.float32), grid)
    levels = np.minimum(_shrink(difference, grid), np.float32(MOST_DIFFERENT))
    label = cut_sides(evidence, np.float32(seam) * (1 + levels))
    share = cv2.resize(label, size[::-1], interpolation=cv2.INTER_LINEAR)
    return np.asarray(cv2.GaussianBlur(share, (0, 0), 0.75 * size[0] / grid[0]), np.float32)
