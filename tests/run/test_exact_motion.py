"""Whole runs by motion from files, and such motion that does not fit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fresco.errors import SettingsError
from fresco.flow.files import FORWARD
from fresco.options import from_dict
from fresco.progress import Progress
from fresco.run.clip import Clip, open_clip
from fresco.run.flow_files import check_flow_files
from fresco.run.translate import propagate_keys
from fresco.settings import FlowSettings, FrescoSettings
from fresco.video.reader import open_source
from fresco.workspace import frame_name, write_image
from tests.helpers.clips import moving_texture

COUNT, HEIGHT, WIDTH = 9, 64, 64


def settings(flow: str = "", **output: int) -> FrescoSettings:
    how: dict[str, Any] = {"estimator": "files", "path": flow} if flow else {"estimator": "dis"}
    return from_dict({
        "sampling": {"resolution": 64}, "flow": how, "output": output,
        "keyframes": {"detect_shots": False}, "propagation": {"method": "flow", "workers": 1},
    })


def write_steps(folder: Path, first: int = 0, size: tuple[int, int] = (HEIGHT, WIDTH)) -> Path:
    """Motion of half a pixel right and down, for frames of 64 pixels."""
    folder.mkdir(parents=True)
    for number in range(COUNT):
        forward = np.full((*size, 2), (2 * size[1] / WIDTH, size[0] / HEIGHT), np.float32)
        np.savez(folder / f"motion{first + number:04d}.npz", forward=forward, backward=-forward)
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("exact")
    for number, image in enumerate(moving_texture(COUNT, HEIGHT, WIDTH)):
        write_image(place / "source" / frame_name(number), image)
    write_image(place / "keys" / frame_name(0), np.invert(moving_texture(1, HEIGHT, WIDTH)[0]))
    write_steps(place / "flow")
    return place


@pytest.fixture
def clip(place: Path) -> Clip:
    return open_clip(place / "source", settings())


def test_a_run_moves_keyframes_by_the_files(place: Path, tmp_path: Path) -> None:
    """The files may be larger than the frames; the workspace says which motion was used."""
    large = write_steps(tmp_path / "large", size=(2 * HEIGHT, 2 * WIDTH))
    result = propagate_keys(
        place / "source", place / "keys", tmp_path / "r", settings(str(large)), Progress())
    with open_source(result.output) as written:
        images = list(written.frames())
    assert "read from files" in " ".join(result.notes)
    for number, truth in enumerate(moving_texture(COUNT, HEIGHT, WIDTH)):
        seen = np.s_[number + 1:, 2 * number + 1:]  # the rest was not in the keyframe
        error = np.abs(images[number][seen].astype(int) - np.invert(truth)[seen])
        assert error.mean() < 1  # tracks are aligned after, which moves some pixels a little
    (index,) = result.workspace.glob("motion-files-*.json")
    assert len(json.loads(index.read_text())["frames"]) == COUNT


def test_files_may_count_from_another_number(place: Path, clip: Clip, tmp_path: Path) -> None:
    shutil.copytree(place / "source", tmp_path / "source")
    for number in reversed(range(COUNT)):
        (tmp_path / "source" / frame_name(number)).rename(
            tmp_path / "source" / frame_name(number + 3))
    flow = FlowSettings("files", str(write_steps(tmp_path / "flow", first=3)))
    renamed = check_flow_files(open_clip(tmp_path / "source", settings()), flow)
    assert renamed is not None
    assert list(renamed.files.paths[FORWARD]) == list(range(COUNT))
    far = FlowSettings("files", str(write_steps(tmp_path / "far", first=5)))
    with pytest.raises(SettingsError, match="no forward motion of frame 0"):
        check_flow_files(clip, far)


def drop(folder: Path) -> Path:
    (write_steps(folder) / "motion0004.npz").unlink()
    return folder


def mix(folder: Path) -> Path:
    write_steps(folder)
    other = np.zeros((32, 32, 2), np.float32)
    np.savez(folder / "motion0004.npz", forward=other, backward=other)
    return folder


@pytest.mark.parametrize(("make", "said"), [
    (drop, r"no forward motion of frame 4 \(to the next one\)"),
    (mix, "is 32x32, others are 64x64"),
    (lambda folder: write_steps(folder, size=(64, 128)), "is 128x64, the frames are 64x64"),
    (lambda folder: folder, "is not a folder"),
])
def test_motion_that_does_not_fit_is_refused(
    clip: Clip, tmp_path: Path, make: Any, said: str
) -> None:
    with pytest.raises(SettingsError, match=said):
        check_flow_files(clip, FlowSettings("files", str(make(tmp_path / "flow"))))


def test_motion_from_files_needs_a_path(clip: Clip) -> None:
    with pytest.raises(SettingsError, match=r"flow\.path is empty"):
        check_flow_files(clip, FlowSettings("files"))


def test_only_frames_that_are_used_need_motion(place: Path, tmp_path: Path) -> None:
    part = open_clip(place / "source", settings(first_frame=0, last_frame=3))
    assert check_flow_files(part, FlowSettings("files", str(drop(tmp_path / "flow")))) is not None
