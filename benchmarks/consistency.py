"""Keyframes over many batches: does the look jump where one batch meets the next?

    python -m benchmarks.consistency CLIP... --results FILE [--noise each] [--only NAME] [--video]
    python -m benchmarks.consistency --results FILE --table docs/method.md

Keyframes are taken at even distances and translated in small batches, so that there are many
borders. With `--video` they are also carried to all frames, and the video is measured apart. Every
row that is measured is appended to FILE at once, one JSON object a line; a row that is there
already is not measured again. So a long measurement may stop and go on anywhere. `--table` writes
the means over the clips of FILE into a page, between two marks, one table for each set of options.

A clip is a file, the name of one that a package ships, or the drawn scene of `benchmarks.scene`,
whose motion the measures know exactly: `scene`, or `slow-scene` at a fifth of the speed, which is
121 frames long. With `--noise each` every batch has noise of its own, a stress: with a model that
invents little and one noise for all frames, no border shows.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import sys
import tempfile
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks import scene
from benchmarks.clips import packaged_clip
from benchmarks.keyframes import (
    MODEL,
    OFF,
    Frame,
    Parts,
    Study,
    colour_distance,
    read_rows,
    variant_settings,
    write_table,
)
from fresco.flow.arrays import FrameMotion, find_inside, remap
from fresco.flow.estimator import create_estimator
from fresco.flow.interface import FlowEstimator
from fresco.flow.motion import estimate_motion
from fresco.guidance.ports import BatchRequest, BatchResult, SamplingGuide
from fresco.hosts.diffusers.host import DiffusersHost
from fresco.hosts.diffusers.load import load_host
from fresco.metrics import Metrics
from fresco.options import from_dict
from fresco.progress import Progress, Stage
from fresco.run.clip import Clip, open_clip
from fresco.run.measure import find_borders
from fresco.run.translate import detect_keyframes, translate
from fresco.settings import FrescoSettings
from fresco.workspace import frame_name, read_image, write_image

Row = dict[str, float | None]
Found = Mapping[tuple[str, str], Mapping[str, Any]]
"""Rows by clip and variant."""

SOURCE, ROUND_TRIP = "source", "round trip"
"""Floors: the source itself, and the source through the autoencoder."""
VARIANTS: Mapping[str, Parts] = {
    SOURCE: OFF,
    ROUND_TRIP: OFF,
    "frame by frame": OFF,
    "FRESCO": {},
    "FRESCO and background smoothing": {"background_smoothing": True},
    "FRESCO and even colours": {},
    "FRESCO and joined keyframes": {},
    "consensus alone": OFF | {"consensus": True},
    "consensus": {"consensus": True},
    "consensus and background smoothing": {"consensus": True, "background_smoothing": True},
    "consensus and even colours": {"consensus": True},
    "consensus and joined keyframes": {"consensus": True},
}
"""Which parts of guidance are on beside (or instead of) those that are by default. `consensus` is
FRESCO with it, `consensus alone` has no other part."""
BASELINE = "FRESCO"
"""The row that every table repeats."""
EVEN = " and even colours"
"""End of the names of variants with `propagation.even_colours`."""
JOINED = " and joined keyframes"
"""End of the names of variants with `propagation.join_keyframes`."""
SCENES: Mapping[str, int] = {"scene": 1, "slow-scene": 5}
"""Drawn clips, and into how many frames each of the scene's is drawn."""
COLUMNS: Mapping[str, str] = {
    "batch_border_jump": "border jump", "border_error": "error at borders",
    "inner_error": "error inside", "warp_error": "warp error",
    "anchor_warp_error": "to the first", "motion_error": "motion, px", "flicker": "flicker",
    "colour_drift_slope": "drift", "sharpness_ratio": "sharpness", "edge_agreement": "edges",
    "colours": "look", "jod": "JOD",
}
"""Measures, and what the table calls them; those that no row has are left out."""


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


def draw_scene(name: str, folder: Path) -> Path:
    """A drawn scene as a folder of frames."""
    folder.mkdir(parents=True, exist_ok=True)
    pace = SCENES[name]
    for number in range((scene.FRAMES - 1) * pace + 1):
        write_image(folder / frame_name(number), scene.render(number / pace)[0])
    return folder


def find_exact_motion(first: float, second: float, side: int) -> FrameMotion:
    """Motion between two times of the drawn scene at a side of so many pixels."""
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


def load_judge() -> Any:
    """ColorVideoVDP, which says in just-noticeable differences how visible a change is."""
    try:
        import pycvvdp  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise SystemExit(f"--jod needs the package cvvdp and its torchvision: {error}") from error
    return pycvvdp.cvvdp(display_name="standard_fhd", device=torch.device("cpu"))


