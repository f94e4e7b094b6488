"""Guided self-attention, all parts, at the finest stage: `python -m benchmarks.attention`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks import plain
from benchmarks.measure import SIDES, measured, side_by_side
from fresco.flow.correspondence import Correspondence
from fresco.flow.occlusion import BidirectionalFlow
from fresco.guidance.batch import BatchGuidance
from fresco.guidance.guide import FrescoGuide
from fresco.guidance.ports import Rows, Site, Step
from fresco.settings import GuidanceSettings

CHUNKS = 2
NEW_TOKENS = 0.1
"""Share of a frame's tokens that the frame before does not show."""
MODEL_SIGMAS = tuple(torch.linspace(0.03, 14.6, 1000).tolist())


class Layer:
    """Random linear maps of one attention layer."""

    def __init__(self, channels: int, heads: int) -> None:
        self.heads = heads
        self.query, self.key, self.value, self.output = (
            nn.Linear(channels, channels, bias=False).requires_grad_(False) for _ in range(4)
        )


def _paths(frames: int, tokens: int) -> Correspondence:
    to_first = torch.stack([torch.randperm(tokens) for _ in range(frames)])
    linked = torch.rand(tokens, frames, frames) < 0.8
    linked |= linked.transpose(1, 2) | torch.eye(frames, dtype=torch.bool)
    return Correspondence(8, to_first, to_first.argsort(dim=1), linked)


def work(side: str, frames: int, size: int, heads: int, width: int) -> Callable[[], Tensor]:
    """What one side does, its inputs made."""
    torch.manual_seed(0)
    tokens, channels = size * size, heads * width
    layer = Layer(channels, heads)
    x, recorded = (torch.randn(CHUNKS * frames, tokens, channels) for _ in range(2))
    mask = torch.rand(frames, tokens) < NEW_TOKENS
    mask[0] = True
    paths = _paths(frames, tokens)
    if side == "plain":
        return lambda: plain.attention(
            x, layer, key_mask=mask, recorded=recorded, to_first=paths.to_first,
            from_first=paths.from_first, linked=paths.linked,
        )
    still = torch.zeros(frames, 2, 8 * size, 8 * size)
    flow = BidirectionalFlow(still, still, still[:, 0], still[:, 0])
    batch = BatchGuidance(
        flow, {tokens: mask}, {tokens: paths}, None, (8 * size, 8 * size), torch.device("cpu")
    )
    guide = FrescoGuide(batch, GuidanceSettings(), MODEL_SIGMAS)
    site, rows = Site(3, 5), Rows(frames, ("negative", "positive"))
    with guide.capturing():
        guide.self_attention(site, recorded, layer, rows)
    guide.begin([MODEL_SIGMAS[-1]])
    guide.step(Step(0, 1, MODEL_SIGMAS[-1]))

    def ours() -> Tensor:
        result = guide.self_attention(site, x, layer, rows)
        assert result is not None, "all parts are on"
        return result

    return ours


def main() -> None:
    """Print the measurement as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--heads", type=int, default=8)
    parser.add_argument("--width", type=int, default=40, help="channels of a head")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--side", choices=SIDES)
    given = parser.parse_args()
    torch.set_num_threads(1)
    sizes = (given.frames, given.size, given.heads, given.width)
    if given.side:
        with torch.no_grad():
            tiny = work(given.side, 2, 4, given.heads, given.width)
            print(json.dumps(measured(work(given.side, *sizes), warm_up=tiny)))
        return
    names = ("--frames", "--size", "--heads", "--width")
    options = [word for pair in zip(names, map(str, sizes), strict=True) for word in pair]
    result = side_by_side("benchmarks.attention", options, rounds=given.rounds)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
