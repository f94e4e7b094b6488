"""The ablation's rows and its table."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from benchmarks import ablation, consistency
from fresco.settings import GuidanceSettings


def test_each_row_switches_what_it_names() -> None:
    rows = ablation.VARIANTS
    assert not any(rows["frame by frame"].values())
    assert all(rows["FRESCO and background smoothing"].values())
    defaults = GuidanceSettings()
    assert all(rows["FRESCO"][name] == getattr(defaults, name) for name in rows["FRESCO"])
    alone = [row for row in rows.values() if sum(row.values()) == 1]
    assert len(alone) == len({tuple(sorted(row.items())) for row in alone}) == 6
    assert {frozenset(row) for row in rows.values()} == {frozenset(rows["FRESCO"])}


def test_an_interval_is_that_of_student() -> None:
    # Three values with a standard deviation of 1; 4.303 is in every table for two degrees.
    mean, half = ablation.estimate_mean([1.0, 2.0, 3.0])
    assert mean == 2.0
    assert half == pytest.approx(4.303 / 3**0.5, abs=1e-3)
    assert ablation.estimate_mean([2.0]) == (2.0, math.inf)


def test_the_table_is_of_ratios_clip_by_clip() -> None:
    rows: list[dict[str, Any]] = []
    for clip, base, ratio in (("a.mp4", 2.0, 0.5), ("b.mp4", 4.0, 0.6), ("c.mp4", 8.0, 0.7)):
        for name, value in ((ablation.BASE, base), ("FRESCO", base * ratio)):
            measures = dict.fromkeys(ablation.COLUMNS, base) | {"warp_error": value}
            rows.append({"clip": clip, "variant": name, "measures": measures})
    table = ablation.make_table([*rows, rows[0] | {"clip": "d.mp4"}])
    assert "3 clips: a, b, c." in table
    assert "| frame by frame | 1 | 1 |" in table
    assert "| FRESCO | **0.60 ± 0.25** | 1.00 ± 0.00 |" in table


def test_a_small_run_measures_and_keeps_the_images(tmp_path: Path, demo_clip: Path) -> None:
    results = tmp_path / "rows.jsonl"
    consistency.run_study(ablation.STUDY, [
        str(demo_clip), "--results", str(results), "--keyframes", "3", "--every", "2",
        "--batch-size", "3", "--steps", "4", "--resolution", "64", "--only", "frame by frame",
        "--only", "all attention", "--pictures", str(tmp_path),
    ])
    alone, guided = map(json.loads, results.read_text().splitlines())
    assert all(alone["measures"][name] > 0 for name in ablation.COLUMNS)
    assert alone["measures"]["warp_error"] != guided["measures"]["warp_error"]
    names = sorted(path.name for path in (tmp_path / demo_clip.stem / "all-attention").iterdir())
    assert names == ["000000.png", "000002.png", "000004.png"]
