"""Motion on a grid coarser than the frames."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from fresco.flow.dis import DisEstimator
from fresco.flow.motion import estimate_motion
from fresco.propagation import grid
from fresco.propagation.engine import PatchEngine
from fresco.propagation.grid import choose_grid, shrink_motion
from fresco.propagation.propagate import propagate_segment
from tests.helpers.scenes import SlidingScene, make_jobs

SCENE = SlidingScene(5, square=0, height=64, width=96)


def test_a_grid_has_whole_pixels_a_cell_and_is_never_finer_than_the_frame() -> None:
    assert choose_grid((512, 768)) == (512, 768)
    assert choose_grid((1088, 1920)) == (544, 960)
    assert choose_grid((2176, 3840)) == (544, 960)
    assert choose_grid((1, 300)) == (1, 300)


def test_motion_on_a_grid_is_in_its_cells() -> None:
    first, second = SCENE.image(0), SCENE.image(1)
    pair = shrink_motion(estimate_motion(first, second, DisEstimator()), (32, 48))
    inner = pair.backward[4:-4, 6:-6]
    assert np.abs(inner - np.array([-SCENE.speed / 2, 0.0], np.float32)).mean() < 0.1
    assert pair.backward_occlusion[4:-4, 6:-6].mean() < 0.05


def test_frames_are_the_same_whether_motion_is_left_for_others(
    tmp_path: Path, engine: PatchEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grid, "GRID", 32)
    results = []
    for name, shared in (("alone", None), ("left", tmp_path / "pairs"),
                         ("taken", tmp_path / "pairs")):
        (job,) = make_jobs(SCENE, [0, 4], tmp_path / name, engine=engine)
        propagate_segment(dataclasses.replace(job, motion=shared), DisEstimator())
        results.append([job.path(frame).read_bytes() for frame in job.interior])
    assert results[0] == results[1] == results[2]
    assert len(list((tmp_path / "pairs").iterdir())) == 8
