"""Gradient blend of a 512x512 frame: cosine transform against sparse least squares, in one run.

Prints JSON: CPU seconds of both (process time, all threads), their ratio, and the difference in
grey levels of the RGB that comes out.
"""

from __future__ import annotations

import json
import os
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

Result = TypeVar("Result")
SIZE = 512
ROUNDS = 5


def picture(seed: int) -> NDArray[np.uint8]:
    """A picture with detail at every scale."""
    random = np.random.default_rng(seed)
    total = np.zeros((SIZE, SIZE, 3), np.float32)
    for level in range(2, 9):
        coarse = random.standard_normal((2**level, 2**level, 3)).astype(np.float32)
        total += cv2.resize(coarse, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC) / 1.6**level
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


def main() -> None:
    """Measure and print."""
    cv2.setNumThreads(1)
    forward, backward = picture(1), picture(2)
    mask = cv2.GaussianBlur(picture(3)[..., 0], (0, 0), 9) > 128
    selected = np.where(mask[..., None], backward, forward)
    lab = [to_lab(image) for image in (forward, backward, selected)]
    blend = blend_histograms(*lab, weights=(0.4, 0.6))
    share = mask.astype(np.float32)

    def ours() -> NDArray[np.floating]:
        return blend_gradients(blend, *select_gradients(lab[0], lab[1], share))

    def plain() -> NDArray[np.floating]:
        wide = [image.astype(np.float64) for image in lab[:2]]
        slopes = select_gradients(wide[0], wide[1], share)
        return plain_blend(blend.astype(np.float64), *slopes, LAB_WEIGHTS)

    fast, fast_seconds = timed(ours, ROUNDS)
    slow, slow_seconds = timed(plain, 1)
    levels = np.abs(to_rgb(fast).astype(int) - to_rgb(slow).astype(int))
    print(json.dumps({
        "what": "gradient blend, 512x512, three channels",
        "ours_cpu_seconds": round(fast_seconds, 4),
        "plain_cpu_seconds": round(slow_seconds, 3),
        "ratio": round(slow_seconds / fast_seconds, 1),
        "wanted_ratio": 30,
        "largest_difference_levels": int(levels.max()),
        "mean_difference_levels": round(float(levels.mean()), 5),
        "largest_difference_lab": round(float(np.abs(fast - slow).max()), 6),
    }, indent=1))


if __name__ == "__main__":
    main()
