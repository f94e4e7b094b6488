"""Estimate the motion between two frames by any estimator; torch is imported only if needed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fresco.flow.arrays import FrameMotion, judge_motion
from fresco.flow.interface import FrameEstimator

if TYPE_CHECKING:
    from fresco.flow.interface import FlowEstimator


def estimate_motion(
    first: NDArray[np.uint8], second: NDArray[np.uint8], estimator: FlowEstimator
) -> FrameMotion:
    """Estimate the motion between two frames [H, W, 3] RGB, with occlusion."""
    if isinstance(estimator, FrameEstimator):
        return judge_motion(first, second, *estimator.estimate_frames(first, second))
    from fresco.flow.occlusion import estimate_with_occlusion
    from fresco.flow.tensors import to_array, to_images

    images = to_images(np.stack([first, second]))
    found = estimate_with_occlusion(images[:1], images[1:], estimator)
    masks = [mask[0].numpy() > 0 for mask in (found.forward_occlusion, found.backward_occlusion)]
    return FrameMotion(to_array(found.forward), to_array(found.backward), masks[0], masks[1])
