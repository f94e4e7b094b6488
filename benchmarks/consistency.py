"""Keyframes over many batches: does the look jump where one batch meets the next?

    python -m benchmarks.consistency [CLIP...] [--noise each] [--only NAME] [--pictures FOLDER]

Prints JSON. Keyframes are taken at even distances and translated in small batches, so that there
are many borders. With `--noise each` every batch has noise of its own, a stress: with a model that
invents little and one noise for all frames, no border shows.
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

from benchmarks.ablation import MODEL, OFF, Frame, colour_distance, variant_settings
from benchmarks.clips import packaged_clip
from fresco.flow.estimator import create_estimator
from fresco.guidance.ports import BatchRequest, BatchResult, SamplingGuide
from fresco.hosts.diffusers.host import DiffusersHost
from fresco.hosts.diffusers.load import load_host
from fresco.metrics import Metrics
from fresco.progress import Progress, Stage
from fresco.run.clip import Clip
from fresco.run.translate import detect_keyframes, translate
from fresco.settings import FrescoSettings
from fresco.workspace import frame_name, read_image, write_image

VARIANTS: Mapping[str, Mapping[str, bool]] = {
    "frame by frame": OFF,
    "FRESCO": {},
    "FRESCO and background smoothing": {"background_smoothing": True},
    "consensus": {"consensus": True},
    "consensus and background smoothing": {"consensus": True, "background_smoothing": True},
}
"""Which parts are on beside (or instead of) those that are by default."""
MEASURES = (
    "batch_border_jump", "warp_error", "anchor_warp_error", "flicker", "colour_drift_slope",
    "sharpness_ratio", "edge_agreement",
)


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


def measure(
    clip: Clip, settings: FrescoSettings, pictures: Mapping[int, Frame], borders: Sequence[int]
) -> dict[str, float | None]:
    """Measures of translated keyframes against the source's."""
    measures = Metrics(create_estimator(settings.flow, "cpu"), borders=borders)
    colours = []
    for place, (number, picture) in enumerate(pictures.items()):
        source = clip.frames.pick([number])[0]
        measures.update(source, {"result": picture}, starts_shot=place == 0)
        colours.append(colour_distance(picture, source))
    found = measures.report()["result"]
    return {**{name: found[name] for name in MEASURES}, "colours": statistics.mean(colours)}


def run_variant(
    path: Path, settings: FrescoSettings, host: Any, kept: Path | None
) -> dict[str, float | None]:
    """Measures and seconds of one row on one clip."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as place:
        clip, _, plans, _ = detect_keyframes(path, settings, Progress(), Path(place) / "plan")
        result = translate(path, Path(place) / "out.mp4", settings, lambda: host, Progress())
        seconds = time.monotonic() - began
        numbers = [number for plan in plans for number in plan.keyframes]
        found = {number: read_image(result.output / frame_name(number)) for number in numbers}
    pictures = {number: image for number, image in found.items() if image is not None}
    if kept is not None:
        for number, image in pictures.items():
            write_image(kept / frame_name(number), image)
    starts = {batch.frames[0] for plan in plans for batch in plan.batches[1:]}
    borders = [place for place, number in enumerate(numbers) if number in starts]
    return {**measure(clip, settings, pictures, borders), "seconds": round(seconds, 1)}


def main(words: Sequence[str] | None = None) -> None:
    """Command line of this file."""
    parser = argparse.ArgumentParser(description="Does the look jump from batch to batch?")
    parser.add_argument("clips", type=Path, nargs="*", help="default: one that a package ships")
    parser.add_argument("--model", type=Path, default=MODEL)
    parser.add_argument("--prompt", default="a watercolour painting")
    parser.add_argument("--noise", choices=("shared", "each"), default="shared")
    parser.add_argument("--first", type=int, default=0, help="first frame")
    parser.add_argument("--keyframes", dest="frames", type=int, default=14)
    parser.add_argument("--every", type=int, default=6, help="frames from one to the next")
    parser.add_argument("--batch-size", type=int, default=5)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--strength", type=float, default=0.75)
    parser.add_argument("--guidance-scale", type=float, default=1.0)
    parser.add_argument("--resolution", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", action="append", choices=list(VARIANTS), help="rows to measure")
    parser.add_argument("--pictures", type=Path, help="keep the pictures in this folder")
    options = parser.parse_args(words)
    rows: dict[str, dict[str, Any]] = {}
    for path in options.clips or [packaged_clip("bigbuckbunny.mp4")]:
        rows[path.name] = {}
        for name in options.only or VARIANTS:
            settings = variant_settings(options, VARIANTS[name])
            host: Any = load_host(settings.sampling, offline=True)
            if options.noise == "each":
                host = OwnNoise(host, settings)
            kept = options.pictures and options.pictures / path.stem / name.replace(" ", "-")
            rows[path.name][name] = run_variant(path, settings, host, kept)
            print(path.name, name, rows[path.name][name], file=sys.stderr)
    told = {key: str(value) if isinstance(value, Path) else value
            for key, value in vars(options).items() if key not in ("clips", "pictures")}
    print(json.dumps({"benchmark": "consistency", "options": told, "clips": rows}, indent=2))


if __name__ == "__main__":
    main()
