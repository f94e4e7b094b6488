"""Tracks, guides, blending of one frame at several sizes: time and memory per pixel.

Prints JSON: CPU milliseconds and MiB beyond what was there before, for a megapixel of each part.
Each size is measured in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.measure import measured
from fresco.flow.arrays import resize_flow
from fresco.flow.dis import DisEstimator
from fresco.flow.motion import estimate_motion
from fresco.propagation.grid import choose_grid, fit_image, shrink_motion
from fresco.propagation.guides import KeySources
from fresco.propagation.render import Sides, render
from fresco.propagation.tracks import KeyFrame, Track, advance_track
from fresco.settings import BlendSettings

SIZES = ((512, 512), (1920, 1080), (3840, 2160))
"""Widths and heights."""
MEGA = 1e6


def draw(width: int, height: int) -> NDArray[np.uint8]:
    """Noise with features of some pixels."""
    noise = np.random.default_rng(0).integers(0, 256, (height // 4 + 1, width // 4 + 1, 3))
    large = cv2.resize(noise.astype(np.uint8), (width, height), interpolation=cv2.INTER_CUBIC)
    return np.asarray(large, np.uint8)


def list_parts(width: int, height: int) -> dict[str, Callable[[], object]]:
    """What is done for a frame, by name."""
    key = draw(width, height)
    frame = np.asarray(np.roll(key, 2, axis=1), np.uint8)
    pair = estimate_motion(key, frame, DisEstimator())
    grid = choose_grid((height, width))
    small = shrink_motion(pair, grid)
    moved, still = KeyFrame(fit_image(key, grid), guides=True), Track.start(*grid)
    sources = KeySources.from_frame(key, key[::-1].copy())
    map_ = np.zeros((height, width), np.float32)
    sides = Sides(key, frame, map_, map_ + np.float32(0.5))
    return {
        "motion": lambda: estimate_motion(key, frame, DisEstimator()),
        "track": lambda: advance_track(
            still, small.backward, small.backward_occlusion, frame=fit_image(frame, grid),
            key=moved, estimator=None,
        ),
        "guides": lambda: sources.make_guides(
            frame, resize_flow(small.backward, (height, width))
        ),
        "blend": lambda: render(sides, BlendSettings()),
    }


def measure(width: int, height: int) -> dict[str, dict[str, float]]:
    """Numbers of every part at a size."""
    cv2.setNumThreads(1)
    small, parts = list_parts(64, 64), list_parts(width, height)
    found = {}
    for name, work in parts.items():
        numbers = measured(work, warm_up=small[name])
        share = MEGA / (width * height)
        found[name] = {
            "ms_per_megapixel": round(1000 * numbers["cpu_seconds"] * share, 1),
            "extra_mib_per_megapixel": round(numbers["extra_peak_mib"] * share, 1),
        }
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--size", type=int, nargs=2, help="measure one size in this process")
    given = parser.parse_args()
    if given.size:
        json.dump(measure(*given.size), sys.stdout)
        return
    results = {}
    for width, height in SIZES:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.tracks", "--size", str(width), str(height)],
            check=True, stdout=subprocess.PIPE, text=True,
        )
        results[f"{width}x{height}"] = json.loads(done.stdout)
    json.dump({"benchmark": "tracks", "results": results}, sys.stdout, indent=1)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
