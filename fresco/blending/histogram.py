"""Histogram-preserving blend: the mean of two images without its loss of contrast.

Averaging two unlike images halves their deviation where they disagree; bringing the average back
to the deviation of one of them keeps the look (Heitz and Neyret 2018, as FRESCO uses it).
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

LabImage = NDArray[np.floating]

MIDDLE = 128.0
"""Mean that both sides are brought to before they are averaged."""
DEVIATION = 256.0 / 36.0
"""Deviation that both sides are brought to."""
FLATTEST = 1e-6
"""Deviation below which a channel counts as constant and is only shifted."""


def to_lab(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """uint8 RGB as Lab [H, W, 3] on the scale of 8-bit Lab (0..255, a and b around 128), unrounded.

    8-bit Lab itself costs up to 20 grey levels on the way back, so rounding waits to the end.
    """
    unit = image.astype(np.float32) / np.float32(255)
    lab = np.asarray(cv2.cvtColor(unit, cv2.COLOR_RGB2Lab), np.float32)
    lab[..., 0] *= np.float32(2.55)
    lab[..., 1:] += np.float32(128)
    return lab


def to_rgb(lab: LabImage) -> NDArray[np.uint8]:
    """The reverse of `to_lab`, rounded; colours outside RGB are clipped."""
    plain = lab.astype(np.float32)
    plain[..., 0] /= np.float32(2.55)
    plain[..., 1:] -= np.float32(128)
    rgb = cv2.cvtColor(plain, cv2.COLOR_Lab2RGB)
    return np.rint(np.clip(rgb, 0, 1) * np.float32(255)).astype(np.uint8)


def _measure_statistics(image: LabImage) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and deviation of every channel [C], accumulated in float64."""
    mean, deviation = cv2.meanStdDev(image)
    return np.asarray(mean, np.float64)[:, 0], np.asarray(deviation, np.float64)[:, 0]


def match_statistics(
    image: LabImage, mean: NDArray[np.floating] | float, deviation: NDArray[np.floating] | float
) -> LabImage:
    """The image with another mean and deviation per channel; constant channels stay constant."""
    own_mean, own_deviation = _measure_statistics(image)
    flat = own_deviation < FLATTEST
    gain = np.where(flat, 0.0, deviation / np.where(flat, 1.0, own_deviation))
    offset = mean - own_mean * gain
    return image * gain.astype(image.dtype) + offset.astype(image.dtype)


def blend_histograms(
    forward: LabImage, backward: LabImage, selected: LabImage, *, weights: tuple[float, float]
) -> LabImage:
    """Blend of both sides with the mean and deviation of the selected image.

    ab = (a (1 - w1) + b (1 - w2) - 128) / 0.5 + 128, a and b at mean 128 and deviation 256 / 36.

    Args:
        forward, backward, selected: Lab [H, W, 3] on the scale of `to_lab`.
        weights: (w1, w2), the error weights: the side that errs dearly counts little.
    """
    first = match_statistics(forward, MIDDLE, DEVIATION)
    second = match_statistics(backward, MIDDLE, DEVIATION)
    blend = first * (1 - weights[0]) + second * (1 - weights[1])
    return match_statistics((blend - MIDDLE) / 0.5 + MIDDLE, *_measure_statistics(selected))
