"""A mask's levels and soft edge, and the result laid over the source by it."""

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
        """The masks of all frames used, in order, at that size (width, height), with soft edge."""
        ...


BLACK, WHITE = 16, 239
"""Levels up to the one count as black, from the other on as white: codecs leave noise there."""


def read_levels(image: Image) -> Share:
    """The share of every pixel of an image [H, W, 3] RGB: black is 0, white is 1."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
    share = np.where(grey <= BLACK, np.float32(0), grey / np.float32(255))
    return np.asarray(np.where(grey >= WHITE, np.float32(1), share), np.float32)


def scale_share(share: Share, size: tuple[int, int]) -> Share:
    """The mask at `size` (width, height), linear."""
    if share.shape[::-1] == size:
        return share
    return np.asarray(cv2.resize(share, size, interpolation=cv2.INTER_LINEAR), np.float32)


def cut(share: Share) -> Share:
    """The mask without levels between: from a half on it is 1."""
    return (share >= 0.5).astype(np.float32)


def feather(share: Share, width: float) -> Share:
    """The mask with a soft edge inside: it rises to its own value over `width` pixels.

    What is 0 stays 0. The frame's border is no edge.
    """
    inside = (share > 0).astype(np.uint8)
    if width <= 0 or inside.all():
        return share
    depth = np.asarray(cv2.distanceTransform(inside, cv2.DIST_L2, 5), np.float32)
    return share * np.minimum(depth / np.float32(width + 1), np.float32(1))


def lay_over(source: AnyImage, image: AnyImage, share: Share) -> AnyImage:
    """The image where the share is 1, the source's very values where it is 0, between else.

    Args:
        source, image: [H, W, 3], both uint8 or both uint16, as is the result.
    """
    below = source.astype(np.float32)
    mixed = below + share[..., None] * (image.astype(np.float32) - below)
    return np.rint(mixed).astype(source.dtype)


def add_alpha(image: AnyImage, share: Share) -> AnyImage:
    """The image [H, W, 3] with the share as its straight alpha, [H, W, 4].

    Its colours stay where it is not seen, so that no edge darkens when it is scaled or laid over.
    """
    most = np.iinfo(image.dtype).max
    alpha = np.rint(share.clip(0, 1) * np.float32(most)).astype(image.dtype)
    return np.dstack([image, alpha])


def lift_from_black(image: AnyImage, alpha: Share) -> AnyImage:
    """The colours [H, W, 3] that, with this alpha, give the image when they are laid over black;
    the brightest there are where the image is brighter than that can be. They stay where the alpha
    is 0."""
    most = np.float32(np.iinfo(image.dtype).max)
    divisor = np.where(alpha > 0, alpha, np.float32(1))[..., None]
    return np.rint(np.minimum(image / divisor, most)).astype(image.dtype)
