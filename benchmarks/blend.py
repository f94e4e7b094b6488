"""Gradient blend by a cosine transform against sparse least squares, and a whole frame by size.

Prints JSON. The first part is a 512x512 frame, both ways in one run: CPU seconds (process time,
all threads), their ratio, and the difference in grey levels of the RGB that comes out. The second
is `render`, from two sides to a frame, at 512x512, 1920x1080 and 3840x2160, in a process each: CPU
nanoseconds a pixel, and peak resident MiB above what the process held with both sides read.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.plain_blend import plain_blend
from fresco.blending.histogram import blend_histograms, to_lab, to_rgb
from fresco.blending.poisson import LAB_WEIGHTS, blend_gradients, select_gradients
from fresco.propagation.render import Sides, render
from fresco.settings import BlendSettings

Result = TypeVar("Result")
Values = NDArray[np.floating]
SIDE = 512
ROUNDS = 5
SIZES = ((512, 512), (1080, 1920), (2160, 3840))
MOST_MIB = 512
"""Wanted: MiB above both sides at 3840x2160."""


def picture(seed: int, height: int = SIDE, width: int = SIDE) -> NDArray[np.uint8]:
    """A picture with detail at every scale."""
    random = np.random.default_rng(seed)
    total = np.zeros((height, width, 3), np.float32)
    for level in range(2, 9):
        coarse = random.standard_normal((2**level, 2**level, 3)).astype(np.float32)
        total += cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC) / 1.6**level
    low, high = total.min(), total.max()
    return ((total - low) / (high - low) * 255).astype(np.uint8)


def timed(work: Callable[[], Result], rounds: int) -> tuple[Result, float]:
    """Result and CPU seconds of the fastest round."""
    seconds, results = [], []
    for _ in range(rounds):
        start = time.process_time()
        results.append(work())
        seconds.append(time.process_time() - start)
    return results[-1], min(seconds)


def compare_solvers() -> dict[str, object]:
    """The gradient blend both ways."""
    forward, backward = to_lab(picture(1)), to_lab(picture(2))
    share = (cv2.GaussianBlur(picture(3)[..., 0], (0, 0), 9) > 128).astype(np.float32)
    values = [
        np.asarray(blend_histograms(first, second, np.full_like(share, 0.6), share))
        for first, second in zip(forward, backward, strict=True)
    ]

    def ours() -> Values:
        return np.stack([
            blend_gradients(
                values[channel].copy(),
                select_gradients(forward[channel], backward[channel], share), weight=weight,
            )
            for channel, weight in enumerate(LAB_WEIGHTS)
        ])

    def plain() -> Values:
        slopes: tuple[list[Values], list[Values]] = ([], [])
        for first, second in zip(forward, backward, strict=True):
            parts = list(select_gradients(first, second, share))
            slopes[0].append(np.concatenate([part.along_x for part in parts]))
            slopes[1].append(np.concatenate([part.along_y for part in parts]))
        blend, along_x, along_y = (
            np.stack(channels, axis=-1).astype(np.float64) for channels in (values, *slopes)
        )
        return np.moveaxis(plain_blend(blend, along_x, along_y, LAB_WEIGHTS), -1, 0)

    fast, fast_seconds = timed(ours, ROUNDS)
    slow, slow_seconds = timed(plain, 1)
    levels = np.abs(to_rgb(fast).astype(int) - to_rgb(slow).astype(int))
    return {
        "what": "gradient blend, 512x512, three channels",
        "ours_cpu_seconds": round(fast_seconds, 4),
        "plain_cpu_seconds": round(slow_seconds, 3),
        "ratio": round(slow_seconds / fast_seconds, 1),
        "wanted_ratio": 30,
        "largest_difference_levels": int(levels.max()),
        "mean_difference_levels": round(float(levels.mean()), 5),
        "largest_difference_lab": round(float(np.abs(fast - slow).max()), 6),
    }


def resident(name: str) -> float:
    """MiB of this process by its name in /proc."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) / 1024 for line in lines if line.startswith(f"{name}:"))


def measure_render(height: int, width: int) -> dict[str, float]:
    """Time and memory of a frame in this process, which must be a fresh one."""
    half = np.zeros((height, width), np.float32)
    half[:, width // 2:] = 1
    sides = Sides(picture(1, height, width), picture(2, height, width), half, 0.5 * half + 0.2)
    small = Sides(picture(1, 64, 64), picture(2, 64, 64), half[:64, :64], half[:64, :64])
    render(small, BlendSettings())  # what is imported and set up once
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = resident("VmRSS")
    _, seconds = timed(lambda: render(sides, BlendSettings()), 1)
    return {
        "cpu_nanoseconds_per_pixel": round(1e9 * seconds / height / width, 1),
        "peak_mib_above_sides": round(resident("VmHWM") - before),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--size", type=int, nargs=2, help="only this size, in this process")
    size = parser.parse_args().size
    cv2.setNumThreads(1)
    if size:
        print(json.dumps(measure_render(*size)))
        return
    frames = {
        f"{width}x{height}": json.loads(subprocess.run(
            [sys.executable, __file__, "--size", str(height), str(width)],
            check=True, capture_output=True, text=True,
        ).stdout)
        for height, width in SIZES
    }
    print(json.dumps(
        compare_solvers() | {"frames": frames, "wanted_mib_above_sides": MOST_MIB}, indent=1
    ))


if __name__ == "__main__":
    main()
