"""Optical flow by OpenCV's dense inverse search (DIS), without torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

SMALLEST_SIDE = 16
"""Sides DIS is given at least; it refuses images under 12 pixels."""


class DisEstimator:
    """OpenCV's dense inverse search, medium preset, on grey images: no weights, CPU only."""

    name = "dis"
    device = "cpu"
    fingerprint = f"dis medium opencv {cv2.__version__}"
    former_fingerprint = fingerprint
    note = (
        "Optical flow is by OpenCV DIS, which needs no download. It marks far more pixels as "
        "occluded than a network (24 % against 7 % of a test clip), so frames agree less."
    )

    def estimate_frames(
        self, first: NDArray[np.uint8], second: NDArray[np.uint8]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """See `FrameEstimator.estimate_frames`."""
        height, width = first.shape[:2]
        here, there = _convert_to_grey(first), _convert_to_grey(second)
        return (
            _search_flow(here, there)[:height, :width], _search_flow(there, here)[:height, :width]
        )

    def estimate(self, source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """See `FlowEstimator.estimate`."""
        # Imported here, because processes that only propagate do not need torch.
        from fresco.flow.tensors import estimate_by_frames

        return estimate_by_frames(self, source, target)


def _convert_to_grey(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Convert to grey [H, W]; a frame that is too small is enlarged by repeating its border."""
    height, width = image.shape[:2]
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    right, below = max(0, SMALLEST_SIDE - width), max(0, SMALLEST_SIDE - height)
    return np.asarray(cv2.copyMakeBorder(grey, 0, below, 0, right, cv2.BORDER_REPLICATE), np.uint8)


def _search_flow(source: NDArray[np.uint8], target: NDArray[np.uint8]) -> NDArray[np.float32]:
    # A new object each time: a used one keeps the pyramid of the size it saw before.
    search = cv2.DISOpticalFlow.create(cv2.DISOpticalFlow_PRESET_MEDIUM)
    # None, no start; OpenCV's stubs leave it out.
    return search.calc(source, target, None)  # type: ignore[call-overload]
