"""Background smoothing: blend each frame's background with the previous one along the flow."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fresco.flow.occlusion import BidirectionalFlow
from fresco.flow.warp import resize, warp

OCCLUSION_REACH = 13
"""Side of the box an occlusion is grown by at image scale (docs/method.md, section 8)."""


def grow(mask: Tensor, side: int) -> Tensor:
    """Sum over a box of `side` pixels, clamped to 0..1, borders repeated; [N, H, W]."""
    padded = F.pad(mask[:, None], (side // 2,) * 4, mode="replicate")
    return (F.avg_pool2d(padded, side, stride=1) * side**2).clamp(0, 1)[:, 0]


def grow_occlusions(flow: BidirectionalFlow) -> BidirectionalFlow:
    """Grow the occlusions of a ring at image scale."""
    return BidirectionalFlow(
        flow.forward, flow.backward,
        grow(flow.forward_occlusion, OCCLUSION_REACH),
        grow(flow.backward_occlusion, OCCLUSION_REACH),
    )


@torch.no_grad()
def smooth_background(
    x: Tensor, ring: BidirectionalFlow, saliency: Tensor, *, fixed: int = 0
) -> Tensor:
    """Blend each frame's background with that of the frame before, warped to it.

    The last frame is then also blended with the first one.

    Args:
        x: [N, C, H, W] one chunk; float32 inside, the same dtype out.
        ring: flow and occlusion at H x W.
        saliency: [N, 1, h, w], 1 = background.
        fixed: number of first frames that stay unchanged.
    """
    frames = len(x)
    background = resize(saliency.float(), (x.shape[-2], x.shape[-1]))
    result = x.float().clone()
    steps = [(i, i + 1, ring.backward[i], ring.backward_occlusion[i]) for i in range(frames - 1)]
    if frames > 1:
        steps.append((0, frames - 1, ring.forward[-1], ring.forward_occlusion[-1]))
    for source, target, flow, occlusion in steps:
        if target < fixed:
            continue
        field = flow[None]
        reached = warp(background[source, None], field)[0]
        share = (1 - occlusion) * background[target] * reached  # [1, H, W]
        result[target].lerp_(warp(result[source, None], field)[0], share.expand_as(x[target]))
    return result.to(x.dtype)
