"""Patch synthesis of a sequence: ten frames of a clip from one key, in one process.

Prints JSON: CPU and wall seconds, the first frame and those after it, and how much farther the
patches are than when every frame starts over. `--original PROGRAM` lets another program of the
same command line paint the first and the last frame from the same guides; it has no sequences, so
its seconds count as many times as there are frames.
"""

from __future__ import annotations

import argparse
import itertools
import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.clips import packaged_clip
from benchmarks.propagation import EFFORT, run
from fresco.flow.dis import DisEstimator
from fresco.flow.motion import estimate_motion
from fresco.propagation.carriers import PatchCarrier
from fresco.propagation.guides import Guide
from fresco.propagation.program import require_program
from fresco.propagation.synthesizer import PatchSynthesizer, SynthesisOptions
from fresco.video.reader import open_source
from fresco.video.size import scale_frame, working_size

Image = NDArray[np.uint8]
Map = NDArray[np.float32]


class Recorder(PatchSynthesizer):
    """Keeps what every frame was painted from; with `restart` every one starts over."""

    def __init__(self, program: Path, style: Image, quality: str, *, restart: bool) -> None:
        super().__init__(program, style, SynthesisOptions(quality))
        self.restart = restart
        self.guides: list[Sequence[Guide]] = []
        self.distances: list[float] = []

    def frame(
        self, guides: Sequence[Guide], flow: Map | None = None, *, restart: bool = False
    ) -> tuple[Image, Map]:
        """See `PatchSynthesizer.frame`."""
        painted, error = super().frame(guides, flow, restart=restart or self.restart)
        self.guides.append(guides)
        self.distances.append(float(error.mean()))
        return painted, error


def frames_of(clip: Path, count: int, side: int) -> list[Image]:
    """The key and so many frames after it."""
    with open_source(clip) as source:
        size = working_size(source.info.width, source.info.height, side)
        return [scale_frame(frame, size) for frame in source.frames(0, count)]


def painted(frames: Sequence[Image], style: Image, quality: str, *, restart: bool
            ) -> tuple[dict[str, float], Recorder]:
    """Carry the style along the frames; seconds of the program alone."""
    estimator = DisEstimator()
    steps = [estimate_motion(first, second, estimator)
             for first, second in itertools.pairwise(frames)]
    program = require_program().path
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    recorder = Recorder(program, style, quality, restart=restart)
    with recorder:
        side = PatchCarrier(style, frames[0], recorder)
        for image, pair in zip(frames[1:], steps, strict=True):
            side.follow(image, pair.backward, pair.backward_occlusion)()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    numbers = {
        "cpu_seconds": round(cpu, 3),
        "wall_seconds_with_guides": round(time.perf_counter() - start, 3),
        "mean_distance": round(float(np.mean(recorder.distances)), 2),
    }
    return numbers, recorder


def original_seconds(
    program: Path, style: Image, guides: Sequence[Guide], folder: Path
) -> float:
    """CPU seconds that another program takes for a frame."""
    def saved(name: str, image: Image) -> str:
        cv2.imwrite(str(folder / name), image[..., ::-1] if image.ndim == 3 else image)
        return str(folder / name)

    words = [str(program), "-style", saved("style.png", style)]
    for number, guide in enumerate(guides):
        words += ["-guide", saved(f"s{number}.png", guide.source),
                  saved(f"t{number}.png", guide.target), "-weight", f"{guide.weight:g}"]
    return run([*words, *EFFORT, "-output", str(folder / "out.png")], 1)["cpu_seconds"]


def measure(
    frames: Sequence[Image], style: Image, original: Callable[[Sequence[Guide]], float] | None
) -> dict[str, dict[str, float]]:
    """All numbers."""
    found: dict[str, dict[str, float]] = {}
    guides: list[Sequence[Guide]] = []
    for quality in ("balanced", "best"):
        found[quality], recorder = painted(frames, style, quality, restart=False)
        guides = recorder.guides
    found["balanced, every frame anew"], _ = painted(frames, style, "balanced", restart=True)
    anew = found["balanced, every frame anew"]["mean_distance"]
    for numbers in found.values():
        numbers["distance_percent"] = round(100 * (numbers["mean_distance"] / anew - 1), 3)
    if original:
        seconds = [original(guides[0]), original(guides[-1])]
        whole = float(np.mean(seconds)) * len(guides)
        for numbers in found.values():
            numbers["times_less_cpu"] = round(whole / numbers["cpu_seconds"], 1)
        found["original"] = {
            "first_cpu_seconds": seconds[0], "last_cpu_seconds": seconds[1],
            "cpu_seconds_of_all_frames": round(whole, 1),
        }
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--clip", type=Path, help="video; default: the one of the demo")
    parser.add_argument("--original", type=Path, help="another program of the same command line")
    parser.add_argument("--side", type=int, default=512, help="shorter side in pixels")
    parser.add_argument("--frames", type=int, default=10)
    options = parser.parse_args()
    if options.clip is None:
        options.clip = packaged_clip("bikes.mp4")
    frames = frames_of(options.clip, options.frames, options.side)
    style = np.asarray(cv2.stylization(frames[0], sigma_s=40, sigma_r=0.4), np.uint8)
    with tempfile.TemporaryDirectory() as name:
        def original(guides: Sequence[Guide]) -> float:
            return original_seconds(options.original, style, guides, Path(name))

        report = measure(frames, style, original if options.original else None)
    json.dump({
        "benchmark": "sequence", "clip": options.clip.name, "frames": len(frames) - 1,
        "size": [frames[0].shape[1], frames[0].shape[0]], "results": report,
    }, sys.stdout, indent=1)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