def measure_visibility(judge: Any, pair: tuple[Frame, Frame], motion: FrameMotion) -> float:
    """Quality of a frame, 10 at best, against the earlier one moved to it by the source's flow; the
    pixels that the earlier one does not show are taken to be equal."""
    frame = pair[1].astype(np.float32)
    valid = ~motion.backward_occlusion & find_inside(motion.backward)
    moved = np.where(valid[..., None], remap(pair[0].astype(np.float32), motion.backward), frame)
    quality, _ = judge.predict(frame / 255, moved / 255, dim_order="HWC")
    return float(quality)


def measure(
    clip: Clip, settings: FrescoSettings, pictures: Mapping[int, Frame], borders: Collection[int],
    *, pace: int | None, judge: Any = None,
) -> Row:
    """Measures of translated frames against the source's.

    Args:
        borders: positions of pictures whose pair with the one before crosses from one batch of
            keyframes to the next.
        pace: by the motion of a scene that is drawn in so many frames for one; None: by flow.
        judge: see `load_judge`; None: visibility is not measured.
    """
    estimator = create_estimator(settings.flow, "cpu")
    measures = Metrics(estimator, borders=borders)
    colours: list[float] = []
    distances: list[float | None] = []
    qualities: list[float] = []
    before: tuple[int, Frame, Frame] | None = None
    for number, picture in pictures.items():
        source = clip.frames.pick([number])[0]
        motion = None
        if before is not None:
            motion = estimate_motion(before[1], source, estimator) if pace is None else \
                find_exact_motion(before[0] / pace, number / pace, len(source))
            distances.append(measure_motion_error((before[2], picture), motion, estimator))
            if judge is not None:
                qualities.append(measure_visibility(judge, (before[2], picture), motion))
        measures.update(source, {"result": picture}, starts_shot=before is None, motion=motion)
        colours.append(colour_distance(picture, source))
        before = number, source, picture
    found = dict(measures.report()["result"])
    known = [distance for distance in distances if distance is not None]
    found["motion_error"] = statistics.mean(known) if known else None
    found["colours"] = statistics.mean(colours)
    found["jod"] = statistics.mean(qualities) if qualities else None
    jump, error = found["batch_border_jump"], found["warp_error"]
    if jump is not None and error is not None:
        crossing, inside = len(borders), len(pictures) - 1 - len(borders)
        found["inner_error"] = error * (crossing + inside) / (crossing * jump + inside)
        found["border_error"] = found["inner_error"] * jump
    return {name: found.get(name) for name in COLUMNS}


def scale_clip(path: Path, settings: FrescoSettings, folder: Path) -> Path:
    """The clip at the size that the model sees, as a folder: decoded once for all rows."""
    clip = open_clip(path, settings)
    folder.mkdir()
    for number, frame in enumerate(clip.frames(0, clip.last)):
        write_image(folder / frame_name(number), frame)
    return folder


def run_variant(
    path: Path, settings: FrescoSettings, host: Any, name: str, kept: Path | None, *,
    pace: int | None = None, judge: Any = None,
) -> dict[str, Row]:
    """Measures of one row on one clip: `measures` of the keyframes, with CPU seconds, and `video`
    of all frames where they are propagated.

    Args:
        pace, judge: see `measure`.
    """
    began = sum(os.times()[:4])
    with tempfile.TemporaryDirectory() as place:
        clip, _, plans, _ = detect_keyframes(path, settings, Progress(), Path(place) / "plan")
        numbers = [number for plan in plans for number in plan.keyframes]
        everything = list(clip.numbers) if settings.propagation.enabled else numbers
        if name == SOURCE:
            found = dict(zip(everything, clip.frames.pick(everything), strict=True))
        elif name == ROUND_TRIP:
            found = dict(zip(numbers, host.reconstruct(clip.frames.pick(numbers)), strict=True))
        else:
            result = translate(path, Path(place) / "out", settings, lambda: host, Progress())
            files = sorted(result.output.glob("*.png"))
            read = {n: read_image(file) for n, file in zip(everything, files, strict=True)}
            found = {number: image for number, image in read.items() if image is not None}
    seconds = sum(os.times()[:4]) - began  # with those of propagation's processes
    if kept is not None:
        kept.mkdir(parents=True, exist_ok=True)
        for number, image in found.items():
            write_image(kept / frame_name(number), image)
    starts = {batch.frames[0] for plan in plans for batch in plan.batches[1:]}
    borders = [place for place, number in enumerate(numbers) if number in starts]
    keys = {number: found[number] for number in numbers}
    rows = {"measures": measure(clip, settings, keys, borders, pace=pace, judge=judge)
            | {"cpu_seconds": round(seconds, 1)}}
    if settings.propagation.enabled and name != ROUND_TRIP:
        crossing = find_borders(clip, plans)
        rows["video"] = measure(clip, settings, found, crossing, pace=pace, judge=judge)
    return rows


