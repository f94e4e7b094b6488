"""A segment: frames whose true result is known, resume, sizes, bad input."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from fresco.errors import Cancelled, PropagationError
from fresco.flow.dis import DisEstimator
from fresco.propagation.propagate import propagate_segment
from fresco.settings import BlendSettings
from fresco.workspace import frame_name, read_image
from tests.helpers.scenes import SlidingScene, contents, list_pictures, make_jobs, negative

SCENE = SlidingScene(7)
KEYS = [0, 6]


def error(folder: Path, frame: int, wanted: np.ndarray) -> float:
    picture = read_image(folder / "frames" / frame_name(frame))
    assert picture is not None
    return float(np.abs(picture.astype(int) - wanted).mean())


@pytest.mark.parametrize(
    "blend",
    [BlendSettings(), BlendSettings(False, True), BlendSettings(True, False),
     BlendSettings(False, False)],
)
def test_frames_between_are_the_true_ones(tmp_path: Path, blend: BlendSettings) -> None:
    """Far nearer to the truth than the cross-fade of the keys, whichever blends are on."""
    (job,) = make_jobs(SCENE, KEYS, tmp_path, blend=blend)
    assert propagate_segment(job, DisEstimator()) == 5
    ends = [negative(SCENE.image(key)).astype(float) for key in KEYS]
    for frame in range(1, 6):
        wanted = negative(SCENE.image(frame))
        fade = np.abs(ends[0] + (ends[1] - ends[0]) * frame / 6 - wanted).mean()
        assert error(tmp_path, frame, wanted) < 0.35 * fade


def test_nothing_is_left_in_the_folder_but_frames_and_what_is_known_of_them(
    tmp_path: Path
) -> None:
    (job,) = make_jobs(SCENE, KEYS, tmp_path)
    propagate_segment(job, DisEstimator())
    names = [frame_name(frame) for frame in range(1, 6)]
    files = contents(job.folder)
    assert list_pictures(files) == names
    assert set(files) == {*names, *(f"sides/{name}" for name in names),
                          "judged-000000-000006.json"}


def test_a_still_scene_shows_the_keys_themselves(tmp_path: Path) -> None:
    still = SlidingScene(4, speed=0)
    (job,) = make_jobs(still, [0, 3], tmp_path)
    propagate_segment(job, DisEstimator())
    for frame in (1, 2):
        assert error(tmp_path, frame, negative(still.image(0))) < 0.5


@pytest.mark.parametrize("at", [3, 9, 14, 19])
def test_stopped_and_resumed_gives_the_same_bytes(tmp_path: Path, at: int) -> None:
    (whole,) = make_jobs(SCENE, KEYS, tmp_path / "whole")
    propagate_segment(whole, DisEstimator())
    (job,) = make_jobs(SCENE, KEYS, tmp_path / "stopped")
    calls = iter(range(1000))

    def stop() -> None:
        if next(calls) == at:
            raise Cancelled("stop")

    with pytest.raises(Cancelled):
        propagate_segment(job, DisEstimator(), stop)
    assert 0 < len(job.find_missing()) <= 5
    assert job.scratch.exists()
    assert propagate_segment(job, DisEstimator()) > 0
    assert propagate_segment(job, DisEstimator()) == 0
    assert not job.scratch.exists()
    for frame in job.interior:
        assert job.path(frame).read_bytes() == whole.path(frame).read_bytes()


def test_larger_keys_give_larger_frames(tmp_path: Path) -> None:
    (job,) = make_jobs(SCENE, KEYS, tmp_path, scale=2)
    propagate_segment(job, DisEstimator())
    picture = read_image(job.path(3))
    assert picture is not None
    assert picture.shape == (2 * SCENE.height, 2 * SCENE.width, 3)
    small = picture[::2, ::2].astype(int)
    assert np.abs(small - negative(SCENE.image(3))).mean() < 12


@pytest.mark.parametrize(("height", "width"), [(1, 1), (5, 9), (16, 16), (17, 40), (4, 200)])
def test_any_size_and_all_frames_equal(tmp_path: Path, height: int, width: int) -> None:
    @dataclass(frozen=True)
    class Flat(SlidingScene):
        def image(self, frame: int) -> np.ndarray:
            return np.full((height, width, 3), 80, np.uint8)

    (job,) = make_jobs(Flat(4), [0, 3], tmp_path)
    propagate_segment(job, DisEstimator())
    assert error(tmp_path, 1, np.full((height, width, 3), 175)) <= 1


def test_memory_holds_a_few_frames_only(tmp_path: Path) -> None:
    """What a loader's consumer keeps alive does not grow with the segment."""
    alive, most = [0], [0]

    class Counted(np.ndarray):
        def __del__(self) -> None:
            if self.base is None:
                alive[0] -= 1

    @dataclass(frozen=True)
    class Counting(SlidingScene):
        def __call__(self, first: int, last: int) -> Iterator[np.ndarray]:
            for image in super().__call__(first, last):
                alive[0] += 1
                most[0] = max(most[0], alive[0])
                yield np.array(image).view(Counted).copy()

    scene = Counting(17, height=32, width=40, square=0)
    (job,) = make_jobs(scene, [0, 16], tmp_path)
    propagate_segment(job, DisEstimator())
    assert most[0] <= 6


def test_unreadable_and_unequal_keys_are_named(tmp_path: Path) -> None:
    (job,) = make_jobs(SCENE, KEYS, tmp_path)
    other = make_jobs(SCENE, KEYS, tmp_path / "large", scale=2)[0]
    with pytest.raises(PropagationError, match=r"000006\.png is 160x128.*give keyframes of one"):
        propagate_segment(replace(job, last_key=other.last_key), DisEstimator())
    job.first_key.write_bytes(b"")
    with pytest.raises(PropagationError, match=r"000000\.png cannot be read"):
        propagate_segment(job, DisEstimator())
