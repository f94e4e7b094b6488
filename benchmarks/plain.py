"""The same formulas written plainly: the slow truth of tests and the measure of benchmarks.

Optimisation through autograd with stored Gram matrices; attention with keys and values repeated
for every frame and masks spelled out.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from fresco.flow.occlusion import BidirectionalFlow
from fresco.flow.warp import warp
from fresco.guidance.optimization import ADAM_EPSILON, BETAS, TEMPORAL_WEIGHT
from fresco.guidance.ports import Projections

SHARPNESS = 0.2


def gram(feature: Tensor) -> Tensor:
    """[B, C, H, W] -> [B, HW, HW] cosine similarity of every two tokens."""
    tokens = feature.flatten(2).transpose(1, 2)
    unit = tokens / tokens.norm(dim=-1, keepdim=True)
    return unit @ unit.transpose(1, 2)


def temporal_loss(feature: Tensor, ring: BidirectionalFlow) -> Tensor:
    """L1 disagreement along the flow, chunks in rows; the ring at the feature's size."""
    chunks = len(feature) // len(ring.forward)
    following = torch.cat([chunk.roll(-1, 0) for chunk in feature.chunk(chunks)])
    forward, backward = (f.repeat(chunks, 1, 1, 1) for f in (ring.forward, ring.backward))
    seen_ahead = 1 - ring.forward_occlusion.repeat(chunks, 1, 1)[:, None]
    seen_back = 1 - ring.backward_occlusion.repeat(chunks, 1, 1)[:, None]
    ahead = (following - warp(feature, backward)).abs() * seen_back
    back = (feature - warp(following, forward)).abs() * seen_ahead
    return TEMPORAL_WEIGHT * (ahead + back).mean()


def optimize(
    feature: Tensor, reference_gram: Tensor | None, ring: BidirectionalFlow | None,
    *, spatial_weight: float, iterations: int, rate: float,
    on_loss: Callable[[float], None] | None = None,
) -> Tensor:
    """Feature optimisation of all chunks at once, before the statistics are restored."""
    value = torch.nn.Parameter(feature.clone())
    adam = torch.optim.Adam([value], lr=rate, betas=BETAS, eps=ADAM_EPSILON)
    for _ in range(iterations):
        adam.zero_grad()
        loss = value.new_zeros(())
        if ring is not None:
            loss = loss + temporal_loss(value, ring)
        if reference_gram is not None:
            loss = loss + spatial_weight * (gram(value) - reference_gram).abs().mean()
        loss.backward()
        if on_loss is not None:
            on_loss(float(loss.detach()))
        adam.step()
    return value.detach()


def _heads(x: Tensor, heads: int) -> Tensor:
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def attention(
    x: Tensor, project: Projections, *, key_mask: Tensor, recorded: Tensor,
    to_first: Tensor, from_first: Tensor, linked: Tensor,
) -> Tensor:
    """All three attentions over all chunks at once, [rows, T, C].

    Args:
        key_mask: [N, T] bool.
        recorded: [rows, T, C].
        to_first, from_first: [N, T].
        linked: [T, N, N] bool.
    """
    frames, heads = len(key_mask), project.heads
    chunks = len(x) // frames
    raw_query, raw_key, value = project.query(x), project.key(x), project.value(x)

    def shared(y: Tensor) -> Tensor:
        picked = y.unflatten(0, (chunks, frames))[:, key_mask]  # [chunks, M, D]
        return picked.repeat_interleave(frames, dim=0)

    query, key, value = (_heads(y, heads) for y in (raw_query, shared(raw_key), shared(value)))
    source = _heads(project.query(recorded), heads), _heads(project.key(recorded), heads)
    query = F.scaled_dot_product_attention(source[0], source[1] * SHARPNESS, query)
    attended = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)

    def along(y: Tensor) -> Tensor:
        index = to_first.repeat(chunks, 1)[..., None].expand_as(y)
        chains = y.gather(1, index).unflatten(0, (chunks, frames))
        return _heads(chains.transpose(1, 2).flatten(0, 1), heads)  # [chunks * T, heads, N, d]

    mask = linked.repeat(chunks, 1, 1)[:, None].expand(-1, heads, -1, -1).contiguous()
    result = F.scaled_dot_product_attention(
        along(raw_query), along(raw_key) * SHARPNESS, along(attended), attn_mask=mask
    )
    result = result.transpose(1, 2).flatten(2).unflatten(0, (chunks, -1)).transpose(1, 2)
    back = from_first.repeat(chunks, 1)[..., None].expand_as(attended)
    return project.output(result.flatten(0, 1).gather(1, back))
