"""Hints of ControlNet from folders and videos: found, checked before the work, cut to size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fresco.control import ControlUnit
from fresco.errors import SettingsError
from fresco.options import from_dict
from fresco.run.clip import Clip, open_clip
from fresco.run.hints import HintSource, check_hints, fit_hint
from fresco.workspace import frame_name, write_image
from tests.helpers.clips import write_clip

COUNT, WIDE, HIGH = 5, 96, 64


def level(number: int, size: tuple[int, int] = (HIGH, WIDE)) -> np.ndarray:
    return np.full((*size, 3), 20 * number, np.uint8)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("hints")
    write_clip(place / "clip.mp4", list(np.full((COUNT, HIGH, WIDE, 3), 90, np.uint8)))
    for number in range(COUNT):
        write_image(place / "depth" / frame_name(number), level(number))
        write_image(place / "square" / frame_name(number), level(number, (HIGH, HIGH)))
    return place


def open_part(place: Path, first: int = 0) -> Clip:
    settings = from_dict({"sampling": {"resolution": 64}, "output": {"first_frame": first}})
    return open_clip(place / "clip.mp4", settings)


def found(clip: Clip, path: Path, mode: str = "crop") -> tuple[HintSource, tuple[str, ...]]:
    units = [ControlUnit("m", "canny"), ControlUnit("m", hints=str(path), resize_mode=mode)]
    (none, hints), notes = check_hints(clip, units)
    assert none is None
    assert hints is not None
    return hints, notes


def test_a_folder_and_a_video_give_the_hint_of_each_frame(place: Path) -> None:
    clip = open_part(place)
    hints, notes = found(clip, place / "depth")
    read = hints.read([3, 1], (128, 64))
    assert read.shape == (2, 64, 128, 3)
    assert [int(image[0, 0, 0]) for image in read] == [60, 20]
    assert not notes
    video = place / "depth.mp4"
    write_clip(video, [level(number) for number in range(2, COUNT)])
    part, notes = found(open_part(place, 2), video)
    assert abs(int(part.read([3], (96, 64))[0, 0, 0, 0]) - 60) <= 3
    assert "its first one is that of frame 2" in notes[0]
    with pytest.raises(SettingsError, match="holds 3 hints, but the source has 5 frames"):
        found(clip, video)


def test_their_content_belongs_into_cache_keys(place: Path, tmp_path: Path) -> None:
    clip = open_part(place)
    for number in range(COUNT):
        write_image(tmp_path / frame_name(number), level(number))
    same, _ = found(clip, tmp_path)
    assert same.content == found(clip, place / "depth")[0].content
    write_image(tmp_path / frame_name(4), level(5))
    assert same.content != found(clip, tmp_path)[0].content


def test_what_cannot_be_used_is_refused(place: Path, tmp_path: Path) -> None:
    clip = open_part(place)
    with pytest.raises(SettingsError, match="which does not exist"):
        found(clip, tmp_path / "nowhere")
    with pytest.raises(SettingsError, match="holds no images"):
        found(clip, tmp_path)
    for number in range(COUNT - 1):
        write_image(tmp_path / frame_name(number), level(number))
    with pytest.raises(SettingsError, match="no hint of frame 4; every frame used"):
        found(clip, tmp_path)
    write_image(tmp_path / frame_name(4), level(4, (32, 32)))
    with pytest.raises(SettingsError, match=r"000004\.png is 32x32, others are 96x64"):
        found(clip, tmp_path)


@pytest.mark.parametrize(("mode", "said", "corner", "middle"), [
    ("crop", "cropped at their edges", 200, 200), ("stretch", "are stretched", 200, 200),
    ("fill", "filled up with black", 0, 200),
])
def test_other_proportions_are_told(
    place: Path, mode: str, said: str, corner: int, middle: int
) -> None:
    _, notes = found(open_part(place), place / "square", mode)
    assert said in notes[0]
    shaped = fit_hint(np.full((40, 40, 3), 200, np.uint8), (96, 64), (128, 64), mode)
    assert shaped.shape == (64, 128, 3)
    assert (int(shaped[0, 0, 0]), int(shaped[32, 48, 0])) == (corner, middle)


def test_cropping_keeps_the_middle() -> None:
    image = np.zeros((64, 64, 3), np.uint8)
    image[28:36, 28:36] = 255
    cut = fit_hint(image, (640, 320), (64, 32), "crop")[..., 0]
    rows, columns = np.nonzero(cut)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (12, 19, 28, 35)
