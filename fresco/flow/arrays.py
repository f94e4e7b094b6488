"""Motion between two frames as numpy arrays.

Here flow is [H, W, 2], as OpenCV keeps it; tensors of flow [B, 2, H, W] are in `warp`.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray

Flow = NDArray[np.float32]
Map = NDArray[np.float32]
Mask = NDArray[np.bool_]

RELATIVE_ERROR = 0.01
"""Share of both flows' lengths that a round trip may miss (docs/method.md, section 4)."""
ABSOLUTE_ERROR = 0.5
"""Pixels that a round trip may always miss (docs/method.md, section 4)."""
COLOUR_DIFFERENCE = 63.75
"""Mean absolute difference of colours, of 255, above which there is no match (docs/method.md,
section 4)."""
_SUM = np.ones((1, 3), np.float32)


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

    def round_to_half(self) -> FrameMotion:
        """Round the flows to half precision, as they are stored on disk."""
        forward, backward = (to_float(to_half(flow)) for flow in (self.forward, self.backward))
        return FrameMotion(forward, backward, self.forward_occlusion, self.backward_occlusion)


def to_half(values: NDArray[np.float32]) -> NDArray[np.float16]:
    """Convert to half precision: 1/32 for a flow of 64 pixels, as fine as OpenCV samples."""
    flat = np.ascontiguousarray(values).reshape(1, -1)  # OpenCV takes four channels at most
    return np.asarray(cv2.convertFp16(flat)).view(np.float16).reshape(values.shape)


def to_float(values: NDArray[np.float16]) -> NDArray[np.float32]:
    """Convert values of `to_half` to single precision."""
    flat = np.ascontiguousarray(values).view(np.int16).reshape(1, -1)
    return np.asarray(cv2.convertFp16(flat), np.float32).reshape(values.shape)


def resize_flow(flow: Flow, size: tuple[int, int]) -> Flow:
    """Resize flow to another height and width; the vectors are scaled, too."""
    height, width = flow.shape[:2]
    if (height, width) == size:
        return flow
    method = cv2.INTER_AREA if size < (height, width) else cv2.INTER_LINEAR
    scaled = np.asarray(cv2.resize(flow, size[::-1], interpolation=method), np.float32)
    # Axis by axis: numpy's loop over both of a pixel takes seven times as long.
    scaled[..., 0] *= np.float32(size[1] / width)
    scaled[..., 1] *= np.float32(size[0] / height)
    return scaled


def judge_motion(
    first: NDArray[np.uint8], second: NDArray[np.uint8], forward: Flow, backward: Flow
) -> FrameMotion:
    """Find the occlusion of a flow; where the flow is not finite it becomes 0 and occluded.

    The rule is that of `occlusion.find_occlusion`, sampled as OpenCV does, at 1/32 of a pixel.
    """
    there, back = _replace_unknown(forward), _replace_unknown(backward)
    allowed = _measure_length(there) + _measure_length(back)
    allowed = np.float32(RELATIVE_ERROR) * allowed + np.float32(ABSOLUTE_ERROR)
    masks = []
    for flow, given, other, image, matched in (
        (there, forward, backward, first, second), (back, backward, forward, second, first),
    ):
        matches = _find_matches(flow, other, allowed, image, matched)
        if flow is not given:
            matches &= np.isfinite(given).all(axis=-1)
        masks.append(~matches)
    return FrameMotion(there, back, masks[0], masks[1])


def _measure_length(flow: Flow) -> Map:
    return np.asarray(cv2.magnitude(*cv2.split(flow)), np.float32)


def _find_matches(
    flow: Flow, other: Flow, allowed: Map, image: NDArray[np.uint8], matched: NDArray[np.uint8]
) -> Mask:
    """Where the way there and back ends near its start, with similar colours; False for NaN."""
    trip = flow + remap(other, flow, border=cv2.BORDER_CONSTANT)
    moved = remap(matched, flow, border=cv2.BORDER_CONSTANT)
    # Sums above 255 are clipped, which does not matter: the limit is 191.
    colours = cv2.transform(cv2.absdiff(image, moved), _SUM)
    return (_measure_length(trip) <= allowed) & (colours <= int(3 * COLOUR_DIFFERENCE))


def _replace_unknown(flow: Flow) -> Flow:
    finite = np.isfinite(flow)
    if finite.all():
        return flow
    return np.where(finite.all(axis=-1, keepdims=True), flow, np.float32(0))


@functools.lru_cache(maxsize=4)
def pixel_grid(height: int, width: int) -> Map:
    """Position of every pixel, [H, W, 2], x then y. The array must not be changed."""
    grid = np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1).astype(np.float32)
    grid.setflags(write=False)
    return grid


def remap(
    values: NDArray, flow: Flow, *, interpolation: int = cv2.INTER_LINEAR,
    border: int = cv2.BORDER_REPLICATE,
) -> NDArray:
    """values(p + flow(p)); positions outside take the nearest border pixel.

    Args:
        values: [h, w] or [h, w, C], uint8 or float32.
        flow: [H, W, 2] in pixels; the result has its size.
        interpolation: one of OpenCV's.
        border: one of OpenCV's; BORDER_CONSTANT is 0 outside.
    """
    position = pixel_grid(*flow.shape[:2]) + flow
    return np.asarray(
        cv2.remap(values, position, cast("NDArray", None), interpolation,
                  borderMode=border)
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
    """Compose flow a to b (`near`) and b to c (`far`) to flow a to c: near(p) + far(p + near(p)).
    """
    return near + remap(far, near)
