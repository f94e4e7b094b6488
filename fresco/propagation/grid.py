"""A grid coarser than the frames: enough for motion that only guides patches."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from fresco.flow.arrays import FrameMotion, resize_flow

Image = NDArray[np.uint8]
Size = tuple[int, int]
"""Height and width."""

GRID = 512
"""Cells at least on the shorter side of a grid that is coarser than the frame."""


def choose_grid(size: Size) -> Size:
    """The grid on which motion guides patches, for frames of a size: whole pixels a cell."""
    factor = max(1, min(size) // GRID)
    return max(1, round(size[0] / factor)), max(1, round(size[1] / factor))


def fit_image(image: Image, grid: Size) -> Image:
    """An image on a grid."""
    if image.shape[:2] == grid:
        return image
    return np.asarray(cv2.resize(image, grid[::-1], interpolation=cv2.INTER_AREA), np.uint8)


def shrink_motion(pair: FrameMotion, grid: Size) -> FrameMotion:
    """Motion on a coarser grid: flows in its cells; a cell is hidden where most of it is."""
    if pair.forward.shape[:2] == grid:
        return pair
    hidden = [
        np.asarray(cv2.resize(
            mask.view(np.uint8) * np.uint8(255), grid[::-1], interpolation=cv2.INTER_AREA
        ), np.uint8) > 127
        for mask in (pair.forward_occlusion, pair.backward_occlusion)
    ]
    return FrameMotion(resize_flow(pair.forward, grid), resize_flow(pair.backward, grid), *hidden)