def make_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Markdown: for each set of options the keyframes, and where they are propagated the video."""
    lines = []
    for group in group_rows(rows):
        told = describe_options(group)
        for clips, names, found in find_complete(group):
            lines += make_means(clips, names, found, "measures", f"Keyframes, {told}")
            lines += make_jumps(clips, names, found, "measures")
            videos = [name for name in names if all("video" in found[clip, name] for clip in clips)]
            if videos:
                lines += make_means(clips, videos, found, "video", f"The video, {told}")
                lines += make_jumps(clips, videos, found, "video")
    return "\n".join(lines[:-1])


def group_rows(rows: Sequence[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    """Rows by their options, in the order in which these come first. Clips may have their own
    distance between keyframes."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        options = {name: value for name, value in row["options"].items() if name != "every"}
        groups.setdefault(json.dumps(options, sort_keys=True), []).append(row)
    return list(groups.values())


def describe_options(group: Sequence[Mapping[str, Any]]) -> str:
    """What distinguishes the options of one group of rows from those of another, in words."""
    options = group[0]["options"]
    distances = {Path(row["clip"]).stem: row["options"].get("every") for row in group}
    (every, _), = Counter(distances.values()).most_common(1)
    others = [f"{clip} {own}" for clip, own in distances.items() if own != every]
    beside = f" ({', '.join(others)})" if others else ""
    count = options.get("frames")
    distance = f"one every {every}{beside} frames of the whole clip" if count == 0 else \
        f"{count} of them, at most {every} frames apart"
    return f"batches of {options.get('batch_size')}, {distance}"


def make_means(
    clips: Sequence[str], names: Sequence[str], found: Found, part: str, title: str
) -> list[str]:
    """Lines with means over clips, of one part of the rows."""
    shown = ", ".join(Path(clip).stem for clip in clips)
    columns = [column for column in COLUMNS if any(
        found[clip, name][part].get(column) is not None for clip in clips for name in names
    )]
    over = "1 clip" if len(clips) == 1 else f"means over {len(clips)} clips"
    lines = [f"**{title}**; {over}: {shown}.", "",
             "| | " + " | ".join(COLUMNS[column] for column in columns) + " |",
             "|---" * (len(columns) + 1) + "|"]
    for name in names:
        values = [[found[clip, name][part].get(column) for clip in clips] for column in columns]
        known = [[value for value in column if value is not None] for column in values]
        cells = [f"{statistics.mean(column):.3g}" if column else "-" for column in known]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return [*lines, ""]


def make_jumps(
    clips: Sequence[str], names: Sequence[str], found: Found, part: str
) -> list[str]:
    """Lines with border jumps clip by clip, also over the source's own; none for one clip, whose
    jumps are its means."""
    if len(clips) == 1:
        return []
    title = "Border jump clip by clip"
    title += ", and in brackets over that of the source:" if SOURCE in names else ":"
    lines = [title, "",
             "| | " + " | ".join(Path(clip).stem for clip in clips) + " |",
             "|---" * (len(clips) + 1) + "|"]
    for name in names:
        jumps = [found[clip, name][part]["batch_border_jump"] for clip in clips]
        cells = ["-" if jump is None else f"{jump:.2f}" for jump in jumps]
        for place, (clip, jump) in enumerate(zip(clips, jumps, strict=True)):
            own = found[clip, SOURCE][part]["batch_border_jump"] if SOURCE in names else None
            if own and jump is not None:
                cells[place] += f" ({jump / own:.2f})"
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return [*lines, ""]


def find_complete(
    rows: Sequence[Mapping[str, Any]]
) -> list[tuple[list[str], list[str], Found]]:
    """Clips, the variants that all of them have, and each row by both: first of as many clips as
    possible, then of fewer with those variants that no table before has, beside `BASELINE`."""
    found = {(row["clip"], row["variant"]): row for row in rows}
    every = list(dict.fromkeys(row["clip"] for row in rows))
    names = [name for name in VARIANTS if any((clip, name) in found for clip in every)]
    sets = [[clip for clip in every if (clip, name) in found] for name in names]
    tables: list[tuple[list[str], list[str], Found]] = []
    shown: set[str] = set()
    for clips in sorted(sets, key=lambda clips: -len(clips)):
        shared = [name for name in names if all((clip, name) in found for clip in clips)]
        new = [name for name in shared if name not in shown]
        if new and len(shared) > 1:
            wanted = [name for name in shared if name in new or name == BASELINE]
            tables.append((clips, wanted, found))
            shown.update(new)
    return tables


