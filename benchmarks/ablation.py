"""What each part of FRESCO does to keyframes: frame by frame, each part alone, all of it.

    python -m benchmarks.ablation CLIP... --results FILE [--only NAME]
    python -m benchmarks.ablation --results FILE --table docs/demo-model.md

All keyframes of a clip are one batch. The table shows ratios to frame by frame of the same clip:
their mean over the clips, and the interval that holds the true mean with 95 % confidence, by
Student's distribution. `benchmarks/consistency.py` tells how clips are named and rows kept.
"""

from __future__ import annotations

import math
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scipy.special import stdtrit

from benchmarks.consistency import run_study
from benchmarks.keyframes import OFF, Parts, Study

BASE = "frame by frame"
VARIANTS: Mapping[str, Parts] = {
    BASE: OFF,
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
COLUMNS: Mapping[str, str] = {
    "warp_error": "warp error", "flicker": "flicker", "colours": "colours",
    "edge_agreement": "edges", "cpu_seconds": "CPU time",
}
"""Measures, and what the table calls them."""


def estimate_mean(values: Sequence[float]) -> tuple[float, float]:
    """Mean, and half the width of its interval of 95 % confidence; infinite for one value."""
    mean = statistics.mean(values)
    if len(values) < 2:
        return mean, math.inf
    error = statistics.stdev(values) / math.sqrt(len(values))
    return mean, float(stdtrit(len(values) - 1, 0.975)) * error


def make_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Markdown: ratios to frame by frame, over the clips that have every variant.

    A ratio is bold where its interval, as it is printed, does not hold 1.
    """
    found = {(row["clip"], row["variant"]): row for row in rows}
    names = [name for name in VARIANTS if any(row["variant"] == name for row in rows)]
    clips = [clip for clip in dict.fromkeys(row["clip"] for row in rows)
             if all((clip, name) in found for name in names)]
    if BASE not in names or not clips:
        raise SystemExit(f"The file needs rows of {BASE} and of every other variant.")
    lines = [f"{len(clips)} clips: {', '.join(Path(clip).stem for clip in clips)}.", "",
             "| | " + " | ".join(COLUMNS.values()) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
    for name in names:
        cells = []
        for measure in COLUMNS:
            own, base = ([found[clip, variant]["measures"][measure] for clip in clips]
                         for variant in (name, BASE))
            mean, half = estimate_mean([one / other for one, other in zip(own, base, strict=True)])
            cell = f"{mean:.2f} ± {half:.2f}" if name != BASE else "1"
            cells.append(f"**{cell}**" if round(abs(mean - 1), 2) > round(half, 2) else cell)
        lines.append("| " + " | ".join([name, *cells]) + " |")
    return "\n".join(lines)


STUDY = Study(
    "ablation", "What each part of FRESCO does to keyframes.", VARIANTS, make_table,
    {"prompt": "autumn colours", "frames": 9, "every": 3, "batch_size": 9, "steps": 10,
     "strength": 0.5, "resolution": 192},
)

if __name__ == "__main__":
    run_study(STUDY)
