"""Read a mask's levels, give it a soft edge, and lay the result over the source by it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
AnyImage = NDArray[np.uint8 | np.uint16]
Share = NDArray[np.float32]
"""[H, W] from 0 to 1: how much of a pixel is translated."""

class FrameMasks(Protocol):
    """A mask for every frame of a clip."""

    def read(self, size: tuple[int, int]) -> Iterator[Share]:
        """Read the masks of all frames used, in order, at (width, height), with soft edge."""
        ...


BLACK, WHITE = 16, 239
"""Levels up to the one count as black, from the other on as white: codecs leave noise there."""


def read_levels(image: Image) -> Share:
    """Convert an image [H, W, 3] RGB to a mask: black is 0, white is 1."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
    share = np.where(grey <= BLACK, np.float32(0), grey / np.float32(255))
    return np.asarray(np.where(grey >= WHITE, np.float32(1), share), np.float32)


def scale_share(share: Share, size: tuple[int, int]) -> Share:
    """Resize a mask to (width, height), linearly."""
    if share.shape[::-1] == size:
        return share
    return np.asarray(cv2.resize(share, size, interpolation=cv2.INTER_LINEAR), np.float32)


def cut(share: Share) -> Share:
    """Round a mask to 0 and 1."""
    return (share >= 0.5).astype(np.float32)


def feather(share: Share, width: float) -> Share:
    """Give a mask a soft edge inside: it rises to its own value over `width` pixels.

    What is 0 stays 0. The frame's border is not an edge.
    """
    inside = (share > 0).astype(np.uint8)
    if width <= 0 or inside.all():
        return share
    depth = np.asarray(cv2.distanceTransform(inside, cv2.DIST_L2, 5), np.float32)
    return share * np.minimum(depth / np.float32(width + 1), np.float32(1))


def lay_over(source: AnyImage, image: AnyImage, share: Share) -> AnyImage:
    """Mix two images by a mask: `image` where it is 1, exactly `source` where it is 0.

    Args:
        source, image: [H, W, 3], both uint8 or both uint16, as is the result.
    """
    below = source.astype(np.float32)
    mixed = below + share[..., None] * (image.astype(np.float32) - below)
    return np.rint(mixed).astype(source.dtype)


def add_alpha(image: AnyImage, share: Share) -> AnyImage:
    """Add a mask as straight alpha to an image [H, W, 3]; the result is [H, W, 4].

    The colours of invisible pixels are kept, so that no edge darkens when the image is scaled.
    """
    most = np.iinfo(image.dtype).max
    alpha = np.rint(share.clip(0, 1) * np.float32(most)).astype(image.dtype)
    return np.dstack([image, alpha])


def lift_from_black(image: AnyImage, alpha: Share) -> AnyImage:
    """Find the colours [H, W, 3] that give the image if they are laid over black with this alpha.

    Where no colour is bright enough, the brightest one is taken. Where the alpha is 0, the colours
    are unchanged.
    """
    most = np.float32(np.iinfo(image.dtype).max)
    divisor = np.where(alpha > 0, alpha, np.float32(1))[..., None]
    return np.rint(np.minimum(image / divisor, most)).astype(image.dtype)
