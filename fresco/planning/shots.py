"""Find scene cuts. A run is a list of shots, and nothing is shared across a cut.

The score is that of the usual content detector: how far hue, saturation and value move, on average,
from one frame to the next. Three things differ. Hue is compared around its circle and weighted by
saturation, because the hue of grey is noise. A cut must have a higher score than the frames around
it, so fast motion at a low rate is not a cut. A flash, after which the image is as before, is not a
cut either.

PySceneDetect is not used: it brings further packages, needs a particular OpenCV, and reads the
video itself.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

_LONG_SIDE = 256
"""Frames are compared at this size: detail that moves a little must not count."""

_FLASH_FRAMES = 4
"""Longest flash in frames that is distinguished from a cut."""

_LEAST_JUMP = 10.0
"""Below this no usual threshold finds a cut, so flashes need not be looked for."""

_SAME_SHARE = 0.5
"""An image has returned to an earlier one if their distance is less than this share of the jump."""

_SCALE = 1.35
"""Brings the score to the scale on which 27 is the customary threshold: measured on five cuts."""

_REACH = 3
"""Frames on each side that a cut must stand out from."""

_STANDS_OUT = 2.0
"""A cut's score over the median of its neighbours'. Measured: cuts 3.5 to 12, a boxer up to 1.5."""


@dataclass(frozen=True, slots=True)
class Shot:
    """The frames between two cuts."""

    first: int
    """Number of the first frame."""
    last: int
    """Number of the last frame, included."""


def _shrink_to_hsv(rgb: NDArray[np.uint8]) -> NDArray[np.int16]:
    """Convert to [h, w, 3] hue of 0..179, saturation and value of 0..255, at most 256 pixels long.
    """
    height, width = rgb.shape[:2]
    shrink = min(1.0, _LONG_SIDE / max(height, width))
    size = (max(1, round(width * shrink)), max(1, round(height * shrink)))
    small = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)
    return cv2.cvtColor(small, cv2.COLOR_RGB2HSV).astype(np.int16)


def _measure_distance(a: NDArray[np.int16], b: NDArray[np.int16]) -> float:
    """Mean change of hue, saturation and value, each of 0..255, times `_SCALE`."""
    change = np.abs(a - b)
    turn = np.minimum(change[..., 0], 180 - change[..., 0]) * (255 / 90)
    colourful = np.minimum(a[..., 1], b[..., 1]) / 255
    parts = ((turn * colourful).mean(), change[..., 1].mean(), change[..., 2].mean())
    return _SCALE * float(sum(parts)) / 3


class CutScore:
    """Computes the change of content from frame to frame, with a few small images in memory."""

    def __init__(self) -> None:
        self._past: deque[NDArray[np.int16]] = deque(maxlen=_FLASH_FRAMES + 1)

    def update(self, rgb: NDArray[np.uint8]) -> float:
        """The score of the next frame: its distance from the one before, 0 for the first.

        It is negative if the image jumps back to that of at most five frames ago: the end of a
        flash. `split_shots` takes neither its end nor its beginning for a cut.
        """
        image = _shrink_to_hsv(rgb)
        earlier = list(self._past)
        self._past.append(image)
        if not earlier:
            return 0.0
        jump = _measure_distance(earlier[-1], image)
        if jump < _LEAST_JUMP:
            return jump
        before_flash = earlier[:-1]
        returned = any(_measure_distance(old, image) < _SAME_SHARE * jump for old in before_flash)
        return -jump if returned else jump


def _stands_out(sizes: NDArray[np.float64], index: int) -> bool:
    around = np.r_[sizes[max(1, index - _REACH) : index], sizes[index + 1 : index + 1 + _REACH]]
    return not around.size or bool(sizes[index] >= _STANDS_OUT * np.median(around))


def _find_cuts(scores: Sequence[float], threshold: float) -> list[int]:
    """List the numbers of frames that begin a new shot."""
    sizes = np.abs(np.asarray(scores, dtype=np.float64))
    cuts: list[int] = []
    for index in range(1, len(scores)):
        if sizes[index] < threshold:
            continue
        if scores[index] < 0:
            # The flash that ends here began at the last jump: that one was not a cut.
            if cuts and index - cuts[-1] <= _FLASH_FRAMES:
                cuts.pop()
        elif _stands_out(sizes, index):
            cuts.append(index)
    return cuts


def split_shots(
    scores: Sequence[float], threshold: float, min_length: int
) -> tuple[Shot, ...]:
    """Make the shots from the scores of `CutScore`, one for each frame.

    Of cuts that are nearer than `min_length` frames to each other or to an end, only the strongest
    is used.
    """
    count = len(scores)
    chosen: list[int] = []
    for cut in sorted(_find_cuts(scores, threshold), key=lambda index: (-scores[index], index)):
        if all(abs(cut - other) >= min_length for other in (0, count, *chosen)):
            chosen.append(cut)
    starts = [0, *sorted(chosen), count]
    return tuple(Shot(a, b - 1) for a, b in pairwise(starts) if b > a)
