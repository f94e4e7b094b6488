"""Runs with a mask: exact source outside, the soft edge inside, and bad masks refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from fresco.errors import SettingsError, WeightsError
from fresco.options import from_dict
from fresco.progress import Progress
from fresco.run.clip import open_clip
from fresco.run.masks import check_mask
from fresco.run.translate import propagate_keys
from fresco.settings import FrescoSettings, MaskSettings
from fresco.video.reader import open_source
from fresco.workspace import frame_name, read_image, write_image
from tests.helpers.clips import write_clip
from tests.helpers.moving_square import (
    HEIGHT,
    WIDTH,
    draw_frame,
    draw_mask,
    overlap,
    write_mask,
    write_masks,
)

COUNT = 8


def settings(shots: bool = False, **mask: Any) -> FrescoSettings:
    return from_dict({
        "sampling": {"resolution": 64}, "flow": {"estimator": "dis"}, "mask": mask,
        "keyframes": {"detect_shots": shots}, "propagation": {"method": "flow", "workers": 1},
    })


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip, its keyframes turned negative, and its masks."""
    place = tmp_path_factory.mktemp("masks")
    for number in range(COUNT):
        write_image(place / "source" / frame_name(number), draw_frame(number))
    for number in (0, COUNT - 1):
        write_image(place / "keys" / frame_name(number), np.invert(draw_frame(number)))
    write_masks(place / "all", COUNT)
    write_mask(place / "drawn" / frame_name(0), draw_mask(0))
    return place


def run(folder: Path, output: Path, chosen: FrescoSettings) -> list[NDArray[np.uint8]]:
    result = propagate_keys(
        folder / "source", folder / "keys", output, chosen, Progress(),
        workspace=output.parent / "workspace",
    )
    with open_source(result.output) as written:
        return list(written.frames())


@pytest.mark.parametrize("name", ["result.mkv", "result"])
def test_outside_the_mask_the_result_is_the_source_bit_by_bit(
    folder: Path, tmp_path: Path, name: str
) -> None:
    """In files without loss; inside it is what it would be without a mask, edge aside."""
    codec = "ffv1" if name.endswith(".mkv") else "auto"

    def chosen(**mask: Any) -> FrescoSettings:
        return from_dict({"output": {"codec": codec}}, settings(**mask))

    whole = run(folder, tmp_path / name, chosen())
    masked = run(folder, tmp_path / f"masked_{name}", chosen(
        source="files", path=str(folder / "all"), feather=3))
    for number in range(COUNT):
        outside, source = ~draw_mask(number), draw_frame(number)
        assert np.array_equal(masked[number][outside], source[outside])
        core = np.zeros_like(outside)
        rows, columns = np.nonzero(draw_mask(number))
        core[rows.min() + 4:rows.max() - 3, columns.min() + 4:columns.max() - 3] = True
        assert np.array_equal(masked[number][core], whole[number][core])
        assert not np.array_equal(masked[number], whole[number])


def test_a_transparent_result_has_the_mask_as_its_alpha(folder: Path, tmp_path: Path) -> None:
    """In images of 16 bits; its colours are those without a mask, everywhere."""
    def chosen(**mask: Any) -> FrescoSettings:
        output = {"codec": "png-16bit", "background": "transparent" if mask else "source"}
        return from_dict({"output": output}, settings(**mask))

    run(folder, tmp_path / "whole", chosen())
    run(folder, tmp_path / "seen", chosen(source="files", path=str(folder / "all"), feather=3))
    for number in range(COUNT):
        whole, seen = (
            cv2.imread(str(tmp_path / name / f"{number:04d}.png"), cv2.IMREAD_UNCHANGED)
            for name in ("whole", "seen")
        )
        assert seen.dtype == np.uint16
        assert np.array_equal(seen[..., :3], whole)
        assert not seen[..., 3][~draw_mask(number)].any()
        assert seen[..., 3].max() == 65535
    with pytest.raises(SettingsError, match=r"but mask\.source is 'none'"):
        run(folder, tmp_path / "none", from_dict({"output": {"background": "transparent"}}))


