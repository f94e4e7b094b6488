"""Motion between two frames as arrays, and what is done with it outside a model.

Here flow is [H, W, 2], as OpenCV keeps it; tensors of flow [B, 2, H, W] are in `warp`.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from fresco.flow.occlusion import estimate_with_occlusion, to_images

if TYPE_CHECKING:
    from fresco.flow.interface import FlowEstimator

Flow = NDArray[np.float32]
Map = NDArray[np.float32]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class FrameMotion:
    """Motion between two frames in both directions."""

    forward: Flow
    """[H, W, 2] pixels, x then y: first frame to second."""
    backward: Flow
    """[H, W, 2] pixels, x then y: second frame to first."""
    forward_occlusion: Mask
    """[H, W], True = the first frame's pixel has no match in the second."""
    backward_occlusion: Mask
    """[H, W], True = the second frame's pixel has no match in the first."""


def estimate_motion(
    first: NDArray[np.uint8], second: NDArray[np.uint8], estimator: FlowEstimator
) -> FrameMotion:
    """Motion between two frames [H, W, 3] RGB, with occlusion (docs/method.md, section 4)."""
    images = to_images(np.stack([first, second]))
    found = estimate_with_occlusion(images[:1], images[1:], estimator)
    flows = [
        np.ascontiguousarray(flow[0].float().permute(1, 2, 0).numpy())
        for flow in (found.forward, found.backward)
    ]
    masks = [
        mask[0].numpy() > 0 for mask in (found.forward_occlusion, found.backward_occlusion)
    ]
    return FrameMotion(flows[0], flows[1], masks[0], masks[1])


@functools.lru_cache(maxsize=4)
def pixel_grid(height: int, width: int) -> Map:
    """Position of every pixel, [H, W, 2], x then y. Not to be written to."""
    grid = np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1).astype(np.float32)
    grid.setflags(write=False)
    return grid


def remap(
    values: NDArray, flow: Flow, *, interpolation: int = cv2.INTER_LINEAR
) -> NDArray:
    """values(p + flow(p)); positions outside take the nearest border pixel.

    Args:
        values: [h, w] or [h, w, C], uint8 or float32.
        flow: [H, W, 2] in pixels; the result has its size.
        interpolation: one of OpenCV's.
    """
    position = pixel_grid(*flow.shape[:2]) + flow
    return np.asarray(
        cv2.remap(values, position, cast("NDArray", None), interpolation,
                  borderMode=cv2.BORDER_REPLICATE)
    )


def find_inside(flow: Flow, *, margin: float = 0.5) -> Mask:
    """Where p + flow(p) lies in the frame, [H, W]; `margin` pixels beyond still count."""
    height, width = flow.shape[:2]
    position = pixel_grid(height, width) + flow
    x, y = position[..., 0], position[..., 1]
    return (
        (x >= -margin) & (y >= -margin) & (x <= width - 1 + margin) & (y <= height - 1 + margin)
    )


def compose(near: Flow, far: Flow) -> Flow:
    """Flow a to c from flow a to b (`near`) and b to c (`far`): near(p) + far(p + near(p))."""
    return near + remap(far, near)
