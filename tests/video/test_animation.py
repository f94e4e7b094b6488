"""Files of several images: each one is a frame, at its time."""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from fresco.errors import VideoError
from fresco.video.image_header import count_images
from fresco.video.reader import open_source
from tests.helpers.clips import ClipOptions, moving_texture, write_clip
from tests.helpers.tolerances import COLOR_MEAN

FRAMES = moving_texture(5)
TIMES = (40, 80, 40, 40, 120)


def write_images(path: Path, frames: list[np.ndarray] = FRAMES, **how: object) -> Path:
    images = [Image.fromarray(frame) for frame in frames]
    images[0].save(path, save_all=True, append_images=images[1:], **how)
    return path


def require_frames(path: Path, times: list[Fraction], limit: float = 0) -> None:
    with open_source(path) as source:
        assert source.info.timestamps == tuple(times)
        straight = list(source.frames())
        assert len(straight) == len(FRAMES)
        for got, true in zip(straight, FRAMES, strict=True):
            assert np.abs(got.astype(int) - true).mean() <= limit
        for number in (3, 0, 4):
            assert np.array_equal(source.frame(number), straight[number])


def test_an_animated_webp(tmp_path: Path) -> None:
    path = write_images(tmp_path / "a.webp", duration=list(TIMES), lossless=True)
    assert count_images(path) == 5
    require_frames(path, [Fraction(sum(TIMES[:k]), 1000) for k in range(5)])
    assert open_source(path).info.seconds == Fraction(sum(TIMES), 1000)
    assert open_source(path).info.variable_rate


@pytest.mark.parametrize("name", ["a.png", "a.apng"])
def test_an_animated_png(tmp_path: Path, name: str) -> None:
    path = write_images(tmp_path / name, format="PNG", duration=40)
    assert count_images(path) == 5
    require_frames(path, [Fraction(k, 25) for k in range(5)])


def test_an_animated_avif(tmp_path: Path) -> None:
    if "avif" not in av.formats_available or "libsvtav1" not in av.codecs_available:
        pytest.skip("this PyAV writes no AVIF")
    how = ClipOptions(codec="libsvtav1", options={"crf": "10", "svtav1-params": "preset=8"})
    path = write_clip(tmp_path / "a.avif", FRAMES, how)
    require_frames(path, [Fraction(k, 25) for k in range(5)], 2 * COLOR_MEAN)
    assert not open_source(path).info.notes


def test_pages_of_a_tiff(tmp_path: Path) -> None:
    path = write_images(tmp_path / "a.tif")
    assert count_images(path) == 5
    require_frames(path, [Fraction(k, 24) for k in range(5)])


def test_small_versions_of_a_page_are_not_pages(tmp_path: Path) -> None:
    path = write_images(tmp_path / "a.tif", FRAMES[:2])
    data = bytearray(path.read_bytes())
    second = struct.unpack_from("<I", data, 8 + 2 + 12 * struct.unpack_from("<H", data, 8)[0])[0]
    # The first entry of the second page becomes the one that calls it a small version.
    struct.pack_into("<HHII", data, second + 2, 254, 4, 1, 1)
    path.write_bytes(data)
    assert count_images(path) == 1
    assert open_source(path).info.frames == 1


def test_images_of_16_bits_and_grey(tmp_path: Path) -> None:
    levels = [np.full((8, 8), 257 * value, np.uint16) for value in (10, 200)]
    path = tmp_path / "a.tif"
    images = [Image.fromarray(level) for level in levels]
    images[0].save(path, save_all=True, append_images=images[1:])
    with open_source(path) as source:
        assert [frame[0, 0].tolist() for frame in source.frames()] == [[10] * 3, [200] * 3]


def test_alpha_lies_over_black(tmp_path: Path) -> None:
    rgba = np.full((8, 8, 4), 200, np.uint8)
    rgba[:, :4, 3], rgba[:, 4:, 3] = 255, 0
    path = write_images(tmp_path / "a.webp", [rgba, rgba[:, ::-1].copy()], lossless=True)
    with open_source(path) as source:
        first, second = source.frames()
    assert (first[:, :4] == 200).all()
    assert (first[:, 4:] == 0).all()
    assert (second[:, :4] == 0).all()


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif"])
def test_one_image_is_one(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    Image.fromarray(FRAMES[0]).save(path)
    assert count_images(path) == 1
    assert open_source(path).info.frames == 1


@pytest.mark.parametrize("suffix", [".webp", ".tif"])
def test_a_cut_off_file_is_refused(tmp_path: Path, suffix: str) -> None:
    path = write_images(tmp_path / f"a{suffix}")
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(VideoError, match=path.name), open_source(path) as source:
        list(source.frames())


def test_several_images_in_a_file_of_a_folder_are_told(tmp_path: Path) -> None:
    for number in range(3):
        Image.fromarray(FRAMES[number]).save(tmp_path / f"{number:04d}.png")
    assert not open_source(tmp_path).info.notes
    for number in range(2):
        write_images(tmp_path / f"{number:04d}.png", format="PNG")
    with open_source(tmp_path) as source:
        assert source.info.frames == 3
        assert source.info.notes == (
            "0000.png holds 5 images; only its first is used, as one frame. 2 files of the folder "
            "are such.",
        )
