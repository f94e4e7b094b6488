"""Choose how many frames a VAE processes at once."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

PIXELS = 1 << 18
"""Pixels coded at once: one frame of 512x512; two take 1.4 to 1.8 times the memory and as long."""
LATENT_SIDE = 8
"""Pixels beside and above each other that a latent of Stable Diffusion stands for."""


def split_frames(frames: Tensor, side: int = 1) -> tuple[Tensor, ...]:
    """Split [N, C, H, W] into parts that are coded one after the other; each has a frame at least.

    Args:
        side: pixels on a side of an entry; 1 for images.
    """
    pixels = frames.shape[-1] * frames.shape[-2] * side**2
    return frames.split(max(1, PIXELS // pixels))


def code_in_parts(work: Callable[[Tensor], Tensor], frames: Tensor, side: int = 1) -> Tensor:
    """Apply `work` to [N, C, H, W], some frames at a time; see `split_frames`."""
    return torch.cat([work(part) for part in split_frames(frames, side)])
