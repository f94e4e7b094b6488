"""Histogram-preserving blend in Lab: the mean of two images, without its loss of contrast.

The mean of two different images has less contrast than either of them. So its mean and standard
deviation are set to those of an image that was not averaged, as in Heitz and Neyret (2018). Large
images are processed in bands of rows and channel by channel, to save memory.
"""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.floating]
"""One channel of an image, [H, W]."""

FLATTEST = 1e-6
"""Standard deviation below which a channel counts as constant and is only shifted."""
BAND = 64
"""Rows processed at once where a whole image would need much memory."""


def list_bands(rows: int) -> Iterator[slice]:
    """Yield all rows in bands."""
    for top in range(0, rows, BAND):
        yield slice(top, min(top + BAND, rows))


def to_lab(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Convert uint8 RGB [H, W, 3] to Lab [3, H, W] on the scale of 8-bit Lab, unrounded.

    The scale is 0..255, with a and b around 128. It is not rounded, because 8-bit Lab loses up to
    20 grey levels on the way back to RGB.
    """
    planes = np.empty((3, *image.shape[:2]), np.float32)
    for rows in list_bands(image.shape[0]):
        lab = cv2.cvtColor(image[rows].astype(np.float32) / np.float32(255), cv2.COLOR_RGB2Lab)
        np.multiply(lab[..., 0], np.float32(2.55), out=planes[0, rows])
        for channel in (1, 2):
            np.add(lab[..., channel], np.float32(128), out=planes[channel, rows])
    return planes


def to_rgb(lab: NDArray[np.floating]) -> NDArray[np.uint8]:
    """The reverse of `to_lab`, rounded; colours outside RGB are clipped."""
    image = np.empty((*lab.shape[1:], 3), np.uint8)
    for rows in list_bands(image.shape[0]):
        plain = np.stack([
            lab[0, rows] / np.float32(2.55), *(lab[1:, rows] - np.float32(128))
        ], axis=-1).astype(np.float32)
        rgb = cv2.cvtColor(plain, cv2.COLOR_Lab2RGB)
        image[rows] = np.rint(np.clip(rgb, 0, 1) * np.float32(255))
    return image


def measure_statistics(plane: Plane) -> tuple[float, float]:
    """Mean and standard deviation, accumulated in float64."""
    mean, deviation = cv2.meanStdDev(plane)
    return float(mean[0, 0]), float(deviation[0, 0])


def match_statistics(plane: Plane, mean: float, deviation: float) -> Plane:
    """Give the plane another mean and standard deviation, in place; a constant one is shifted."""
    own_mean, own_deviation = measure_statistics(plane)
    gain = deviation / own_deviation if own_deviation >= FLATTEST else 0.0
    plane *= plane.dtype.type(gain)
    plane += plane.dtype.type(mean - own_mean * gain)
    return plane


def mix(forward: Plane, backward: Plane, share: Plane) -> Plane:
    """forward + share (backward - forward)."""
    result = backward - forward
    result *= share
    result += forward
    return result


def blend_histograms(forward: Plane, backward: Plane, share: Plane, chosen: Plane) -> Plane:
    """Mix both sides; give the mix the mean and standard deviation of the selected image.

    Args:
        forward, backward: a channel of each side, [H, W].
        share: share of the backward side in the mix, in 0..1.
        chosen: which side is selected: share of the backward side, near 0 or 1.
    """
    wanted = measure_statistics(mix(forward, backward, chosen))
    return match_statistics(mix(forward, backward, share), *wanted)
