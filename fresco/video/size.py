"""Choose sizes of frames, and scale frames."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

MULTIPLE = 64
"""Both sides of a working frame are multiples of this, so that every level of the UNet is whole."""


def working_size(width: int, height: int, resolution: int) -> tuple[int, int]:
    """Choose (width, height) for the model: short side near `resolution`, multiples of 64.

    Each side rounds by itself, half to even, and is at least 64.
    """
    scale = Fraction(resolution, min(width, height))
    sides = (max(1, round(side * scale / MULTIPLE)) * MULTIPLE for side in (width, height))
    new_width, new_height = sides
    return new_width, new_height


def carried_size(width: int, height: int, short: int) -> tuple[int, int]:
    """Choose (width, height) with the source's proportions and this short side.

    Both sides are even, as most codecs want them, unless they are the source's own.
    """
    if short == min(width, height):
        return width, height
    scale = Fraction(short, min(width, height))
    wide, high = (max(2, 2 * round(side * scale / 2)) for side in (width, height))
    return wide, high


def scale_frame(rgb: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Scale an image to (width, height): Lanczos if its short side grows, else by area."""
    return np.asarray(_resize(rgb, size), dtype=np.uint8)


def scale_deep(rgb: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint16]:
    """Do the same as `scale_frame` in 16 bits, which keep values between those of 8 bits.

    An image that has that size already gives 257 times its values.
    """
    return np.asarray(_resize(rgb.astype(np.uint16) * 257, size), dtype=np.uint16)


def scale_levels(levels: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """Do the same as `scale_frame` for one plane [H, W] from 0 to 1."""
    return np.asarray(_resize(levels, size), np.float32).clip(0, 1)


def _resize(image: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    height, width = image.shape[:2]
    if (width, height) == size:
        return image
    grows = min(size) > min(width, height)
    return cv2.resize(image, size, interpolation=cv2.INTER_LANCZOS4 if grows else cv2.INTER_AREA)
