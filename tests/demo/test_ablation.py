"""The ablation's rows, its measures, and a small run of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import ablation
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


def test_colour_distance_sees_colours_and_no_edges() -> None:
    grey = np.full((64, 64, 3), 120, np.uint8)
    assert ablation.colour_distance(grey, grey) == 0.0
    # L of grey 120 is 50.43, that of 140 is 58.26; OpenCV takes it from a table.
    assert ablation.colour_distance(grey, grey + 20) == pytest.approx(7.83, abs=0.2)
    fine = grey.copy()
    fine[:, ::2] += 8
    fine[:, 1::2] -= 8
    assert ablation.colour_distance(grey, fine) < 0.3


def test_means_are_of_ratios_clip_by_clip() -> None:
    keys: list[str] = list(ablation.COLUMNS)
    one = {"frame by frame": dict.fromkeys(keys, 2.0), "FRESCO": dict.fromkeys(keys, 1.0)}
    two = {"frame by frame": dict.fromkeys(keys, 4.0), "FRESCO": dict.fromkeys(keys, 4.0)}
    ratios = [ablation.relative(one), ablation.relative(two)]
    mean, spread = ablation.means(ratios), ablation.spreads(ratios)
    assert mean["FRESCO"] == dict.fromkeys(keys, 0.75)
    assert spread["FRESCO"] == pytest.approx(dict.fromkeys(keys, 0.125**0.5))
    assert ablation.spreads(ratios[:1])["FRESCO"] == dict.fromkeys(keys, 0.0)
    assert "| FRESCO | 0.75 ± 0.35 | 0.75 ± 0.35 |" in ablation.table(mean, spread)


def test_a_small_run_measures_and_keeps_the_pictures(
    tmp_path: Path, demo_clip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ablation.main([
        str(demo_clip), "--frames", "3", "--every", "2", "--batch-size", "3", "--steps", "4",
        "--resolution", "64", "--only", "all attention", "--pictures", str(tmp_path),
    ])
    told = json.loads(capsys.readouterr().out)
    rows = told["clips"][demo_clip.name]["measures"]
    assert list(rows) == ["frame by frame", "all attention"]
    assert all(rows[name][key] > 0 for name in rows for key in ablation.COLUMNS)
    assert rows["frame by frame"]["warp_error"] != rows["all attention"]["warp_error"]
    of_first = told["mean_of_frame_by_frame"]["all attention"]["warp_error"]
    ratio = rows["all attention"]["warp_error"] / rows["frame by frame"]["warp_error"]
    assert of_first == pytest.approx(ratio)
    names = sorted(path.name for path in (tmp_path / demo_clip.stem / "all-attention").iterdir())
    assert names == ["000000.png", "000002.png", "000004.png"]