def find_clip(name: str) -> Path:
    """A clip by its file, or by the name of one that a package ships."""
    return Path(name) if Path(name).exists() else packaged_clip(name)


def fit_keyframes(path: Path, options: argparse.Namespace) -> argparse.Namespace:
    """How many keyframes and how far apart: as asked, or nearer so that the clip has enough; those
    of the whole clip if none are asked for."""
    most = open_clip(path, FrescoSettings()).count - 1 - options.first
    count = options.frames or most // options.every + 1
    every = min(options.every, most // (count - 1)) if count > 1 else 0
    if every < 1:
        raise SystemExit(f"{path} has {most + 1} frames, too few for {max(count, 2)} keyframes.")
    return argparse.Namespace(**vars(options) | {"frames": count, "every": every})


def make_settings(options: argparse.Namespace, name: str, parts: Parts) -> FrescoSettings:
    """The options of one row."""
    base = variant_settings(options, parts)
    even, joined = name.endswith(EVEN), name.endswith(JOINED)
    return from_dict({
        "propagation": {"enabled": options.video or even or joined, "even_colours": even,
                        "join_keyframes": joined, "workers": 1},
        "output": {"source_size": False},
    }, base)


def parse(study: Study, words: Sequence[str] | None) -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description=study.what)
    parser.add_argument("clips", nargs="*",
                        help=f"files, names of packaged clips, {' or '.join(SCENES)}")
    parser.add_argument("--results", type=Path, required=True, help="rows are kept here")
    parser.add_argument("--table", type=Path, metavar="PAGE", help="write the table into a page")
    parser.add_argument("--model", type=Path, default=MODEL)
    parser.add_argument("--prompt", default="a watercolour painting")
    parser.add_argument("--noise", choices=("shared", "each"), default="shared")
    parser.add_argument("--first", type=int, default=0, help="first frame")
    parser.add_argument("--keyframes", dest="frames", type=int, default=14,
                        help="how many; 0: one every so many frames of the whole clip")
    parser.add_argument("--every", type=int, default=6, help="most frames from one to the next")
    parser.add_argument("--batch-size", type=int, default=5)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--strength", type=float, default=0.75)
    parser.add_argument("--guidance-scale", type=float, default=1.0)
    parser.add_argument("--resolution", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--video", action="store_true", help="propagate and measure the video too")
    parser.add_argument("--jod", action="store_true", help="measure with cvvdp how visible it is")
    parser.add_argument("--only", action="append", choices=list(study.variants),
                        help="rows to measure")
    parser.add_argument("--pictures", type=Path, help="keep the pictures in this folder")
    parser.set_defaults(**study.defaults)
    return parser.parse_args(words)


def measure_clip(
    clip: str, wanted: Mapping[str, Parts], options: argparse.Namespace, told: Mapping[str, Any]
) -> None:
    """Measure rows of one clip, and append each to the results."""
    with tempfile.TemporaryDirectory() as place:
        path = draw_scene(clip, Path(place) / clip) if clip in SCENES else find_clip(clip)
        fitted = fit_keyframes(path, options)
        scaled = scale_clip(path, make_settings(fitted, SOURCE, OFF), Path(place) / "scaled")
        for name, parts in wanted.items():
            settings = make_settings(fitted, name, parts)
            host: Any = load_host(settings.sampling, offline=True)
            if options.noise == "each":
                host = OwnNoise(host, settings)
            kept = options.pictures and options.pictures / path.stem / name.replace(" ", "-")
            judge = load_judge() if options.jod else None
            found = run_variant(
                scaled, settings, host, name, kept, pace=SCENES.get(clip), judge=judge
            )
            row = {"clip": path.name, "variant": name, "options": told, **found}
            print(json.dumps(row), file=sys.stderr)
            with options.results.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")


def run_study(study: Study, words: Sequence[str] | None = None) -> None:
    """The command line of a study: measure the rows that its file lacks, then write its table."""
    options = parse(study, words)
    told = {key: value.name if isinstance(value, Path) else value
            for key, value in vars(options).items()
            if key not in ("clips", "jod", "pictures", "results", "table", "only")}
    rows = read_rows(options.results)
    known = {(row["clip"], row["variant"]) for row in rows if row["options"] == told}
    for clip in options.clips:
        name = clip if clip in SCENES else find_clip(clip).name
        wanted = {row: study.variants[row] for row in options.only or study.variants
                  if (name, row) not in known}
        if wanted:
            measure_clip(clip, wanted, options, told)
    if options.table:
        write_table(options.table, study.name, study.make_table(read_rows(options.results)))


STUDY = Study("consistency", "Does the look jump from batch to batch?", VARIANTS, make_table, {})

if __name__ == "__main__":
    run_study(STUDY)
