"""Find motion paths through the tokens of a batch, and the tokens that serve as keys.

There is no loop over tokens. It works on the CPU, because MPS gives wrong results for the smallest
of whole numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fresco.flow.occlusion import BidirectionalFlow
from fresco.flow.warp import resize, resize_flow, token_grid

OCCLUDED = 0.5
"""A cell counts as occluded above this share of its centre (docs/method.md, section 4)."""


@dataclass(frozen=True, slots=True)
class Correspondence:
    """Chains of tokens through the frames of a batch; chain c starts at token c of frame 0."""

    scale: int
    """Pixels a token side covers."""
    to_first: Tensor
    """[N, HW] int64: token of frame i on chain c."""
    from_first: Tensor
    """[N, HW] int64: chain that passes through a token of frame i; inverse of `to_first`."""
    linked: Tensor
    """[HW, N, N] bool: frames j and k of chain c are joined by an unbroken motion path."""


def _find_targets(flow: Tensor, occlusion: Tensor) -> tuple[Tensor, Tensor]:
    """Token of frame i that each token of frame i + 1 comes from, and whether it can be linked."""
    rows, columns = flow.shape[-2:]
    xs = torch.arange(columns, device=flow.device) + flow[:, 0]
    ys = torch.arange(rows, device=flow.device)[:, None] + flow[:, 1]
    xs, ys = xs.round(), ys.round()  # half to even
    inside = (xs >= 0) & (xs < columns) & (ys >= 0) & (ys < rows)
    target = ys.long() * columns + xs.long()
    return target.flatten(1), (inside & (occlusion <= OCCLUDED)).flatten(1)


def _choose_winners(target: Tensor, linkable: Tensor, colours: Tensor, sources: Tensor) -> Tensor:
    """For each token g of frame i, find the linkable token of frame i + 1 nearest in colour.

    Args:
        target: [P, HW] claimed token g of each token a.
        linkable: [P, HW] bool.
        colours, sources: [P, 3, HW] of frame i + 1 and of frame i.

    Returns:
        [P, HW] index a, smallest on ties; HW where g is claimed by none.
    """
    pairs, tokens = target.shape
    claimed = torch.where(linkable, target, tokens)  # claims that do not count fall into a spare
    at = claimed.clamp(max=tokens - 1)
    matched = sources.gather(2, at[:, None].expand(-1, 3, -1))
    distance = (colours - matched).square().mean(dim=1)
    best = distance.new_full((pairs, tokens + 1), torch.inf)
    best.scatter_reduce_(1, claimed, distance, "amin")
    indices = torch.arange(tokens, device=target.device).expand(pairs, -1)
    nearest = torch.where(distance == best.gather(1, claimed), indices, tokens)
    winner = indices.new_full((pairs, tokens + 1), tokens)
    return winner.scatter_reduce_(1, claimed, nearest, "amin")[:, :tokens]


def _complete_permutations(winner: Tensor) -> Tensor:
    """Give tokens g without a winner the unused tokens a, both in ascending order."""
    pairs, tokens = winner.shape
    linked = winner < tokens
    used = linked.new_zeros(pairs, tokens + 1).scatter_(1, winner, True)[:, :tokens]
    holes = linked.byte().argsort(dim=1, stable=True)
    spare = used.byte().argsort(dim=1, stable=True)
    filled = torch.where(linked.gather(1, holes), winner.gather(1, holes), spare)
    return torch.empty_like(winner).scatter_(1, holes, filled)


def map_pairs(images: Tensor, flow: BidirectionalFlow, scale: int) -> tuple[Tensor, Tensor]:
    """Find the token of frame i + 1 that each token of frame i moves to, for pairs 0 .. N - 2.

    Args:
        images: [N, 3, H, W] in 0..255.
        flow: of the same frames.
        scale: pixels a token side covers.

    Returns:
        Permutations [N - 1, HW] and which of their entries follow the flow, [N - 1, HW] bool.
    """
    height, width = images.shape[-2:]
    pairs, size = len(images) - 1, token_grid(height, width, scale)
    backward = resize_flow(flow.backward[:pairs].float(), size)
    occluded = resize(flow.backward_occlusion[:pairs, None].float(), size)[:, 0]
    colours = resize(images.float(), size).flatten(2)
    target, linkable = _find_targets(backward, occluded)
    winner = _choose_winners(target, linkable, colours[1:], colours[:-1])
    return _complete_permutations(winner), winner < winner.shape[1]


def trace_chains(images: Tensor, flow: BidirectionalFlow, scale: int) -> Correspondence:
    """Trace the chains of temporal-guided attention along the backward flow.

    Args:
        images: [N, 3, H, W] in 0..255, on the flow's device.
        flow: of the same frames; the pair that closes the ring is not used.
        scale: pixels a token side covers.
    """
    height, width = images.shape[-2:]
    rows, columns = token_grid(height, width, scale)
    path = torch.arange(rows * columns, device=images.device)
    paths, breaks = [path], [torch.zeros_like(path)]
    if len(images) > 1:
        maps, linked = map_pairs(images, flow, scale)
        for step, kept in zip(maps, linked, strict=True):
            breaks.append((~kept)[path].long())
            path = step[path]
            paths.append(path)
    to_first = torch.stack(paths)
    chains = torch.arange(rows * columns, device=images.device).expand_as(to_first)
    from_first = torch.empty_like(to_first).scatter_(1, to_first, chains)
    stretch = torch.stack(breaks).cumsum(dim=0).T  # [HW, N]
    return Correspondence(scale, to_first, from_first, stretch[:, :, None] == stretch[:, None])


def key_mask(backward_occlusion: Tensor, scale: int) -> Tensor:
    """Find the tokens that serve as keys of cross-frame attention: those new to the batch.

    Args:
        backward_occlusion: [N, H, W], 1 = occluded.
        scale: pixels a token side covers.

    Returns:
        [N, HW] bool: all of frame 0; of frame k those without a match in frame k - 1.
    """
    height, width = backward_occlusion.shape[-2:]
    rows, columns = token_grid(height, width, scale)
    everything = backward_occlusion.new_ones(1, rows * columns, dtype=torch.bool)
    if len(backward_occlusion) == 1:
        return everything
    cells = resize(backward_occlusion[:-1, None].float(), (rows, columns))
    return torch.cat((everything, cells.flatten(1) > OCCLUDED))
