"""Keyframes over many batches: does the look jump where one batch meets the next?

    python -m benchmarks.consistency CLIP... --results FILE [--noise each] [--only NAME]
    python -m benchmarks.consistency --results FILE --table docs/method.md

Keyframes are taken at even distances and translated in small batches, so that there are many
borders. Every row that is measured is appended to FILE at once, one JSON object a line; a row that
is there already is not measured again. So a long measurement may stop and go on anywhere. `--table`
writes the means over the clips of FILE into a page, between two marks.

A clip is a file, the name of one that a package ships, or `scene`: the drawn scene of
`benchmarks.scene`, whose motion the measures know exactly. With `--noise each` every batch has
noise of its own, a stress: with a model that invents little and one noise for all frames, no border
shows.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks import scene
from benchmarks.ablation import MODEL, OFF, Frame, colour_distance, variant_settings
from benchmarks.clips import packaged_clip
from fresco.flow.arrays import FrameMotion
from fresco.flow.estimator import create_estimator
from fresco.flow.interface import FlowEstimator
from fresco.flow.motion import estimate_motion
from fresco.guidance.ports import BatchRequest, BatchResult, SamplingGuide
from fresco.hosts.diffusers.host import DiffusersHost
from fresco.hosts.diffusers.load import load_host
from fresco.metrics import Metrics
from fresco.progress import Progress, Stage
from fresco.run.clip import Clip, open_clip
from fresco.run.translate import detect_keyframes, translate
from fresco.settings import FrescoSettings
from fresco.workspace import frame_name, read_image, write_image

Row = dict[str, float | None]

SOURCE, ROUND_TRIP = "source", "round trip"
"""Floors: the source itself, and the source through the autoencoder."""
VARIANTS: Mapping[str, Mapping[str, bool]] = {
    SOURCE: OFF,
    ROUND_TRIP: OFF,
    "frame by frame": OFF,
    "FRESCO": {},
    "FRESCO and background smoothing": {"background_smoothing": True},
    "consensus": {"consensus": True},
    "consensus and background smoothing": {"consensus": True, "background_smoothing": True},
}
"""Which parts are on beside (or instead of) those that are by default."""
COLUMNS: Mapping[str, str] = {
    "batch_border_jump": "border jump", "border_error": "error at borders",
    "inner_error": "error inside", "warp_error": "warp error",
    "anchor_warp_error": "to the first", "motion_error": "motion, px", "flicker": "flicker",
    "colour_drift_slope": "drift", "sharpness_ratio": "sharpness", "edge_agreement": "edges",
    "colours": "look",
}
"""Measures, and what the table calls them."""
BEGIN, END = "<!-- consistency: begin -->", "<!-- consistency: end -->"
"""Marks of a page between which the table stands."""


class OwnNoise:
    """A host whose batches have noise of their own."""

    def __init__(self, host: DiffusersHost, settings: FrescoSettings) -> None:
        self._host, self._sampling, self._count = host, settings.sampling, 0

    def sample(
        self, request: BatchRequest, guide: SamplingGuide | None, stage: Stage
    ) -> BatchResult:
        """As the host does, by another seed each time."""
        sampling = dataclasses.replace(self._sampling, seed=self._sampling.seed + self._count)
        self._count += 1
        return self._host.with_settings(sampling).sample(request, guide, stage)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._host, name)


def draw_scene(folder: Path) -> Path:
    """The drawn scene as a folder of frames."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(scene.FRAMES):
        write_image(folder / frame_name(number), scene.render(number)[0])
    return folder


def find_exact_motion(first: int, second: int, side: int) -> FrameMotion:
    """Motion between two frames of the drawn scene at a side of so many pixels."""
    flows, hidden = [], []
    for one, other in ((first, second), (second, first)):
        flow, covered = scene.motion(one, other)
        small = cv2.resize(flow, (side, side), interpolation=cv2.INTER_AREA)
        flows.append(np.asarray(small * (side / scene.SIDE), np.float32))
        share = cv2.resize(covered.astype(np.float32), (side, side), interpolation=cv2.INTER_AREA)
        hidden.append(share > 0)
    return FrameMotion(flows[0], flows[1], hidden[0], hidden[1])


