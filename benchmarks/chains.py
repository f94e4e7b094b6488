"""Token chains at 64x64 tokens, 8 frames: sorting and scattering against the loop, in one run.

Prints JSON: median seconds of both on one core, their ratio, whether the results are equal, and
the operations after which the host would wait for the device (there must be none).
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.plain_chains import plain_chains
from fresco.flow.correspondence import Correspondence, trace_chains
from fresco.flow.occlusion import BidirectionalFlow, occlusion

Result = TypeVar("Result")
FRAMES, TOKENS, SCALE = 8, 64, 8
ROUNDS, PLAIN_ROUNDS = 21, 3
WAITS = (
    "_local_scalar_dense", "item", "nonzero", "masked_select", "unique", "_unique", "is_nonzero",
    "equal", "repeat_interleave.Tensor", "lift_fresh",
)
"""Operations after which the host waits for the device: a value or a shape is read back, or a
small tensor made by the host is carried over."""


class DeviceWaits(TorchDispatchMode):
    """Notes every operation that makes the host wait for the device."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Note and go on."""
        kwargs = kwargs or {}
        name = str(func).removeprefix("aten.")
        by_mask = name.startswith("index") and any(
            isinstance(i, Tensor) and i.dtype in (torch.bool, torch.uint8)
            for arg in args if isinstance(arg, list | tuple) for i in arg
        )
        moved = name.startswith("_to_copy") and kwargs.get("device") is not None
        if by_mask or moved or any(name.startswith(op) for op in WAITS):
            self.found.append(name)
        return func(*args, **kwargs)


def scene(frames: int, tokens: int, seed: int) -> tuple[Tensor, BidirectionalFlow]:
    """Textured frames with a smooth random motion of several tokens, and its occlusion."""
    random = torch.Generator().manual_seed(seed)
    side = tokens * SCALE
    images = F.interpolate(
        torch.rand(frames, 3, side // 4, side // 4, generator=random) * 255,
        size=(side, side), mode="bilinear", align_corners=False,
    ).round()
    forward, backward = (
        F.interpolate(torch.randn(frames, 2, 6, 6, generator=random) * 24, size=(side, side),
                      mode="bicubic", align_corners=False)
        for _ in range(2)
    )
    hidden = occlusion(images, forward, backward)[1] * (
        F.interpolate(torch.randn(frames, 1, 8, 8, generator=random), size=(side, side))[:, 0] > 0
    )
    return images, BidirectionalFlow(forward, backward, hidden, hidden)


def timed(work: Callable[[], Result], rounds: int) -> tuple[Result, float]:
    """Result and median seconds."""
    seconds, results = [], []
    for _ in range(rounds):
        start = time.perf_counter()
        results.append(work())
        seconds.append(time.perf_counter() - start)
    return results[-1], statistics.median(seconds)


def equal(one: Correspondence, other: Correspondence) -> bool:
    """Whether two correspondences are the same, bit for bit."""
    return all(
        torch.equal(getattr(one, name), getattr(other, name))
        for name in ("to_first", "from_first", "linked")
    )


def main() -> None:
    """Measure and print."""
    torch.set_num_threads(1)
    images, flow = scene(FRAMES, TOKENS, seed=0)
    trace_chains(images, flow, SCALE)  # first use of every kernel
    fast, fast_seconds = timed(lambda: trace_chains(images, flow, SCALE), ROUNDS)
    slow, slow_seconds = timed(lambda: plain_chains(images, flow, SCALE), PLAIN_ROUNDS)
    with DeviceWaits() as waits:
        trace_chains(images, flow, SCALE)
    print(json.dumps({
        "what": f"chains, {TOKENS}x{TOKENS} tokens, {FRAMES} frames, one core",
        "ours_median_seconds": round(fast_seconds, 5),
        "plain_median_seconds": round(slow_seconds, 3),
        "ratio": round(slow_seconds / fast_seconds, 1),
        "wanted_ratio": 50,
        "equal": equal(fast, slow),
        "linked_share": round(float(fast.linked.float().mean()), 3),
        "waits_for_device": waits.found,
    }, indent=1))


if __name__ == "__main__":
    main()
