"""Keyframes by name: which frame of the source each belongs to."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from fresco.errors import SettingsError
from fresco.options import from_dict
from fresco.progress import Progress
from fresco.run.clip import Clip, open_clip
from fresco.run.external_keyframes import list_external_keyframes
from fresco.run.result import EXPORTED
from fresco.run.translate import propagate_keys
from fresco.settings import FrescoSettings
from fresco.video.folder import FRAMES_MARK
from fresco.workspace import write_image
from tests.helpers.clips import moving_texture, write_clip

GREY = np.full((64, 64, 3), 90, np.uint8)
COUNT = 12


def settings(**output: int) -> FrescoSettings:
    return from_dict({
        "sampling": {"resolution": 64}, "flow": {"estimator": "dis"}, "output": output,
        "keyframes": {"detect_shots": False}, "propagation": {"method": "flow", "workers": 1},
    })


def folder_of(place: Path, names: Sequence[str]) -> Path:
    for name in names:
        write_image(place / name, GREY)
    return place


def open_frames(place: Path, first: int, **output: int) -> Clip:
    """A folder of images that count from `first`."""
    names = [f"{first + k:05d}.png" for k in range(COUNT)]
    return open_clip(folder_of(place / "frames", names), settings(**output))


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Clip:
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    return open_clip(write_clip(path, moving_texture(COUNT, 64, 64)), settings())


def find_frames(folder: Path, clip: Clip) -> tuple[dict[int, str], tuple[str, ...]]:
    found, notes = list_external_keyframes(folder, clip)
    return {number: path.name for number, path in found.items()}, notes


@pytest.mark.parametrize("mark", [FRAMES_MARK, EXPORTED])
def test_folders_that_this_program_made_count_frames(tmp_path: Path, mark: str) -> None:
    """Also where every number is one of the source's images too."""
    keys = folder_of(tmp_path / "keys", ["000001.png", "000009.png"])
    (keys / mark).touch()
    found = find_frames(keys, open_frames(tmp_path, 1))
    assert found == ({1: "000001.png", 9: "000009.png"}, ())


@pytest.mark.parametrize("first", [1, 100])
def test_a_number_is_that_of_the_sources_image(tmp_path: Path, first: int) -> None:
    """Wherever the images begin to count, and whatever else is in the names."""
    names = [f"style_{first}.png", f"style_{first + 8}.jpg"]
    found, (note,) = find_frames(folder_of(tmp_path / "keys", names), open_frames(tmp_path, first))
    assert found == {0: names[0], 8: names[1]}
    assert f"{first} is {first:05d}.png, which is frame 0" in note


def test_images_that_count_from_0_need_no_word(tmp_path: Path) -> None:
    keys = folder_of(tmp_path / "keys", ["1.png", "9.png"])
    assert find_frames(keys, open_frames(tmp_path, 0)) == ({1: "1.png", 9: "9.png"}, ())


def test_keyframes_of_this_program_count_frames(tmp_path: Path) -> None:
    """It names them by position, and the first frame of a shot is always one."""
    keys = folder_of(tmp_path / "keys", ["000000.png", "000008.png"])
    found, (note,) = find_frames(keys, open_frames(tmp_path, 1))
    assert found == {0: "000000.png", 8: "000008.png"}
    assert "numbers 1 to 12 in their names" in note


def test_a_number_that_no_image_has_is_refused(tmp_path: Path) -> None:
    keys = folder_of(tmp_path / "keys", ["00001.png", "00013.png"])
    with pytest.raises(SettingsError, match=r"00013\.png has a number .* are 1 to 12"):
        list_external_keyframes(keys, open_frames(tmp_path, 1))


def test_an_image_outside_the_frames_used_is_refused(tmp_path: Path) -> None:
    keys = folder_of(tmp_path / "keys", ["00001.png", "00004.png"])
    with pytest.raises(SettingsError, match=r"00001\.png is frame 0, outside .* 3 to 11"):
        list_external_keyframes(keys, open_frames(tmp_path, 1, first_frame=3))


def test_names_without_numbers_of_their_own_are_counted(tmp_path: Path) -> None:
    source = folder_of(tmp_path / "frames", ["a1.png", "b1.png", "c1.png"])
    keys = folder_of(tmp_path / "keys", ["0.png", "2.png"])
    found, notes = find_frames(keys, open_clip(source, settings()))
    assert (found, notes) == ({0: "0.png", 2: "2.png"}, ())


def test_a_video_counts_from_0_and_says_so_where_it_may_be_missed(
    video: Clip, tmp_path: Path
) -> None:
    found, (note,) = find_frames(folder_of(tmp_path / "one", ["1.png", "9.png"]), video)
    assert found == {1: "1.png", 9: "9.png"}
    assert "count frames from 0" in note
    assert find_frames(folder_of(tmp_path / "two", ["0.png", "1.png"]), video)[1] == ()
    with pytest.raises(SettingsError, match=r"12\.png is frame 12.*counted from 0"):
        list_external_keyframes(folder_of(tmp_path / "three", ["1.png", "12.png"]), video)


@pytest.mark.parametrize("other", ["0.jpg", "mask_000.png"])
def test_two_images_of_one_frame_are_refused(video: Clip, tmp_path: Path, other: str) -> None:
    keys = folder_of(tmp_path / "keys", ["0.png", other])
    with pytest.raises(SettingsError, match="are both frame 0"):
        list_external_keyframes(keys, video)


def test_hidden_files_are_passed_over(video: Clip, tmp_path: Path) -> None:
    keys = folder_of(tmp_path / "keys", ["0.png"])
    (keys / "._0.png").write_bytes(b"\0\5\x16\7")
    (keys / "5.png").mkdir()
    assert find_frames(keys, video)[0] == {0: "0.png"}


def test_transparent_keyframes_are_told(video: Clip, tmp_path: Path) -> None:
    import cv2

    (tmp_path / "keys").mkdir()
    clear = np.dstack([GREY, np.full((64, 64), 128, np.uint8)])
    cv2.imwrite(str(tmp_path / "keys" / "0.png"), clear)
    result = propagate_keys(
        Path(video.info.path), tmp_path / "keys", tmp_path / "r.mp4", settings(), Progress()
    )
    assert "0.png has transparent parts, which are laid over black." in result.notes
