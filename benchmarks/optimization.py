"""Feature optimisation at the largest decoder stage: `python -m benchmarks.optimization`.

Both sides do the same iterations of both losses on the same feature; statistics included in ours.
The reference (unit tokens, or a Gram matrix) is made before the measurement begins. With
`--before TREE` the optimisation of another source tree is measured in turn.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks import plain
from benchmarks.measure import SIDES, measured, side_by_side
from fresco.flow.occlusion import BidirectionalFlow
from fresco.guidance.gram import normalize_tokens
from fresco.guidance.motion import make_feature_motion
from fresco.guidance.optimization import (
    Descent,
    OptimizationTarget,
    optimize_feature,
)
from fresco.guidance.portions import split_frames

CHUNKS = 2
WEIGHT, RATE = 100.0, 0.2


def _flow(frames: int, size: int) -> BidirectionalFlow:
    """Smooth random motion of a few tokens, one tenth of it occluded."""
    forward = 3 * torch.randn(frames, 2, 1, 1) + torch.randn(frames, 2, size, size)
    occlusion = (torch.rand(2, frames, size, size) < 0.1).float()
    return BidirectionalFlow(forward, -forward, occlusion[0], occlusion[1])


def work(side: str, frames: int, channels: int, size: int, iterations: int) -> Callable[[], object]:
    """What one side does, its inputs made."""
    torch.manual_seed(0)
    feature = torch.randn(CHUNKS * frames, channels, size, size)
    source = torch.randn(CHUNKS * frames, channels, size, size)
    groups = split_frames(frames, feature[0].numel(), feature.device)
    motion = make_feature_motion(_flow(frames, size), (size, size), groups=groups)
    if side == "plain":
        reference = plain.gram(source)
        return lambda: plain.optimize(
            feature, reference, motion.flow,
            spatial_weight=WEIGHT, iterations=iterations, rate=RATE,
        )
    tokens = normalize_tokens(source).chunk(CHUNKS)

    def ours() -> torch.Tensor:
        result = torch.empty_like(feature)
        sides = zip(feature.chunk(CHUNKS), tokens, strict=True)
        for number, (chunk, reference) in enumerate(sides):
            target = OptimizationTarget(reference, motion, WEIGHT)
            rows = slice(number * frames, (number + 1) * frames)
            result[rows] = optimize_feature(chunk, target, Descent(iterations, RATE))
        return result

    return ours


def main() -> None:
    """Print the measurement as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--channels", type=int, default=640)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--iterations", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--before", type=Path, metavar="TREE", help="Another source tree.")
    parser.add_argument("--side", choices=SIDES)
    given = parser.parse_args()
    torch.set_num_threads(1)
    sizes = (given.frames, given.channels, given.size, given.iterations)
    if given.side:
        tiny = work(given.side, 2, 8, 4, 1)
        print(json.dumps(measured(work(given.side, *sizes), warm_up=tiny)))
        return
    names = ("--frames", "--channels", "--size", "--iterations")
    options = [word for pair in zip(names, map(str, sizes), strict=True) for word in pair]
    result = side_by_side("benchmarks.optimization", options, rounds=given.rounds,
                          before=given.before)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
