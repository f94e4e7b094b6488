"""Pass the latents of the anchors from batch to batch, on the CPU."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fresco.guidance.ports import BatchCarry


def pick_ends(latents: Tensor) -> Tensor:
    """Copy the first and the last frame's latent, [2, C, h, w]."""
    return torch.stack((latents[0], latents[-1])).detach()


def make_carry(record: Sequence[Tensor]) -> BatchCarry:
    """Make the latents for the next batch, and copy them to the CPU at once.

    Args:
        record: what `pick_ends` gave at every model call.
    """
    return BatchCarry(tuple(pair.clone() for pair in torch.stack(tuple(record)).cpu()))


def send_carry(carry: BatchCarry, like: Tensor) -> Tensor:
    """Stack the latents of every model call, [calls, 2, C, h, w], with device and dtype of `like`.
    """
    return torch.stack(carry.latents).to(like)
