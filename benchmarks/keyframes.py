"""What benchmarks of translated keyframes share: settings of a row, rows in a file, a page's table.

A study measures variants of the guidance on several clips. Every row that is measured is appended
to the file `--results` at once, one JSON object a line, and a row that is there already is not
measured again: a long measurement may stop and go on anywhere. `--table PAGE` writes the table of
that file into a page, between two marks.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from fresco.options import from_dict
from fresco.settings import PRESETS, FrescoSettings

Frame = NDArray[np.uint8]
Parts = Mapping[str, bool]
"""Parts of the guidance, and whether they are on."""

MODEL = Path(__file__).resolve().parents[1] / "demo" / "model" / "fresco-demo.safetensors"
OFF: dict[str, bool] = {part: False for part in PRESETS["off"] if part != "consensus"}
"""The published parts, all off."""
_COARSE = 8.0
"""Blur, in pixels, under which colours are compared, so that edges do not count as colour."""


@dataclasses.dataclass(frozen=True, slots=True)
class Study:
    """Variants to be measured, and how they are shown."""

    name: str
    """In the marks of a page."""
    what: str
    """One sentence for `--help`."""
    variants: Mapping[str, Parts]
    """Which parts of the guidance are on beside (or instead of) those that are by default."""
    make_table: Callable[[Sequence[Mapping[str, Any]]], str]
    """Rows to Markdown."""
    defaults: Mapping[str, Any]
    """Of options, where the study has others."""


def colour_distance(frame: Frame, source: Frame) -> float:
    """Mean distance in Lab of two blurred pictures: how much the look changed their colours."""
    both = (image / np.float32(255) for image in (frame, source))
    smooth = (cv2.GaussianBlur(image, (0, 0), _COARSE) for image in both)
    first, second = (cv2.cvtColor(image, cv2.COLOR_RGB2Lab) for image in smooth)
    return float(np.linalg.norm(first - second, axis=-1).mean(dtype=np.float64))


def variant_settings(options: argparse.Namespace, parts: Parts) -> FrescoSettings:
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


def read_rows(path: Path) -> list[dict[str, Any]]:
    """What was measured so far."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines()]


def write_table(page: Path, name: str, table: str) -> None:
    """Put a table between the two marks of a page that have its name."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    text = page.read_text(encoding="utf-8")
    if text.count(begin) != 1 or text.count(end) != 1:
        raise SystemExit(f"{page} needs one line {begin} and one line {end}.")
    before, rest = text.split(begin)
    _, after = rest.split(end)
    page.write_text(f"{before}{begin}\n{table}\n{end}{after}", encoding="utf-8")
