"""Make one frame from its two sides: values from a mix of both, gradients from one of them."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from fresco.blending.histogram import blend_histograms, mix, to_lab, to_rgb
from fresco.blending.poisson import LAB_WEIGHTS, blend_gradients, select_gradients
from fresco.flow.arrays import Flow, Map, remap, resize_flow
from fresco.settings import BlendSettings

Image = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Sides:
    """What a frame is made from; the maps have the size of the motion's grid."""

    forward: Image
    """[h, w, 3] the first keyframe carried to the frame, in the size of the keyframes."""
    backward: Image
    """[h, w, 3] the last keyframe carried to the frame."""
    chosen: Map
    """[H, W] which side is selected: share of the backward side, near 0 or 1."""
    share: Map
    """[H, W] share of the backward side in the mean of both, in 0..1."""


def _size_of(image: Image) -> tuple[int, int]:
    return image.shape[0], image.shape[1]


def warp_key(key: Image, flow: Flow) -> Image:
    """Move a keyframe to a frame; `flow` [h, w, 2] may be of another size than the keyframe.

    It is moved in one step, bicubic, so that nothing is interpolated twice.
    """
    return remap(key, resize_flow(flow, _size_of(key)), interpolation=cv2.INTER_CUBIC)


def _enlarge_map(values: Map, size: tuple[int, int]) -> Map:
    return np.asarray(cv2.resize(values, size[::-1], interpolation=cv2.INTER_LINEAR), np.float32)


def render(sides: Sides, blend: BlendSettings) -> Image:
    """Make the frame [h, w, 3] in the size of the keyframes; it is rounded only at the end."""
    size = _size_of(sides.forward)
    forward, backward = to_lab(sides.forward), to_lab(sides.backward)
    chosen = _enlarge_map(sides.chosen, size)
    share = _enlarge_map(sides.share, size) if blend.histogram else chosen
    for channel, (first, second) in enumerate(zip(forward, backward, strict=True)):
        values = (
            blend_histograms(first, second, share, chosen) if blend.histogram
            else mix(first, second, chosen)
        )
        if blend.gradient:
            gradients = select_gradients(first, second, chosen)
            values = blend_gradients(values, gradients, weight=LAB_WEIGHTS[channel])
        forward[channel] = values
    return to_rgb(forward)
