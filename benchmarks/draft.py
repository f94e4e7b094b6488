"""A draft against the full result: one segment of a clip, in one run on one core.

Prints JSON: CPU milliseconds a frame of both, from frames that are decoded to images that are
written; what a frame of the draft takes once the motion is known, as after a retouch; PSNR of the
draft, and of a cross-fade of the two keyframes, against the full result.
`--images FOLDER` keeps both results and their keyframes.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.clips import packaged_clip
from fresco.flow.dis import DisEstimator
from fresco.progress import never_stop
from fresco.propagation.draft import DraftSegment, draw_draft
from fresco.propagation.engine import AnyEngine, DraftEngine, create_engine
from fresco.propagation.propagate import propagate_segment
from fresco.propagation.segment import SegmentJob
from fresco.settings import BlendSettings, FlowSettings, PropagationSettings
from fresco.video.reader import open_source
from fresco.video.size import scale_frame
from fresco.workspace import frame_name, read_image, write_image

Image = NDArray[np.uint8]


@dataclass(frozen=True)
class Clip:
    """Frames of a file, scaled; decoded before anything is measured, as a run decodes them once."""

    first: int
    images: Sequence[Image]

    @classmethod
    def read(cls, path: Path, size: int, first: int, last: int) -> Clip:
        """Frames first to last, both included."""
        with open_source(path) as source:
            return cls(first, [scale_frame(frame, (size, size))
                               for frame in source.frames(first, last)])

    def __call__(self, first: int, last: int) -> Iterator[Image]:
        """Frames first to last, both included."""
        yield from self.images[first - self.first:last - self.first + 1]


def paint(frame: Image) -> Image:
    """A drawn look with a grain that belongs to the painting."""
    drawn = cv2.stylization(frame, sigma_s=40, sigma_r=0.4).astype(np.float32)
    noise = np.random.default_rng(1).normal(0, 1, frame.shape[:2]).astype(np.float32)
    grain = 40 * cv2.GaussianBlur(noise, (0, 0), 1.2)
    return np.clip(drawn * [1.1, 0.95, 0.8] + grain[..., None], 0, 255).astype(np.uint8)


def cpu_seconds() -> float:
    """Of this process and of the programs it started."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def timed(act: Callable[[], object]) -> float:
    """CPU seconds of a call."""
    start = cpu_seconds()
    act()
    return cpu_seconds() - start


def psnr(image: Image, wanted: Image) -> float:
    """Peak signal to noise ratio in dB."""
    square = np.square(image.astype(np.float64) - wanted).mean()
    return float(10 * np.log10(255**2 / square))


def measure(clip: Clip, first: int, length: int, folder: Path) -> dict[str, float]:
    """One segment as a draft and in full."""
    last = first + length
    keys = {number: folder / "keys" / frame_name(number) for number in (first, last)}
    for number, path in keys.items():
        write_image(path, paint(next(clip(number, number))))
    results: dict[str, SegmentJob] = {}
    seconds: dict[str, float] = {}
    engines: dict[str, AnyEngine] = {
        "draft": DraftEngine(), "full": create_engine(PropagationSettings())}
    for name, engine in engines.items():
        place = folder / name
        place.mkdir()
        job = results[name] = SegmentJob(
            first, last, keys[first], keys[last], clip, FlowSettings(estimator="dis"),
            BlendSettings(), place, engine,
        )
        seconds[name] = timed(lambda job=job: propagate_segment(job, DisEstimator(), never_stop))
    segment = DraftSegment(clip(first, last), length)
    motions = [segment.find(position) for position in range(1, length)]
    both = [read(path) for path in keys.values()]
    start = time.process_time()
    for motion in motions:
        draw_draft(both, motion)
    drawn = time.process_time() - start
    drafts, fades = [], []
    for frame in results["full"].interior:
        wanted, share = read(results["full"].path(frame)), (frame - first) / length
        drafts.append(psnr(read(results["draft"].path(frame)), wanted))
        fade = cv2.addWeighted(both[0], 1 - share, both[1], share, 0)
        fades.append(psnr(np.asarray(fade, np.uint8), wanted))
    frames = len(motions)
    return {
        "draft_ms": round(1e3 * seconds["draft"] / frames, 1),
        "full_ms": round(1e3 * seconds["full"] / frames, 1),
        "ratio": round(seconds["full"] / seconds["draft"], 1),
        "drawn_again_ms": round(1e3 * drawn / frames, 1),
        "draft_psnr": round(float(np.mean(drafts)), 2),
        "worst_frame_psnr": round(min(drafts), 2),
        "cross_fade_psnr": round(float(np.mean(fades)), 2),
    }


def read(path: Path) -> Image:
    """An image that is there."""
    image = read_image(path)
    assert image is not None
    return image


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clips", nargs="*", type=Path, default=[packaged_clip("bikes.mp4")])
    parser.add_argument("--first", type=int, default=0, help="Number of the first keyframe.")
    parser.add_argument("--length", type=int, default=10, help="Frames between two keyframes.")
    parser.add_argument("--size", type=int, default=512, help="Side of the frames in pixels.")
    parser.add_argument("--images", type=Path, help="Folder that keeps the images.")
    given = parser.parse_args()
    cv2.setNumThreads(1)
    report = {}
    for path in given.clips:
        clip = Clip.read(path, given.size, given.first, given.first + given.length)
        with contextlib.ExitStack() as stack:
            folder = (given.images / path.stem) if given.images else Path(
                stack.enter_context(tempfile.TemporaryDirectory()))
            folder.mkdir(parents=True, exist_ok=True)
            report[path.stem] = measure(clip, given.first, given.length, folder)
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
