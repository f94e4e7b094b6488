"""The motion of a batch on the grid of one decoder stage.

The temporal loss is the L1 norm of a sparse linear map of the feature's tokens: every row holds
a pixel and minus the four pixels it is interpolated from. The map and its adjoint (the bilinear
scatter) are both stored as weighted gathers, made once a batch, so that the gradient needs no
atomic addition and comes out the same every time.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from fresco.flow.occlusion import BidirectionalFlow
from fresco.flow.warp import cell_scale, resize_flow

GATHERING_DEVICES = ("cpu", "cuda")
"""Devices whose embedding_bag takes weights; others gather and add entry by entry."""


@dataclass(frozen=True, slots=True)
class WeightedGather:
    """Rows that are weighted sums of tokens: a sparse matrix, sorted by row."""

    index: Tensor
    """[E] int32 token of each entry (a quarter of the time of int64 on CPUs)."""
    weight: Tensor
    """[E] weight of each entry."""
    row: Tensor
    """[E] int32 row of each entry, ascending."""
    offset: Tensor
    """[R] int32 first entry of each row."""

    @classmethod
    def of(cls, row: Tensor, index: Tensor, weight: Tensor, rows: int) -> WeightedGather:
        """Sort entries by row; no size depends on the values, so nothing waits for a device."""
        row, order = torch.sort(row, stable=True)
        first = torch.searchsorted(row, torch.arange(rows, device=row.device))
        return cls(index[order].int(), weight[order], row.int(), first.int())

    def apply(self, tokens: Tensor) -> Tensor:
        """[T, C] -> [R, C]."""
        if tokens.device.type in GATHERING_DEVICES:
            return F.embedding_bag(
                self.index, tokens, self.offset, mode="sum", per_sample_weights=self.weight
            )
        entries = tokens.index_select(0, self.index).mul_(self.weight[:, None])
        result = tokens.new_zeros(len(self.offset), tokens.shape[1])
        return result.index_add_(0, self.row, entries)


@dataclass(frozen=True, slots=True)
class Disagreement:
    """visible * (tokens here - warp(tokens there, flow)), and its adjoint."""

    here: int
    """Frame whose pixels are explained."""
    there: int
    """Frame they are looked up in."""
    visible: Tensor
    """[HW, 1] 1 - occlusion."""
    residual: WeightedGather
    """All tokens of the batch [N * HW, C] -> [HW, C]."""
    scatter: WeightedGather
    """Adjoint of -visible * warp: [HW, C] here -> [HW, C] there."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two neighbours of the ring, i and i + 1 mod N."""

    first: int
    """Frame i."""
    second: int
    """Frame i + 1 mod N."""
    back: Disagreement
    """c[i+1] against frame i along the backward flow."""
    ahead: Disagreement
    """c[i] against frame i + 1 along the forward flow."""


@dataclass(frozen=True, slots=True)
class FeatureMotion:
    """Flow and occlusion of a batch's ring at the size of one decoder stage."""

    flow: BidirectionalFlow
    """Resized and scaled flow; occlusion max-pooled."""
    pairs: tuple[Pair, ...]
    """One a pair of the ring; empty for a single frame."""


def pool_occlusion(occlusion: Tensor, size: tuple[int, int]) -> Tensor:
    """[N, H, W] -> [N, h, w]: a cell with one occluded pixel is occluded."""
    scale = cell_scale((occlusion.shape[-2], occlusion.shape[-1]), size)
    if scale is None:
        return F.adaptive_max_pool2d(occlusion[:, None], size)[:, 0]
    return F.max_pool2d(occlusion[:, None], scale, ceil_mode=True)[:, 0]


def resize_ring(flow: BidirectionalFlow, size: tuple[int, int]) -> BidirectionalFlow:
    """The flow of a ring on another grid."""
    return BidirectionalFlow(
        resize_flow(flow.forward, size),
        resize_flow(flow.backward, size),
        pool_occlusion(flow.forward_occlusion, size),
        pool_occlusion(flow.backward_occlusion, size),
    )


def _find_bilinear_sources(flow: Tensor) -> tuple[Tensor, Tensor]:
    """Sources and weights of warp(x, flow): two [4, HW]; outside weighs nothing.

    Args:
        flow: [2, H, W] in pixels, x then y.
    """
    height, width = flow.shape[-2:]
    x = torch.arange(width, device=flow.device) + flow[0]
    y = torch.arange(height, device=flow.device)[:, None] + flow[1]
    left, top = x.floor(), y.floor()
    across, down = x - left, y - top
    index, weight = [], []
    for dy, wy in ((0, 1 - down), (1, down)):
        for dx, wx in ((0, 1 - across), (1, across)):
            column, row = left + dx, top + dy
            inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
            column, row = column.clamp(0, width - 1), row.clamp(0, height - 1)
            index.append((row.long() * width + column.long()).flatten())
            weight.append((wx * wy * inside).flatten())
    return torch.stack(index), torch.stack(weight)


def _make_disagreement(flow: Tensor, occlusion: Tensor, here: int, there: int) -> Disagreement:
    """Of one direction of a pair; flow [2, H, W], occlusion [H, W]."""
    source, weight = _find_bilinear_sources(flow)
    visible = (1 - occlusion).flatten()
    pixel = torch.arange(len(visible), device=flow.device)
    pull = (-visible * weight).flatten()  # of the four neighbours
    looked_up = source.flatten() + there * len(pixel)
    residual = WeightedGather.of(
        pixel.repeat(5), torch.cat([pixel + here * len(pixel), looked_up]),
        torch.cat([visible, pull]), len(pixel),
    )
    scatter = WeightedGather.of(source.flatten(), pixel.repeat(4), pull, len(pixel))
    return Disagreement(here, there, visible[:, None], residual, scatter)


def _make_pair(ring: BidirectionalFlow, first: int, second: int) -> Pair:
    back = _make_disagreement(ring.backward[first], ring.backward_occlusion[first], second, first)
    ahead = _make_disagreement(ring.forward[first], ring.forward_occlusion[first], first, second)
    return Pair(first, second, back, ahead)


@torch.no_grad()
def make_feature_motion(
    flow: BidirectionalFlow, size: tuple[int, int], *, dtype: torch.dtype = torch.float32
) -> FeatureMotion:
    """The ring's motion at a decoder stage of `size` rows and columns."""
    ring = resize_ring(flow, size)
    frames = len(ring.forward)
    ring = BidirectionalFlow(
        ring.forward.to(dtype), ring.backward.to(dtype),
        ring.forward_occlusion.to(dtype), ring.backward_occlusion.to(dtype),
    )
    first = range(frames if frames > 1 else 0)
    return FeatureMotion(ring, tuple(_make_pair(ring, i, (i + 1) % frames) for i in first))