def test_another_mask_only_writes_the_result_again(folder: Path, tmp_path: Path) -> None:
    run(folder, tmp_path / "r", settings())
    frames = {path: path.stat().st_mtime_ns for path in tmp_path.glob("workspace/frames-*/*.png")}
    assert frames
    drawing = {"source": "drawing", "path": str(folder / "drawn"), "feather": 0}
    inside = run(folder, tmp_path / "r", settings(**drawing))
    outside = run(folder, tmp_path / "r", settings(invert=True, **drawing))
    again = {path: path.stat().st_mtime_ns for path in tmp_path.glob("workspace/frames-*/*.png")}
    assert again == frames
    (masks,) = tmp_path.glob("workspace/masks-*")
    for number in range(COUNT):
        image = read_image(masks / frame_name(number))
        assert image is not None
        mask = image[..., 0] > 127
        assert overlap(mask, draw_mask(number)) > 0.75
        source = draw_frame(number)
        assert np.array_equal(inside[number][~mask], source[~mask])
        assert np.array_equal(outside[number][mask], source[mask])
        assert (inside[number][mask] != outside[number][mask]).any()


def test_a_damaged_mask_is_made_anew(folder: Path, tmp_path: Path) -> None:
    chosen = settings(source="drawing", path=str(folder / "drawn"))
    before = run(folder, tmp_path / "r", chosen)
    (masks,) = tmp_path.glob("workspace/masks-*")
    path = masks / frame_name(5)
    whole = path.read_bytes()
    path.write_bytes(whole[:len(whole) // 2])
    assert np.array_equal(run(folder, tmp_path / "r", chosen), before)
    assert path.read_bytes() == whole


def test_every_drawing_has_the_frames_shape(folder: Path, tmp_path: Path) -> None:
    """Also one behind those that show what a mask shall."""
    write_mask(tmp_path / frame_name(0), draw_mask(0))
    write_mask(tmp_path / frame_name(5), draw_mask(5)[:HEIGHT // 2])
    with pytest.raises(SettingsError, match=r"000005\.png is"):
        check_mask(open_clip(folder / "source", settings()),
                   MaskSettings("drawing", str(tmp_path)))


def test_what_moves_is_found_without_a_drawing(folder: Path, tmp_path: Path) -> None:
    run(folder, tmp_path / "r", settings(source="motion"))
    (masks,) = tmp_path.glob("workspace/masks-*")
    found = [read_image(masks / frame_name(number)) for number in range(COUNT)]
    overlaps = [overlap(image[..., 0] > 127, draw_mask(number))
                for number, image in enumerate(found) if image is not None]
    assert len(overlaps) == COUNT
    assert np.mean(overlaps) > 0.4  # found at half of 64 pixels, so it is coarse


def test_a_draft_looks_for_weights_where_it_is_told(folder: Path, tmp_path: Path) -> None:
    chosen = from_dict({
        "flow": {"weights_dir": str(tmp_path / "none"), "offline": True},
        "propagation": {"quality": "draft", "method": "patch"},
    }, settings(source="u2netp"))
    with pytest.raises(WeightsError, match=str(tmp_path / "none")):
        run(folder, tmp_path / "r", chosen)


def test_where_nothing_moves_the_run_says_so(folder: Path, tmp_path: Path) -> None:
    for number in range(3):
        write_image(tmp_path / "source" / frame_name(number), draw_frame(0))
    write_image(tmp_path / "keys" / frame_name(0), draw_frame(0))
    with pytest.raises(SettingsError, match="By motion no frame shows a subject"):
        run(tmp_path, tmp_path / "r", settings(source="motion"))


def test_every_shot_needs_a_drawing(folder: Path, tmp_path: Path) -> None:
    for number in range(12):
        image = draw_frame(number) if number < 6 else np.full((HEIGHT, WIDTH, 3), 250, np.uint8)
        write_image(tmp_path / "source" / frame_name(number), image)
    for number in (0, 6):
        write_image(tmp_path / "keys" / frame_name(number), draw_frame(number))
    with pytest.raises(SettingsError, match="shot of frames 6 to 11 has no drawn mask"):
        run(tmp_path, tmp_path / "r", settings(
            shots=True, source="drawing", path=str(folder / "drawn")))


def test_a_video_and_a_still_mask_and_one_of_another_size(folder: Path, tmp_path: Path) -> None:
    clip = open_clip(folder / "source", settings())
    video = write_clip(tmp_path / "m.mp4", [
        np.repeat((draw_mask(n) * np.uint8(255))[..., None], 3, axis=2) for n in range(COUNT)])
    known = check_mask(clip, MaskSettings("files", str(video)))
    assert known is not None
    assert known.sequence is not None
    for number, share in enumerate(known.sequence.read(COUNT)):
        assert overlap(share >= 0.5, draw_mask(number)) > 0.97
    large = write_mask(tmp_path / "still.png", draw_mask(0), repeat=2)
    still = check_mask(clip, MaskSettings("files", str(large)))
    assert still is not None
    assert "is 256x128; it is scaled to the frames' 128x64" in still.notes[0]
    drawing = check_mask(clip, MaskSettings("drawing", str(large)))
    assert drawing is not None
    assert list(drawing.drawings) == [0]
    assert "still.png is taken as the mask of frame 0" in drawing.notes[0]


def test_as_many_masks_as_frames_used_begin_with_the_first_of_them(
    folder: Path, tmp_path: Path
) -> None:
    part = from_dict({"output": {"first_frame": 2, "last_frame": 4}}, settings())
    known = check_mask(open_clip(folder / "source", part), MaskSettings(
        "files", str(write_masks(tmp_path / "three", 3))))
    assert known is not None
    assert known.sequence is not None
    assert known.sequence.start == 0
    assert "first one is that of frame 2" in known.notes[0]


def refuse_black(place: Path) -> Path:
    return write_mask(place / "0.png", np.zeros((HEIGHT, WIDTH), bool))


def refuse_white(place: Path) -> Path:
    return write_mask(place / "0.png", np.ones((HEIGHT, WIDTH), bool))


def refuse_shape(place: Path) -> Path:
    return write_mask(place / "0.png", np.ones((64, 64), bool))


def refuse_gap(place: Path) -> Path:
    write_masks(place / "gap", COUNT)
    (place / "gap" / frame_name(3)).unlink()
    return place / "gap"


def refuse_short(place: Path) -> Path:
    return write_masks(place / "short", COUNT - 2)


@pytest.mark.parametrize(("source", "make", "said"), [
    ("drawing", refuse_black, "black everywhere, so nothing would be translated"),
    ("drawing", refuse_white, "white everywhere, so all would be translated"),
    ("files", refuse_black, "black everywhere, so nothing"),
    ("files", refuse_white, "white everywhere, so all"),
    ("files", refuse_shape, "is 64x64, the frames are 128x64"),
    ("drawing", refuse_shape, "is 64x64, the frames are 128x64"),
    ("files", refuse_gap, "no mask with the number 3, though it has 2 and 4"),
    ("files", refuse_short, r"holds 6 masks, but the source has 8 frames"),
    ("files", lambda place: place / "nothing", "does not exist"),
    ("drawing", lambda place: place / "nothing", "is not there"),
    ("drawing", lambda place: write_mask(place / "99.png", draw_mask(0)), "outside the frames"),
])
def test_masks_that_cannot_be_meant_are_refused(
    folder: Path, tmp_path: Path, source: str, make: Any, said: str
) -> None:
    path = make(tmp_path)
    with pytest.raises(SettingsError, match=said):
        check_mask(open_clip(folder / "source", settings()), MaskSettings(source, str(path)))


def test_a_mask_from_files_needs_a_path(folder: Path) -> None:
    with pytest.raises(SettingsError, match=r"mask\.path is empty"):
        check_mask(open_clip(folder / "source", settings()), MaskSettings("drawing"))
