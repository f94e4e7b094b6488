"""Patch synthesis of a sequence: ten frames of a clip from one key, in one process.

Prints JSON: CPU and wall seconds, the first frame and those after it, and how much farther the
patches are than when every frame starts over. `--original PROGRAM` lets another program of the
same command line paint the first and the last frame from the same guides; it has no sequences, so
its seconds count as many times as there are frames. `--before PROGRAM` compares with a program of
an earlier version instead: both get the same frames in turns, only the new one with tracks, and
the objectives of their fields are compared.
"""

from __future__ import annotations

import argparse
import itertools
import json
import resource
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.clips import packaged_clip
from benchmarks.propagation import EFFORT, UNIFORMITY, patch_sum, run
from fresco.flow.dis import DisEstimator
from fresco.flow.motion import estimate_motion
from fresco.propagation.carriers import PatchCarrier
from fresco.propagation.guides import Guide
from fresco.propagation.program import require_program
from fresco.propagation.synthesizer import (
    PatchSynthesizer,
    SynthesisOptions,
    pack_frame,
    pack_setup,
)
from fresco.video.reader import open_source
from fresco.video.size import scale_frame, working_size

Image = NDArray[np.uint8]
Map = NDArray[np.float32]
WANTS_FIELD = 2
"""Flag of a frame: the field is wanted back."""
AREA = 25
"""Of a patch."""
PARTS = {"all": slice(None), "first": slice(1), "2 to 8": slice(1, 8), "from 9": slice(8, None)}
"""Frames of a sequence whose objectives are compared."""

class Recorder(PatchSynthesizer):
    """Keeps what every frame was painted from; with `restart` every one starts over."""

    def __init__(self, program: Path, style: Image, quality: str, *, restart: bool) -> None:
        super().__init__(program, style, SynthesisOptions(quality))
        self.restart = restart
        self.guides: list[Sequence[Guide]] = []
        self.distances: list[float] = []

    def frame(
        self, guides: Sequence[Guide], flow: Map | None = None, track: Map | None = None, *,
        restart: bool = False,
    ) -> tuple[Image, Map]:
        """See `PatchSynthesizer.frame`."""
        painted, error = super().frame(guides, flow, track, restart=restart or self.restart)
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


class Teller(PatchSynthesizer):
    """Writes down what the program would be told; nothing is painted."""

    def __init__(self, style: Image, *, with_track: bool) -> None:
        super().__init__(Path(), style, SynthesisOptions())
        self.with_track = with_track
        self.told = bytearray()

    def frame(
        self, guides: Sequence[Guide], flow: Map | None = None, track: Map | None = None, *,
        restart: bool = False,
    ) -> tuple[Image, Map]:
        """See `PatchSynthesizer.frame`; the field is asked for too."""
        if not self.told:
            self.told += b"".join(pack_setup(self._style, guides))
        start = len(self.told)
        self.told += b"".join(pack_frame(
            guides, None if restart else flow, track if self.with_track else None, restart))
        (flags,) = struct.unpack_from("<I", self.told, start + 4)
        struct.pack_into("<I", self.told, start + 4, flags | WANTS_FIELD)
        return self._style, np.zeros(self._style.shape[:2], np.float32)


def told(frames: Sequence[Image], style: Image, *, with_track: bool) -> bytes:
    """All that a program is told of a sequence."""
    estimator, teller = DisEstimator(), Teller(style, with_track=with_track)
    with teller:
        side = PatchCarrier(style, frames[0], teller)
        for first, second in itertools.pairwise(frames):
            pair = estimate_motion(first, second, estimator)
            side.follow(second, pair.backward, pair.backward_occlusion)()
    return bytes(teller.told) + b"STOP"


def objectives(answer: bytes, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Of every frame of an answer: mean distance + uniformity * mean use of the source."""
    height, width, channels = shape
    size = height * width
    frame = np.dtype([("tag", "S4"), ("image", "u1", size * channels), ("error", "<f4", size),
                      ("field", "<i4", (size, 2))])
    found = []
    for one in np.frombuffer(answer, frame):
        counts = np.zeros((height, width))
        x, y = one["field"].T
        np.add.at(counts, (y, x), 1)
        use = patch_sum(patch_sum(counts))[y, x].mean() / AREA ** 2
        found.append(one["error"].astype(np.float64).mean() + UNIFORMITY * use)
    return np.array(found)


def compare(
    programs: Mapping[str, Path], requests: Mapping[str, bytes], shape: tuple[int, ...],
    options: Sequence[str], turns: int,
) -> dict[str, float]:
    """Least CPU seconds of "now" and "before" in turns, and how far their objectives are apart."""
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    values = {}
    for _ in range(turns):
        for name, program in programs.items():
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            done = subprocess.run(
                [str(program), "-sequence", "-threads", "1", *EFFORT, *options],
                input=requests[name], stdout=subprocess.PIPE, check=True)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            seconds[name].append(
                after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
            values[name] = objectives(done.stdout, shape)
    least = {name: min(several) for name, several in seconds.items()}
    numbers = {f"cpu_seconds_{name}": round(value, 2) for name, value in least.items()}
    numbers["times_less_cpu"] = round(least["before"] / least["now"], 2)
    for part, chosen in PARTS.items():
        ratio = values["now"][chosen].mean() / values["before"][chosen].mean()
        numbers[f"objective_percent_{part}"] = round(100 * (ratio - 1), 2)
    return numbers


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
    parser.add_argument("--qualities", nargs="*", default=["balanced"], help="with --before")
    parser.add_argument("--before", type=Path, help="program of an earlier version to compare with")
    parser.add_argument("--turns", type=int, default=2, help="of both versions, the least counts")
    options = parser.parse_args()
    if options.clip is None:
        options.clip = packaged_clip("bikes.mp4")
    frames = frames_of(options.clip, options.frames, options.side)
    style = np.asarray(cv2.stylization(frames[0], sigma_s=40, sigma_r=0.4), np.uint8)
    report: dict[str, dict[str, float]]
    if options.before:
        requests = {"now": told(frames, style, with_track=True),
                    "before": told(frames, style, with_track=False)}
        programs = {"now": require_program().path, "before": options.before}
        report = {
            quality: compare(programs, requests, style.shape, ("-quality", quality), options.turns)
            for quality in options.qualities
        }
    else:
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
