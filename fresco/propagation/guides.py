"""Guides: images that tell the synthesis which parts of a keyframe and of a frame correspond.

The weights are the official ones (docs/propagation.md, section 4). No image passes through a lossy
format.

The temporal guide is the stylised keyframe, moved to the frame by the motion accumulated since the
keyframe and aligned at every frame. The official tool instead moves the frame painted before by one
step and inpaints the holes. That loses a little at every step, and inpainting with radius 30 takes
longer than the synthesis (3.8 s for 11 % holes at 512x512). Measured with a drawn style, ten frames
between keyframes, 256 pixels, and an early build of the program that took one frame a start: the
mean error against the drawn frames is 4.03 grey levels instead of 5.18 (dog clip), 5.96 instead of
6.82 (boxer), 3.97 instead of 4.07 (car), 4.37 instead of 4.84 (music).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from fresco.flow.arrays import Flow, pixel_grid, remap

Image = NDArray[np.uint8]

COLOUR, EDGE, TEMPORAL, POSITION = 6.0, 0.5, 0.5, 2.0
"""Weights of the guides."""
STYLE = 1.0
"""Weight of the style in the distance of patches; the program's default."""
PATCH_AREA = 25
"""Number of pixels in a patch; the program's default is 5 x 5."""

_LAPLACIAN = np.array([[0, -1, 0], [-1, 4, -1], [0, -1, 0]], np.float32)


@dataclass(frozen=True, slots=True)
class Guide:
    """A pair of images: where they are alike, keyframe and frame should be painted alike."""

    name: str
    """colour, edge, temporal or position."""
    source: Image
    """[h, w] or [h, w, C], image of the keyframe."""
    target: Image
    """[H, W] or [H, W, C], image of the frame."""
    weight: float
    """Weight of all its channels together."""


def detect_edges(image: Image) -> Image:
    """Laplacian of the grey image, [H, W], clipped to 0..255."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    return np.asarray(cv2.filter2D(grey, cv2.CV_8U, _LAPLACIAN), np.uint8)


def encode_positions(flow: Flow) -> Image:
    """Encode where every pixel lies in the keyframe as a colour [H, W, 3]: R 255 y, G 255 x, B 0.

    Args:
        flow: [H, W, 2] to the keyframe; positions outside it are moved to its nearest border.
    """
    height, width = flow.shape[:2]
    place = pixel_grid(height, width) + flow
    x, y = (
        # Rounds, and clips to 0..255.
        cv2.addWeighted(axis, 255 / max(side - 1, 1), axis, 0, 0, dtype=cv2.CV_8U)
        for axis, side in zip(cv2.split(place), (width, height), strict=True)
    )
    return np.asarray(cv2.merge([y, x, np.zeros_like(x)]), np.uint8)


@dataclass(frozen=True, slots=True)
class KeySources:
    """The images of a keyframe that the guides compare with."""

    frame: Image
    """[H, W, 3] the source's frame of the key."""
    edge: Image
    """[H, W] its edges."""
    style: Image
    """[H, W, 3] the stylised key."""
    position: Image
    """[H, W, 3] every pixel's own position."""

    @classmethod
    def from_frame(cls, frame: Image, style: Image) -> KeySources:
        """Make them from the source's frame of the keyframe and the stylised keyframe.

        Both have the same size.
        """
        still = np.zeros((*frame.shape[:2], 2), np.float32)
        return cls(frame, detect_edges(frame), style, encode_positions(still))

    def make_guides(self, frame: Image, flow: Flow) -> tuple[Guide, ...]:
        """Make all guides of a frame [H, W, 3] whose `flow` [H, W, 2] leads to the keyframe."""
        moved = np.asarray(remap(self.style, flow, interpolation=cv2.INTER_CUBIC), np.uint8)
        return (
            Guide("colour", self.frame, frame, COLOUR),
            Guide("edge", self.edge, detect_edges(frame), EDGE),
            Guide("temporal", self.style, moved, TEMPORAL),
            Guide("position", self.position, encode_positions(flow), POSITION),
        )


def normalise_distance(
    error: NDArray[np.float32], guides: Sequence[Guide] = ()
) -> NDArray[np.float32]:
    """Convert distances of patches to mean squared grey levels.

    They are divided by the area of a patch and by the sum of all weights.

    Args:
        guides: the guides that were used; none: those of `KeySources`.
    """
    weights = [guide.weight for guide in guides] or [COLOUR, EDGE, TEMPORAL, POSITION]
    return error / np.float32(PATCH_AREA * (STYLE + sum(weights)))
