"""What tells the synthesis which part of a key corresponds to which part of a frame.

Weights are the official ones (PROPAGATION 4); nothing passes through a lossy format.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from fresco.flow.pairs import Flow, Mask, inside, sample

Image = NDArray[np.uint8]

COLOUR, EDGE, TEMPORAL, POSITION = 6.0, 0.5, 0.5, 2.0
"""Weights of the guides."""
STYLE = 1.0
"""Weight of the style in a patch's distance, the program's default."""
PATCH_AREA = 25
"""Pixels of a patch; the program's default is 5 x 5."""
FILL_RADIUS = 30
"""Pixels around a hole that fill it."""
FILL_SCALE = 2
"""Holes are filled at 1 / this of the size. Telea's method at full size takes 2.6 s for 7 % holes
of a 512x512 frame, more than the synthesis itself; so it takes 0.2 s, and guides of half a weight
differ by less than a grey level on average."""

_LAPLACIAN = np.array([[0, -1, 0], [-1, 4, -1], [0, -1, 0]], np.float32)


@dataclass(frozen=True, slots=True)
class Guide:
    """A pair of images: what is alike in both is to be painted alike."""

    name: str
    """colour, edge, temporal or position."""
    source: Image
    """[h, w] or [h, w, C] of the key."""
    target: Image
    """[H, W] or [H, W, C] of the frame."""
    weight: float
    """Of all its channels together."""


@dataclass(frozen=True, slots=True)
class Carried:
    """What is carried from frame to frame along the flow."""

    image: Image
    """[H, W, 3] the propagated frame."""
    position: Image
    """[H, W, 3] where the pixels lay in the key: R 255 y, G 255 x, B 0."""


def edges(image: Image) -> Image:
    """Laplacian of the grey image, [H, W], what is below 0 or above 255 cut off."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    return np.asarray(cv2.filter2D(grey, cv2.CV_8U, _LAPLACIAN), np.uint8)


def ramp(height: int, width: int) -> Image:
    """Every pixel's position as a colour, [H, W, 3]: R 255 y, G 255 x, B 0."""
    rows = np.rint(np.linspace(0, 255, height)).astype(np.uint8)
    columns = np.rint(np.linspace(0, 255, width)).astype(np.uint8)
    result = np.zeros((height, width, 3), np.uint8)
    result[..., 0] = rows[:, None]
    result[..., 1] = columns
    return result


def filled(image: Image, holes: Mask) -> Image:
    """The image with its holes filled from their surroundings (Telea 2004)."""
    if not holes.any():
        return image
    if holes.all():
        raise ValueError("nothing is known to fill the holes from")
    height, width = holes.shape
    small = (-(-width // FILL_SCALE), -(-height // FILL_SCALE))
    known = (~holes).astype(np.float32)
    # A small pixel is the mean of the known ones in it, and a hole only where there are none.
    share = _shrunk(known, small)
    colours = _shrunk(image * known[..., None], small)
    colours /= np.maximum(share, np.float32(1e-6))[..., None]
    rough = cv2.inpaint(
        np.rint(colours).clip(0, 255).astype(np.uint8), (share == 0).astype(np.uint8),
        FILL_RADIUS / FILL_SCALE, cv2.INPAINT_TELEA,
    )
    large = cv2.resize(rough, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.where(holes[..., None], large, image).astype(np.uint8)


def _shrunk(values: NDArray, size: tuple[int, int]) -> NDArray[np.float32]:
    return np.asarray(cv2.resize(values, size, interpolation=cv2.INTER_AREA), np.float32)


def carried(before: Carried, step: Flow, hidden: Mask) -> Carried:
    """Both images moved to the next frame, nearest pixel, holes filled.

    Args:
        step: [H, W, 2] flow of the next frame to the one before.
        hidden: [H, W], True = the frame before does not show the pixel.
    """
    holes = hidden | ~inside(step)
    if holes.all():
        # Nothing is known of where anything went: it stayed is as good a guess as any.
        return before
    moved = (
        filled(np.asarray(sample(image, step, interpolation=cv2.INTER_NEAREST), np.uint8), holes)
        for image in (before.image, before.position)
    )
    return Carried(*moved)


@dataclass(frozen=True, slots=True)
class KeySources:
    """The guides' sources: those of a key."""

    frame: Image
    """[H, W, 3] the source's frame of the key."""
    edge: Image
    """[H, W] its edges."""
    picture: Image
    """[H, W, 3] the key's picture."""
    position: Image
    """[H, W, 3] the ramp."""

    @classmethod
    def of(cls, frame: Image, picture: Image) -> KeySources:
        """From the source's frame of the key and its picture, of one size."""
        return cls(frame, edges(frame), picture, ramp(*frame.shape[:2]))

    def guides(self, frame: Image, moved: Carried) -> tuple[Guide, ...]:
        """All guides of a frame [H, W, 3] to which `moved` was carried."""
        return (
            Guide("colour", self.frame, frame, COLOUR),
            Guide("edge", self.edge, edges(frame), EDGE),
            Guide("temporal", self.picture, moved.image, TEMPORAL),
            Guide("position", self.position, moved.position, POSITION),
        )


def mean_distance(error: NDArray[np.float32]) -> NDArray[np.float32]:
    """Patch distances as a mean square in grey levels: the weights and the area divided out."""
    return error / np.float32(PATCH_AREA * (STYLE + COLOUR + EDGE + TEMPORAL + POSITION))
