"""Guides from folders: they say what colours cannot, and are checked before the work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fresco.errors import SettingsError
from fresco.options import from_dict, list_named_paths
from fresco.progress import Progress
from fresco.run.clip import open_clip
from fresco.run.guide_folders import check_guides, parse_guide
from fresco.run.translate import propagate_keys
from fresco.settings import FrescoSettings
from fresco.video.reader import open_source
from fresco.workspace import frame_name, write_image

COUNT, SIDE = 5, 64


def settings(*guides: str, **propagation: Any) -> FrescoSettings:
    return from_dict({
        "sampling": {"resolution": SIDE}, "flow": {"estimator": "dis"},
        "keyframes": {"detect_shots": False},
        "propagation": {"workers": 1, "guides": list(guides), **propagation},
    })


def split(column: int, left: tuple[int, ...], right: tuple[int, ...]) -> NDArray[np.uint8]:
    image = np.empty((SIDE, SIDE, 3), np.uint8)
    image[:, :column], image[:, column:] = left, right
    return image


def find_border(frame: int) -> int:
    """Column where one object ends, in a frame whose colours do not tell."""
    return 28 + 3 * frame


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("guides")
    for number in range(COUNT):
        write_image(place / "source" / frame_name(number), np.full((SIDE, SIDE, 3), 90, np.uint8))
        ids = split(find_border(number), (255, 0, 0), (0, 255, 0))
        write_image(place / "ids" / frame_name(number), ids)
    key = split(find_border(0), (20, 40, 220), (230, 220, 20))
    write_image(place / "keys" / frame_name(0), key)
    return place


def paint(place: Path, output: Path, chosen: FrescoSettings) -> list[int]:
    """The column where the painted border lies, of every frame."""
    result = propagate_keys(place / "source", place / "keys", output, chosen, Progress())
    with open_source(result.output) as written:
        return [int((frame[SIDE // 2, :, 2] > 120).sum()) for frame in written.frames()]


def test_object_ids_lead_where_colours_are_alike(place: Path, tmp_path: Path) -> None:
    guided = paint(place, tmp_path / "a", settings(f"{place / 'ids'}:20"))
    plain = paint(place, tmp_path / "b", settings())
    wanted = [find_border(number) for number in range(COUNT)]
    assert np.abs(np.subtract(guided, wanted)).max() <= 2
    assert abs(plain[-1] - wanted[-1]) > 6


def test_weights_are_read_and_paths_named_without_them(tmp_path: Path) -> None:
    assert parse_guide(f"{tmp_path}:2.5") == (tmp_path, 2.5)
    assert parse_guide(str(tmp_path)) == (tmp_path, 1)
    assert parse_guide("C:\\ids") == (Path("C:\\ids"), 1)
    assert list_named_paths(settings("/a/ids:2", "/b")) == ("/a/ids", "/b")
    for weight in ("0", "-1", "1000", "nan"):
        with pytest.raises(SettingsError, match="more than 0, at most 100"):
            parse_guide(f"ids:{weight}")


def test_guides_are_part_of_what_frames_are_made_from(place: Path) -> None:
    clip = open_clip(place / "source", settings())
    light, heavy = (
        check_guides(clip, settings(f"{place / 'ids'}:{weight}").propagation)[0][0]
        for weight in (1, 2)
    )
    assert light.content == heavy.content
    assert (light.weight, heavy.weight) == (1, 2)
    assert light.read(2, (32, 16)).shape == (32, 16, 3)


def copy_ids(place: Path, folder: Path, count: int = COUNT) -> Path:
    for number in range(count):
        data = (place / "ids" / frame_name(number)).read_bytes()
        folder.mkdir(exist_ok=True)
        (folder / frame_name(number)).write_bytes(data)
    return folder


def test_guides_that_do_not_fit_are_refused(place: Path, tmp_path: Path) -> None:
    clip = open_clip(place / "source", settings())

    def refuse(said: str, *guides: object, **propagation: Any) -> None:
        with pytest.raises(SettingsError, match=said):
            check_guides(clip, settings(*map(str, guides), **propagation).propagation)

    ids = place / "ids"
    refuse("is not a folder", tmp_path / "nothing")
    refuse("names 9 folders; give at most 8", *[ids] * 9)
    refuse("are for patches", ids, method="flow")
    refuse("has no image of frame 3", copy_ids(place, tmp_path / "short", 3))
    wide = copy_ids(place, tmp_path / "wide")
    write_image(wide / frame_name(2), np.zeros((32, 64, 3), np.uint8))
    refuse("000002.png in .* is 64x32, the frames are 64x64; give a guide", wide)
    damaged = copy_ids(place, tmp_path / "damaged")
    (damaged / frame_name(1)).write_bytes(b"no image")
    refuse("A guide cannot be read", damaged)
    (damaged / "other.png").write_bytes(b"")
    refuse("no frame numbers of their own", damaged)
