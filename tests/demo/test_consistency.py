"""The benchmark of borders: its measures on known answers, its table, how it goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks import consistency, scene
from fresco.flow.arrays import FrameMotion
from fresco.flow.dis import DisEstimator
from fresco.workspace import frame_name, write_image


def test_the_scene_moves_as_the_measures_say_at_half_its_size() -> None:
    whole, hidden = scene.motion(4, 6)
    half = consistency.find_exact_motion(4, 6, scene.SIDE // 2)
    seen = ~half.forward_occlusion
    assert 0.5 < seen.mean() <= (~hidden).mean()
    centres = whole[::2, ::2] / 4 + whole[1::2, 1::2] / 4
    assert np.median(np.abs(half.forward - centres)[seen]) < 0.02


def test_motion_that_follows_the_source_has_no_error() -> None:
    random = np.random.default_rng(0)
    wide = scene.noise(64, 80, 6, random) * 40 + 128
    picture = np.repeat(wide.clip(0, 255).astype(np.uint8)[..., None], 3, axis=-1)
    pair = (picture[:, :64].copy(), picture[:, 4:68].copy())
    shown = np.zeros((64, 64), bool)
    shown[:, -8:] = True
    moves, still = (
        FrameMotion(np.zeros((64, 64, 2), np.float32), flow, shown, shown)
        for flow in (np.full((64, 64, 2), (4, 0), np.float32), np.zeros((64, 64, 2), np.float32))
    )
    follows, stays = (
        consistency.measure_motion_error(pair, motion, DisEstimator()) for motion in (moves, still)
    )
    assert follows == pytest.approx(0, abs=0.5)
    assert stays == pytest.approx(4, abs=0.5)


def test_what_the_earlier_frame_does_not_show_is_no_visible_change() -> None:
    seen: list[NDArray[np.float32]] = []

    class Judge:
        def predict(self, test: Any, reference: Any, dim_order: str) -> tuple[float, None]:
            seen.extend((test, reference))
            return 9.5, None

    hidden = np.zeros((8, 8), bool)
    hidden[:, 6:] = True
    flow = np.zeros((8, 8, 2), np.float32)
    motion = FrameMotion(flow, flow, hidden, hidden)
    pair = (np.zeros((8, 8, 3), np.uint8), np.full((8, 8, 3), 51, np.uint8))
    assert consistency.measure_visibility(Judge(), pair, motion) == 9.5
    gaps = seen[0] - seen[1]
    assert gaps[:, :6] == pytest.approx(0.2)
    assert (gaps[:, 6:] == 0).all()


def make_row(clip: str, variant: str, size: int = 5, **values: float) -> dict[str, Any]:
    measures = dict.fromkeys(consistency.COLUMNS, 1.0)
    options = {"batch_size": size, "every": 10, "frames": 0}
    return {"clip": clip, "variant": variant, "options": options, "measures": measures | values}


def test_the_table_is_of_clips_that_have_every_row() -> None:
    """One for each set of options, and one for the video where it was measured."""
    rows = [make_row("a.mp4", "FRESCO", batch_border_jump=2.0),
            make_row("b.mp4", "FRESCO", batch_border_jump=3.0),
            make_row("c.mp4", "FRESCO", batch_border_jump=9.0),
            make_row("a.mp4", "consensus", batch_border_jump=1.0),
            make_row("b.mp4", "consensus", batch_border_jump=1.5),
            make_row("a.mp4", "consensus alone"), make_row("a.mp4", "FRESCO", 8),
            make_row("a.mp4", "consensus", 8, batch_border_jump=7.0)]
    rows[4]["options"]["every"] = 2
    for row in rows[-2:]:
        row["options"]["video"] = True
        row["video"] = row["measures"] | {"batch_border_jump": 4.0}
    means = consistency.make_table(rows).split("**Keyframes, batches of ")[1:]
    assert [part[:part.index("*")] for part in means] == [
        "5, one every 10 (b 2) frames of the whole clip"] * 2 + [
        "8, one every 10 frames of the whole clip"]
    assert "means over 2 clips: a, b.\n" in means[0]
    assert "| FRESCO | 2.5 | 1 |" in means[0]
    assert "| consensus | 1.00 | 1.50 |" in means[0]
    assert "; 1 clip: a.\n" in means[1]
    assert "| consensus alone | 1 | 1 |" in means[1]
    assert "| FRESCO | 2 | 1 |" in means[1]  # again, to compare with
    assert "| consensus |" not in means[1]
    keyframes, video = means[2].split("**The video, batches of 8, ")
    assert "| consensus | 7 | 1 |" in keyframes
    assert "| consensus | 4 | 1 |" in video


def test_all_frames_are_measured_apart_where_they_are_propagated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The source's border error is that of the frames between two batches of keyframes."""
    monkeypatch.setattr(consistency, "load_host", lambda *words, **more: None)
    clip, results = tmp_path / "clip", tmp_path / "rows.jsonl"
    clip.mkdir()
    random = np.random.default_rng(0)
    wide = random.integers(60, 190, (64, 64, 3))
    for number in range(11):  # frames 5 and 6 lead from the keyframes 0, 2, 4 to 6, 8, 10
        shade = 10 * (number >= 1) + 20 * (number >= 5)
        write_image(clip / frame_name(number), (wide + shade).astype(np.uint8))
    consistency.run_study(consistency.STUDY, [
        str(clip), "--results", str(results), "--keyframes", "0", "--every", "2",
        "--batch-size", "4", "--resolution", "64", "--only", "source", "--video",
    ])
    (row,) = map(json.loads, results.read_text().splitlines())
    small, large = (10 / 255) ** 2, (20 / 255) ** 2
    errors = [(row[part]["border_error"], row[part]["inner_error"])
              for part in ("measures", "video")]
    assert errors[0] == pytest.approx((large, small / 4))
    assert errors[1] == pytest.approx((large / 2, small / 8))


def test_a_row_that_is_there_is_not_measured_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The floors need no sampling, so this is quick; the source has no error but its own."""
    done: list[str] = []
    run = consistency.run_variant

    def noted(*words: Any, **more: Any) -> dict[str, consistency.Row]:
        done.append(words[3])
        return run(*words, **more)

    monkeypatch.setattr(consistency, "run_variant", noted)
    monkeypatch.setattr(consistency, "load_host", lambda *words, **more: None)
    clip, results = tmp_path / "clip", tmp_path / "rows.jsonl"
    clip.mkdir()
    random = np.random.default_rng(0)
    for number in range(3):
        write_image(clip / frame_name(number), random.integers(0, 255, (64, 64, 3), np.uint8))
    words = [str(clip), "--results", str(results), "--keyframes", "3", "--resolution", "64",
             "--only", "source"]
    for _ in range(2):
        consistency.run_study(consistency.STUDY, words)
    assert done == ["source"]
    (row,) = map(json.loads, results.read_text().splitlines())
    measures = row["measures"]
    assert measures["sharpness_ratio"] == measures["edge_agreement"] == 1.0
    assert measures["colours"] == measures["colour_drift_slope"] == 0.0
    assert measures["batch_border_jump"] is None
