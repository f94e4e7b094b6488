"""Scene cuts: found where they are, and nowhere else."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fresco.planning.shots import CutScore, Shot, split_shots
from fresco.settings import KeyframeSettings
from fresco.video.reader import open_source
from tests.helpers.clips import Frames, list_shared_clips, moving_texture, package_clip

KEYS = KeyframeSettings()


def shots_of(frames: Frames, min_length: int = KEYS.shot_min_length) -> list[tuple[int, int]]:
    """First and last frames of the shots, at the default threshold."""
    score = CutScore()
    scores = [score.update(frame) for frame in frames]
    found = split_shots(scores, KEYS.shot_threshold, min_length)
    return [(shot.first, shot.last) for shot in found]


def clip_shots(path: Path, most: int | None = None) -> list[tuple[int, int]]:
    with open_source(path) as source:
        return shots_of(list(itertools.islice(source.frames(), most)))


def scene(seed: int, count: int, level: int) -> Frames:
    """A moving texture in a brightness of its own."""
    frames = moving_texture(count, 72, 96, seed=seed)
    return [(frame // 3 + level).astype(np.uint8) for frame in frames]


THREE = [*scene(1, 12, 0), *scene(2, 9, 150), *scene(3, 14, 60)]


def test_cuts_between_scenes() -> None:
    assert shots_of(THREE) == [(0, 11), (12, 20), (21, 34)]


def test_motion_is_no_cut() -> None:
    assert shots_of(moving_texture(20, 72, 96, motion=(9, 5))) == [(0, 19)]


@pytest.mark.parametrize("length", [1, 2, 4])
@pytest.mark.parametrize("level", [0, 255])
def test_a_flash_is_no_cut(length: int, level: int) -> None:
    frames = scene(1, 30, 90)
    for k in range(12, 12 + length):
        frames[k] = np.full_like(frames[k], level)
    assert shots_of(frames) == [(0, 29)]


def test_a_flash_after_a_cut_leaves_the_cut() -> None:
    frames = [*scene(1, 12, 0), *scene(2, 18, 150)]
    frames[14] = np.zeros_like(frames[14])
    assert shots_of(frames) == [(0, 11), (12, 29)]


def test_black_and_white_noise_is_no_cut() -> None:
    noise = np.random.default_rng(0).integers(-6, 7, (20, 72, 96, 3))
    frames = [(40 + grain).astype(np.uint8) for grain in noise]
    assert shots_of(frames) == [(0, 19)]


def test_one_frame_and_none() -> None:
    assert shots_of(THREE[:1]) == [(0, 0)]
    assert split_shots([], 27, 5) == ()


def test_the_strongest_of_near_cuts_stays() -> None:
    scores = [0, 1, 1, 1, 1, 1, 60, 1, 90, 1, 1, 1, 1, 1, 1]
    assert split_shots(scores, 27, 5) == (Shot(0, 7), Shot(8, 14))
    assert len(split_shots(scores, 27, 1)) == 3
    assert split_shots(scores, 27, 8) == (Shot(0, 14),)


SCORES = st.lists(st.floats(-200, 200), min_size=1, max_size=60)


@given(scores=SCORES, threshold=st.floats(1, 255), length=st.integers(1, 70))
def test_shots_cover_every_frame_once(
    scores: list[float], threshold: float, length: int
) -> None:
    shots = split_shots(scores, threshold, length)
    covered = [k for shot in shots for k in range(shot.first, shot.last + 1)]
    assert covered == list(range(len(scores)))
    if len(shots) > 1:
        assert min(shot.last - shot.first + 1 for shot in shots) >= length
        assert all(scores[shot.first] >= threshold for shot in shots[1:])


def test_clips_of_one_shot() -> None:
    assert clip_shots(package_clip("bigbuckbunny.mp4")) == [(0, 131)]
    for path in list_shared_clips():
        assert len(clip_shots(path, 60)) == 1, path


def test_a_clip_of_six_shots() -> None:
    # Looked at on both sides of every cut.
    expected = [(0, 29), (30, 75), (76, 136), (137, 186), (187, 241), (242, 249)]
    assert clip_shots(package_clip("bikes.mp4")) == expected
