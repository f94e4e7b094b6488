"""Folders of images, in and out, and single images."""

from __future__ import annotations

import pickle
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

from fresco.errors import VideoError
from fresco.video import folder
from fresco.video.folder import ImageFolderWriter, decode_image, decode_with_alpha
from fresco.video.reader import open_source
from tests.helpers.clips import moving_texture, texture
from tests.helpers.tolerances import COLOR_MEAN

FRAMES = moving_texture(12, 24, 32)


def save(path: Path, image: np.ndarray) -> Path:
    """Write an image as OpenCV wants it (BGR), under any name."""
    path.write_bytes(cv2.imencode(path.suffix, image)[1].tobytes())
    return path


def write_and_fail(path: Path) -> None:
    """Write one frame, then raise."""
    with ImageFolderWriter(path) as writer:
        writer.write(FRAMES[0])
        raise KeyError


def test_written_frames_come_back(tmp_path: Path) -> None:
    with ImageFolderWriter(tmp_path / "out") as writer:
        for frame in FRAMES:
            writer.write(frame)
    names = sorted(path.name for path in (tmp_path / "out").glob("*.png"))
    assert names == [f"{k:04d}.png" for k in range(12)]
    with open_source(tmp_path / "out", rate=Fraction(30000, 1001)) as source:
        assert source.info.frames == 12
        assert source.info.rate == Fraction(30000, 1001)
        assert source.info.seconds == 12 / source.info.rate
        assert not source.info.has_sound
        for got, true in zip(source.frames(), FRAMES, strict=True):
            assert np.array_equal(got, true)
        assert np.array_equal(source.frame(7), FRAMES[7])
        assert len(list(source.frames(3, 5))) == 3
        with pytest.raises(VideoError, match="0 to 11"):
            source.frame(12)


def test_natural_order(tmp_path: Path) -> None:
    for number in (10, 9, 100, 2):
        save(tmp_path / f"frame{number}.png", np.full((8, 8, 3), number, np.uint8))
    save(tmp_path / ".hidden.png", np.zeros((4, 4, 3), np.uint8))
    (tmp_path / "notes.txt").write_text("not a frame")
    with open_source(tmp_path) as source:
        assert [int(frame[0, 0, 0]) for frame in source.frames()] == [2, 9, 10, 100]


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tiff"])
def test_kinds_of_image(tmp_path: Path, suffix: str) -> None:
    rgb = texture(64, 64)
    path = save(tmp_path / f"bild ü{suffix}", rgb[..., ::-1])
    change = np.abs(decode_image(path).astype(int) - rgb)
    assert change.mean() < (2 * COLOR_MEAN if suffix in (".jpg", ".jpeg", ".webp") else 0.01)
    with open_source(path) as source:
        assert source.info.frames == 1


def test_depths_and_channels(tmp_path: Path) -> None:
    deep = np.full((4, 4, 3), 200 * 257, np.uint16)
    assert (decode_image(save(tmp_path / "deep.png", deep)) == 200).all()
    grey = np.full((4, 4), 77, np.uint8)
    assert (decode_image(save(tmp_path / "grey.png", grey)) == 77).all()
    assert decode_image(tmp_path / "grey.png").shape == (4, 4, 3)
    seen_through = np.dstack([np.full((4, 4, 3), 200, np.uint8), np.full((4, 4), 51, np.uint8)])
    assert (decode_image(save(tmp_path / "alpha.png", seen_through)) == 40).all()
    with pytest.raises(VideoError, match="float32"):
        decode_image(save(tmp_path / "f.tiff", np.zeros((4, 4, 3), np.float32)))


def test_sizes_must_agree(tmp_path: Path) -> None:
    save(tmp_path / "1.png", np.zeros((8, 8, 3), np.uint8))
    save(tmp_path / "2.png", np.zeros((8, 10, 3), np.uint8))
    with pytest.raises(VideoError, match=r"2\.png is 10x8, 1\.png is 8x8"):
        open_source(tmp_path)


def test_a_folder_without_images(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(VideoError, match="1 files but no image"):
        open_source(tmp_path)


@pytest.mark.parametrize("content", [b"", b"<html></html>", b"\x89PNG\r\n\x1a\n"])
def test_an_image_that_is_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "0.png").write_bytes(content)
    with pytest.raises(VideoError, match=r"0\.png is not an image"):
        open_source(tmp_path)


def test_an_exception_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        write_and_fail(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_no_frames_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match="No frame"), ImageFolderWriter(tmp_path / "out"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_an_older_result_is_replaced_whole(tmp_path: Path) -> None:
    for count in (12, 3):
        with ImageFolderWriter(tmp_path / "out", first=5) as writer:
            for frame in FRAMES[:count]:
                writer.write(frame)
    names = sorted(path.name for path in (tmp_path / "out").glob("*.png"))
    assert names == ["0005.png", "0006.png", "0007.png"]


def test_numbered_pictures_of_a_person_are_no_older_result(tmp_path: Path) -> None:
    save(tmp_path / "0001.png", np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(VideoError, match=r"0001\.png"), ImageFolderWriter(tmp_path):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["0001.png"]
    (tmp_path / "empty").mkdir()
    with ImageFolderWriter(tmp_path / "empty") as writer:
        writer.write(FRAMES[0])
    assert (tmp_path / "empty" / "0000.png").exists()


def test_a_folder_is_decoded_once_as_long_as_nothing_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [save(tmp_path / f"{k}.png", FRAMES[k]) for k in range(4)]
    seen: list[Path] = []

    def counted(path: Path) -> tuple[np.ndarray, bool]:
        seen.append(path)
        return decode_with_alpha(path)

    monkeypatch.setattr(folder, "decode_with_alpha", counted)
    index = open_source(tmp_path).index
    assert len(seen) == 4
    open_source(tmp_path)
    assert len(seen) == 4
    folder._index_once.cache_clear()  # as in another process, which is handed the index
    open_source(tmp_path, index=pickle.loads(pickle.dumps(index)))
    assert len(seen) == 4
    save(files[1], FRAMES[1][:8])
    with pytest.raises(VideoError, match="one size"):
        open_source(tmp_path, index=index)


def test_files_of_others_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").write_text("x")
    with pytest.raises(VideoError, match=r"holiday\.jpg"), ImageFolderWriter(tmp_path):
        pass
    (tmp_path / "file").write_text("x")
    with pytest.raises(VideoError, match="is a file"), ImageFolderWriter(tmp_path / "file"):
        pass
    assert (tmp_path / "holiday.jpg").exists()


def test_one_image_in_two_kinds_of_file_is_refused(tmp_path: Path) -> None:
    for name in ("1.png", "2.png", "02.jpg"):
        save(tmp_path / name, np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(VideoError, match=r"02\.jpg and 2\.png .* same image"):
        open_source(tmp_path)


@pytest.mark.parametrize(("alpha", "transparent"), [(254, True), (255, False)])
@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_transparent_images_are_told(
    tmp_path: Path, alpha: int, transparent: bool, depth: type, suffix: str
) -> None:
    """One pixel that lets through a little is enough."""
    image = np.full((8, 8, 4), 255, depth) * depth(np.iinfo(depth).max // 255)
    image[3, 3, 3] = alpha * (np.iinfo(depth).max // 255)
    save(tmp_path / f"0{suffix}", image)
    save(tmp_path / f"1{suffix}", image[..., :3])
    with open_source(tmp_path) as source:
        notes = [note for note in source.info.notes if "transparent" in note]
    assert len(notes) == transparent
    assert all(f"0{suffix} has" in note for note in notes)
