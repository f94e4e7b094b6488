"""Token chains written as plain loops: the slow truth of tests and the measure of benchmarks."""

from __future__ import annotations

import torch
from torch import Tensor

from fresco.flow.correspondence import OCCLUDED, Correspondence
from fresco.flow.occlusion import BidirectionalFlow
from fresco.flow.warp import resize, resize_flow, token_grid


def plain_pair_map(
    before: Tensor, after: Tensor, backward: Tensor, occluded: Tensor
) -> tuple[Tensor, Tensor]:
    """Token of the later frame that each token of the earlier one moves to, token by token.

    Args:
        before, after: [3, h, w] colours of the two frames, on the token grid.
        backward: [2, h, w] flow of the later frame's tokens, in tokens.
        occluded: [h, w] occlusion of the later frame's tokens.

    Returns:
        [hw] permutation and which entries follow the flow.
    """
    rows, columns = occluded.shape
    best = [float("inf")] * (rows * columns)
    moves: list[int | None] = [None] * (rows * columns)
    for a in range(rows * columns):
        row, column = divmod(a, columns)
        x = round((column + backward[0, row, column]).item())  # half to even
        y = round((row + backward[1, row, column]).item())
        if not (0 <= x < columns and 0 <= y < rows) or occluded[row, column] > OCCLUDED:
            continue
        distance = (after[:, row, column] - before[:, y, x]).square().mean().item()
        g = y * columns + x
        if distance < best[g]:
            best[g], moves[g] = distance, a
    used = {a for a in moves if a is not None}
    spare = iter(a for a in range(rows * columns) if a not in used)
    linked = torch.tensor([a is not None for a in moves])
    return torch.tensor([next(spare) if a is None else a for a in moves]), linked


def plain_chains(images: Tensor, flow: BidirectionalFlow, scale: int) -> Correspondence:
    """The same as `trace_chains`, with loops."""
    frames, _, height, width = images.shape
    size = token_grid(height, width, scale)
    tokens = size[0] * size[1]
    colours = resize(images, size)
    backward = resize_flow(flow.backward, size)
    occluded = resize(flow.backward_occlusion[:, None], size)[:, 0]
    to_first = torch.arange(tokens).repeat(frames, 1)
    linked = torch.ones(tokens, frames, frames, dtype=torch.bool)
    for i in range(frames - 1):
        step, kept = plain_pair_map(colours[i], colours[i + 1], backward[i], occluded[i])
        for chain in range(tokens):
            g = int(to_first[i, chain])
            to_first[i + 1, chain] = step[g]
            if not kept[g]:
                linked[chain, : i + 1, i + 1:] = False
                linked[chain, i + 1:, : i + 1] = False
    from_first = torch.empty_like(to_first)
    for i in range(frames):
        for chain in range(tokens):
            from_first[i, to_first[i, chain]] = chain
    return Correspondence(scale, to_first, from_first, linked)
