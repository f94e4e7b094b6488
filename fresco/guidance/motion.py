"""The motion of a batch on the grid of one decoder stage.

The temporal loss is the L1 norm of a sparse linear map of the feature's tokens: each row is a pixel
minus the four pixels that it is interpolated from. The map and its adjoint (the bilinear scatter)
are both stored as weighted gathers, made once for each batch. So the gradient needs no atomic
addition, and is the same every time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from fresco.flow.occlusion import BidirectionalFlow
from fresco.flow.warp import cell_scale, resize_flow

GATHERING_DEVICES = ("cpu", "cuda")
"""Devices whose embedding_bag accepts weights; on others we gather and add the entries."""


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
        """Sort entries by row. No size depends on the values, so this does not wait for a device.
        """
        row, order = torch.sort(row, stable=True)
        first = torch.searchsorted(row, torch.arange(rows, device=row.device))
        return cls(index[order].int(), weight[order], row.int(), first.int())

    def count_rows(self, device: torch.device) -> int:
        """Number of rows that `apply` allocates on a device, its result included."""
        rows = len(self.offset)
        return rows if device.type in GATHERING_DEVICES else rows + len(self.index)

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
    """visible * (tokens here - warp(tokens there, flow)) of pairs of the ring, and its adjoint.

    Pair i is frame i and the one after it. Rows: first every second frame against the first one
    along the backward flow, then every first frame against the second one along the forward flow.
    """

    frames: slice
    """First frames of the pairs."""
    residual: WeightedGather
    """Maps tokens [(pairs + 1) * HW, C] to [2 * pairs * HW, C]. The tokens are those of the first
    frames and of the frame after the last; the latter is left out if the pairs are the whole ring.
    """
    adjoint: WeightedGather
    """The adjoint of `residual`."""


@dataclass(frozen=True, slots=True)
class FeatureMotion:
    """Flow and occlusion of a batch's ring at the size of one decoder stage."""

    flow: BidirectionalFlow
    """Resized and scaled flow; occlusion max-pooled."""
    disagreements: tuple[Disagreement, ...]
    """One for each group of pairs, in the order of the ring; none for a single frame."""


def pool_occlusion(occlusion: Tensor, size: tuple[int, int]) -> Tensor:
    """[N, H, W] -> [N, h, w]: a cell with one occluded pixel is occluded."""
    scale = cell_scale((occlusion.shape[-2], occlusion.shape[-1]), size)
    if scale is None:
        return F.adaptive_max_pool2d(occlusion[:, None], size)[:, 0]
    return F.max_pool2d(occlusion[:, None], scale, ceil_mode=True)[:, 0]


def resize_ring(flow: BidirectionalFlow, size: tuple[int, int]) -> BidirectionalFlow:
    """Resize the flow of a ring to another grid."""
    return BidirectionalFlow(
        resize_flow(flow.forward, size),
        resize_flow(flow.backward, size),
        pool_occlusion(flow.forward_occlusion, size),
        pool_occlusion(flow.backward_occlusion, size),
    )


def _find_bilinear_sources(flow: Tensor) -> tuple[Tensor, Tensor]:
    """Find the four sources of each pixel of warp(x, flow) and their weights: two [N, HW, 4].

    Pixels outside the image have the weight 0.

    Args:
        flow: [N, 2, H, W] in pixels, x then y.
    """
    height, width = flow.shape[-2:]
    x = torch.arange(width, device=flow.device) + flow[:, 0]
    y = torch.arange(height, device=flow.device)[:, None] + flow[:, 1]
    left, top = x.floor(), y.floor()
    across, down = x - left, y - top
    index, weight = [], []
    for dy, wy in ((0, 1 - down), (1, down)):
        for dx, wx in ((0, 1 - across), (1, across)):
            column, row = left + dx, top + dy
            inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
            column, row = column.clamp(0, width - 1), row.clamp(0, height - 1)
            index.append((row.long() * width + column.long()).flatten(1))
            weight.append((wx * wy * inside).flatten(1))
    return torch.stack(index, dim=-1), torch.stack(weight, dim=-1)


def _list_entries(
    flow: Tensor, occlusion: Tensor, here: Tensor, there: Tensor
) -> tuple[Tensor, Tensor]:
    """Tokens and weights of every row of one direction: two [N, HW, 5].

    Args:
        flow: [N, 2, H, W].
        occlusion: [N, H, W].
        here: [N] number of the frame whose pixels are compared.
        there: [N] number of the frame that they are compared with.
    """
    source, weight = _find_bilinear_sources(flow)
    tokens = source.shape[1]
    visible = (1 - occlusion).flatten(1)[..., None]
    own = (here[:, None] * tokens + torch.arange(tokens, device=flow.device))[..., None]
    looked_up = source + there[:, None, None] * tokens
    return torch.cat([own, looked_up], dim=-1), torch.cat([visible, -visible * weight], dim=-1)


def _make_disagreement(ring: BidirectionalFlow, frames: slice) -> Disagreement:
    first = torch.arange(frames.start, frames.stop, device=ring.forward.device)
    count, pairs, tokens = len(ring.forward), len(first), ring.forward[0, 0].numel()
    second = (first + 1) % count
    back = _list_entries(ring.backward[first], ring.backward_occlusion[first], second, first)
    ahead = _list_entries(ring.forward[first], ring.forward_occlusion[first], first, second)
    index, weight = (torch.cat(both) for both in zip(back, ahead, strict=True))
    rows = 2 * pairs * tokens
    row = torch.arange(rows, device=index.device).repeat_interleave(index.shape[-1])
    index = (index.flatten() - frames.start * tokens) % (count * tokens)
    weight, sources = weight.flatten(), min(pairs + 1, count) * tokens
    return Disagreement(
        frames,
        WeightedGather.of(row, index, weight, rows),
        WeightedGather.of(index, row, weight, sources),
    )


@torch.no_grad()
def make_feature_motion(
    flow: BidirectionalFlow, size: tuple[int, int], *, dtype: torch.dtype = torch.float32,
    groups: Sequence[slice] | None = None,
) -> FeatureMotion:
    """Make the ring's motion for a decoder stage of `size` rows and columns.

    Args:
        groups: frames that are processed together, in order; None: all.
    """
    ring = resize_ring(flow, size)
    ring = BidirectionalFlow(
        ring.forward.to(dtype), ring.backward.to(dtype),
        ring.forward_occlusion.to(dtype), ring.backward_occlusion.to(dtype),
    )
    count = len(ring.forward)
    groups = [] if count == 1 else groups or [slice(0, count)]
    return FeatureMotion(ring, tuple(_make_disagreement(ring, frames) for frames in groups))
