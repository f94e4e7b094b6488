"""Carried masks against known ones: intersection over union of the scene's surfaces.

Prints JSON. Each surface of `benchmarks.scene` is drawn exactly on frame 0 and carried to the other
24 along the motion that OpenCV's DIS finds, then along the exact motion; `corrected` has a second
exact drawing on the last frame. A drawing whose surface passes behind
another one is lost there: that is what a correction is for.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks import scene
from fresco.flow.arrays import FrameMotion
from fresco.flow.dis import DisEstimator
from fresco.flow.motion import estimate_motion
from fresco.masks.carry import CarriedMask, MaskStep, carry_mask, join_sides

SURFACES = ("ground", "sheet", "wheel", "limb", "post")
SHOWN = (6, 12, 18, 24)
"""Frames that are reported."""
LAST = scene.FRAMES - 1

Motion = Mapping[int, FrameMotion]


def overlap(share: NDArray[np.float32], truth: NDArray[np.bool_]) -> float:
    mask = share >= 0.5
    return float((mask & truth).sum() / max(1, (mask | truth).sum()))


def walk(frames: list, pairs: Motion, numbers: range) -> Iterator[MaskStep]:
    for number in numbers:
        pair = pairs[number if numbers.step > 0 else number + 1]
        ways = (pair.backward, pair.backward_occlusion) if numbers.step > 0 else (
            pair.forward, pair.forward_occlusion)
        yield MaskStep(number, frames[number], *ways)


def carry(frames: list, pairs: Motion, drawn: NDArray[np.bool_], numbers: range
          ) -> dict[int, CarriedMask]:
    key = numbers.start - numbers.step
    steps = walk(frames, pairs, numbers)
    return {each.number: each for each in
            carry_mask(drawn.astype(np.float32), frames[key], steps)}


def find_exact(number: int) -> FrameMotion:
    """The scene's motion between a frame and the one before."""
    forward, hidden = scene.motion(number - 1, number)
    backward, covered = scene.motion(number, number - 1)
    return FrameMotion(forward, backward, hidden, covered)


def main() -> None:
    """Measure and print."""
    argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0]).parse_args()
    cv2.setNumThreads(1)
    frames = [scene.render(time)[0] for time in range(scene.FRAMES)]
    owners = [scene.owners(scene.grid(1), time) for time in range(scene.FRAMES)]
    estimator = DisEstimator()
    motions: dict[str, Motion] = {
        "dis": {n: estimate_motion(frames[n - 1], frames[n], estimator)
                for n in range(1, scene.FRAMES)},
        "exact": {n: find_exact(n) for n in range(1, scene.FRAMES)},
    }
    report: dict[str, dict[str, dict[str, object]]] = {}
    for name, pairs in motions.items():
        for number, surface in enumerate(SURFACES):
            masks = [owner == number for owner in owners]
            ahead = carry(frames, pairs, masks[0], range(1, scene.FRAMES))
            behind = carry(frames, pairs, masks[LAST], range(LAST - 1, -1, -1))
            both = {n: join_sides(ahead[n], behind[n], position=n / LAST) for n in range(1, LAST)}
            report.setdefault(name, {})[surface] = {
                "one_drawing": {n: round(overlap(ahead[n].share, masks[n]), 3) for n in SHOWN},
                "corrected": {n: round(overlap(both[n], masks[n]), 3) for n in SHOWN if n < LAST},
                "mean_one_drawing": round(float(np.mean(
                    [overlap(ahead[n].share, masks[n]) for n in both])), 3),
                "mean_corrected": round(float(np.mean(
                    [overlap(share, masks[n]) for n, share in both.items()])), 3),
            }
    json.dump({"benchmark": "masks", "intersection_over_union": report}, sys.stdout, indent=1)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
