"""One frame from its two sides: select, histogram blend, gradient blend."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from fresco.blending.histogram import blend_histograms, to_lab, to_rgb
from fresco.blending.poisson import blend_gradients, select_gradients
from fresco.flow.arrays import Flow, Map, remap
from fresco.settings import BlendSettings

Image = NDArray[np.uint8]
Lab = NDArray[np.float32]

HOPELESS = 1.4
"""Log of the ratio of errors above which a side is filled from the other before both are mixed:
it shows something else there, and mixing would leave a ghost."""
HOPELESS_RAMP = 0.35
"""Width of that change, in the same unit."""


@dataclass(frozen=True, slots=True)
class Sides:
    """What a frame is made from; maps at the source's working size."""

    forward: Image
    """[h, w, 3] the first key carried to the frame, at the keys' size."""
    backward: Image
    """[h, w, 3] the last key carried to the frame."""
    odds: Map
    """[H, W] log of the ratio of errors, forward over backward, of this frame alone."""
    share: Map
    """[H, W] share of the backward side in 0..1."""
    weights: tuple[float, float]
    """Weights (w1, w2) of the errors."""


def _size_of(image: Image) -> tuple[int, int]:
    return image.shape[0], image.shape[1]


def warp_key(key: Image, flow: Flow) -> Image:
    """A keyframe moved to a frame; `flow` [h, w, 2] may be of another size than the key.

    Bicubic, and from the key in one step however far it is: nothing is blurred twice.
    """
    return remap(key, enlarge_flow(flow, _size_of(key)), interpolation=cv2.INTER_CUBIC)


def enlarge_flow(flow: Flow, size: tuple[int, int]) -> Flow:
    """Flow on another grid, in that grid's pixels."""
    height, width = flow.shape[:2]
    if (height, width) == size:
        return flow
    factor = np.array([size[1] / width, size[0] / height], np.float32)
    return np.asarray(cv2.resize(flow, size[::-1], interpolation=cv2.INTER_LINEAR)) * factor


def _enlarge_map(values: Map, size: tuple[int, int]) -> Map:
    return np.asarray(cv2.resize(values, size[::-1], interpolation=cv2.INTER_LINEAR), np.float32)


def _mix(first: Lab, second: Lab, share: Map) -> Lab:
    return first + share[..., None] * (second - first)


def _ramp(values: Map) -> Map:
    return np.float32(0.5) + np.float32(0.5) * np.tanh(values / np.float32(2 * HOPELESS_RAMP))


def render(sides: Sides, blend: BlendSettings) -> Image:
    """The frame [h, w, 3] at the keys' size; rounded once, at its end."""
    size = _size_of(sides.forward)
    forward, backward = to_lab(sides.forward), to_lab(sides.backward)
    share, odds = _enlarge_map(sides.share, size), _enlarge_map(sides.odds, size)
    selected = _mix(forward, backward, share)
    values = selected
    if blend.histogram:
        first = _mix(forward, backward, _ramp(odds - HOPELESS))
        second = _mix(backward, forward, _ramp(-odds - HOPELESS))
        values = np.asarray(
            blend_histograms(first, second, selected, weights=sides.weights), np.float32
        )
    if blend.gradient:
        values = blend_gradients(values, *select_gradients(forward, backward, share))
    return to_rgb(values)
