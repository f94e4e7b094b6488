"""Enlarge images to sides that an estimator accepts."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def pad_images(images: Tensor, *, multiple: int = 1, smallest: int = 1) -> Tensor:
    """Enlarge images to the right and below by repeating their last pixels.

    Args:
        images: [B, C, H, W].
        multiple: both sides become multiples of it.
        smallest: both sides become at least this.
    """
    height, width = images.shape[-2:]
    wide = -(-max(width, smallest) // multiple) * multiple
    high = -(-max(height, smallest) // multiple) * multiple
    return F.pad(images, (0, wide - width, 0, high - height), mode="replicate")