def measure_motion_error(
    pair: tuple[Frame, Frame], motion: FrameMotion, estimator: FlowEstimator
) -> float | None:
    """Mean distance in pixels between the flow of two translated frames, the later one's to the
    earlier one, and their source's, over what neither hides; None: nothing is seen in both."""
    valid: NDArray[np.bool_] = ~motion.backward_occlusion
    if not valid.any():
        return None
    found = estimate_motion(pair[0], pair[1], estimator).backward
    return float(np.linalg.norm(found - motion.backward, axis=-1)[valid].mean(dtype=np.float64))


def measure(
    clip: Clip, settings: FrescoSettings, pictures: Mapping[int, Frame], borders: Sequence[int],
    *, exact: bool,
) -> Row:
    """Measures of translated keyframes against the source's.

    Args:
        borders: positions of pictures that are the first new ones of a batch.
        exact: by the drawn scene's own motion.
    """
    estimator = create_estimator(settings.flow, "cpu")
    measures = Metrics(estimator, borders=borders)
    colours: list[float] = []
    distances: list[float | None] = []
    before: tuple[int, Frame, Frame] | None = None
    for number, picture in pictures.items():
        source = clip.frames.pick([number])[0]
        motion = None
        if before is not None:
            motion = find_exact_motion(before[0], number, len(source)) if exact else \
                estimate_motion(before[1], source, estimator)
            distances.append(measure_motion_error((before[2], picture), motion, estimator))
        measures.update(source, {"result": picture}, starts_shot=before is None, motion=motion)
        colours.append(colour_distance(picture, source))
        before = number, source, picture
    found = dict(measures.report()["result"])
    known = [distance for distance in distances if distance is not None]
    found["motion_error"] = statistics.mean(known) if known else None
    found["colours"] = statistics.mean(colours)
    jump, error = found["batch_border_jump"], found["warp_error"]
    if jump is not None and error is not None:
        inside = len(pictures) - 1 - len(borders)
        found["inner_error"] = error * (len(pictures) - 1) / (len(borders) * jump + inside)
        found["border_error"] = found["inner_error"] * jump
    return {name: found.get(name) for name in COLUMNS}


def run_variant(
    path: Path, settings: FrescoSettings, host: Any, name: str, kept: Path | None
) -> Row:
    """Measures and CPU seconds of one row on one clip."""
    began = time.process_time()
    with tempfile.TemporaryDirectory() as place:
        clip, _, plans, _ = detect_keyframes(path, settings, Progress(), Path(place) / "plan")
        numbers = [number for plan in plans for number in plan.keyframes]
        if name in (SOURCE, ROUND_TRIP):
            frames = clip.frames.pick(numbers)
            found = dict(zip(numbers, frames if name == SOURCE else host.reconstruct(frames),
                             strict=True))
        else:
            result = translate(path, Path(place) / "out.mp4", settings, lambda: host, Progress())
            read = {number: read_image(result.output / frame_name(number)) for number in numbers}
            found = {number: image for number, image in read.items() if image is not None}
    seconds = time.process_time() - began
    if kept is not None:
        kept.mkdir(parents=True, exist_ok=True)
        for number, image in found.items():
            write_image(kept / frame_name(number), image)
    starts = {batch.frames[0] for plan in plans for batch in plan.batches[1:]}
    borders = [place for place, number in enumerate(numbers) if number in starts]
    row = measure(clip, settings, found, borders, exact=path.name == "scene")
    return row | {"cpu_seconds": round(seconds, 1)}


def read_rows(path: Path) -> list[dict[str, Any]]:
    """What was measured so far."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines()]


def make_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Markdown: means over the clips that have every variant, then border jumps clip by clip."""
    names = list(dict.fromkeys(row["variant"] for row in rows))
    found = {(row["clip"], row["variant"]): row["measures"] for row in rows}
    clips = [clip for clip in dict.fromkeys(row["clip"] for row in rows)
             if all((clip, name) in found for name in names)]
    lines = [f"Means over {len(clips)} clips: {', '.join(Path(clip).stem for clip in clips)}.", "",
             "| | " + " | ".join(COLUMNS.values()) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
    for name in names:
        cells = []
        for column in COLUMNS:
            values = [found[clip, name][column] for clip in clips]
            known = [value for value in values if value is not None]
            cells.append(f"{statistics.mean(known):.3g}" if known else "-")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines += ["", "Border jump clip by clip:", "",
              "| | " + " | ".join(Path(clip).stem for clip in clips) + " |",
              "|---" * (len(clips) + 1) + "|"]
    for name in names:
        jumps = [found[clip, name]["batch_border_jump"] for clip in clips]
        cells = ["-" if jump is None else f"{jump:.2f}" for jump in jumps]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def write_table(page: Path, table: str) -> None:
    """Put the table between the two marks of a page."""
    text = page.read_text(encoding="utf-8")
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise SystemExit(f"{page} needs one line {BEGIN} and one line {END}.")
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    page.write_text(f"{before}{BEGIN}\n{table}\n{END}{after}", encoding="utf-8")


def find_clip(name: str) -> Path:
    """A clip by its file, or by the name of one that a package ships."""
    return Path(name) if Path(name).exists() else packaged_clip(name)


def fit_distance(path: Path, options: argparse.Namespace) -> int:
    """Frames from one keyframe to the next: as asked, or fewer so that the clip has enough."""
    clip = open_clip(path, FrescoSettings())
    most = (clip.count - 1 - options.first) // (options.frames - 1)
    if most < 1:
        raise SystemExit(f"{path} has {clip.count} frames, fewer than {options.frames} keyframes.")
    return min(options.every, most)


def parse(words: Sequence[str] | None) -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description="Does the look jump from batch to batch?")
    parser.add_argument("clips", nargs="*", help="files, names of packaged clips, or scene")
    parser.add_argument("--results", type=Path, required=True, help="rows are kept here")
    parser.add_argument("--table", type=Path, metavar="PAGE", help="write the table into a page")
    parser.add_argument("--model", type=Path, default=MODEL)
    parser.add_argument("--prompt", default="a watercolour painting")
    parser.add_argument("--noise", choices=("shared", "each"), default="shared")
    parser.add_argument("--first", type=int, default=0, help="first frame")
    parser.add_argument("--keyframes", dest="frames", type=int, default=14)
    parser.add_argument("--every", type=int, default=6, help="most frames from one to the next")
    parser.add_argument("--batch-size", type=int, default=5)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--strength", type=float, default=0.75)
    parser.add_argument("--guidance-scale", type=float, default=1.0)
    parser.add_argument("--resolution", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", action="append", choices=list(VARIANTS), help="rows to measure")
    parser.add_argument("--pictures", type=Path, help="keep the pictures in this folder")
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> None:
    """Command line of this file."""
    options = parse(words)
    told = {key: value.name if isinstance(value, Path) else value
            for key, value in vars(options).items()
            if key not in ("clips", "pictures", "results", "table", "only")}
    rows = read_rows(options.results)
    known = {(row["clip"], row["variant"]) for row in rows if row["options"] == told}
    with tempfile.TemporaryDirectory() as place:
        for clip in options.clips:
            path = draw_scene(Path(place) / clip) if clip == "scene" else find_clip(clip)
            for name in options.only or VARIANTS:
                if (path.name, name) in known:
                    continue
                fitted = argparse.Namespace(**vars(options) | {
                    "every": fit_distance(path, options)})
                settings = variant_settings(fitted, VARIANTS[name])
                host: Any = load_host(settings.sampling, offline=True)
                if options.noise == "each":
                    host = OwnNoise(host, settings)
                kept = options.pictures and options.pictures / path.stem / name.replace(" ", "-")
                row = {"clip": path.name, "variant": name, "options": told,
                       "measures": run_variant(path, settings, host, name, kept)}
                print(json.dumps(row), file=sys.stderr)
                with options.results.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")
    if options.table:
        write_table(options.table, make_table(read_rows(options.results)))


if __name__ == "__main__":
    main()
