"""PNG results: 8 and 16 bits, and the settings in every image."""

from __future__ import annotations

import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from fresco.errors import VideoError
from fresco.video.codecs import read_comment
from fresco.video.folder import ImageFolderWriter
from fresco.video.png_text import add_text, read_text
from fresco.video.size import scale_deep, scale_frame
from tests.helpers.clips import moving_texture

TEXT = '{"prompt": "a dog; ünïcode 犬"}'


def test_sixteen_bits_hold_what_scaling_gives(tmp_path: Path) -> None:
    """The file holds the very values; rounded to 8 bits they are what 8 bits hold, within one."""
    frame = moving_texture(1, 48, 64)[0]
    for size in ((64, 48), (96, 72), (40, 30)):
        deep = scale_deep(frame, size)
        with ImageFolderWriter(tmp_path / f"{size[0]}", bits=16, comment=TEXT) as writer:
            writer.write(deep)
        path = tmp_path / f"{size[0]}" / "0000.png"
        found = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)[..., ::-1]
        assert found.dtype == np.uint16
        assert np.array_equal(found, deep)
        assert read_comment(path) == TEXT
        plain = scale_frame(frame, size).astype(int)
        assert np.abs(deep / 257 - plain).max() <= 1
        between = (deep % 257 != 0).any()
        assert between == (size != (64, 48)), "without scaling there is nothing between"


def test_the_depth_must_fit(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match="other depth"), \
            ImageFolderWriter(tmp_path / "x") as writer:
        writer.write(np.zeros((4, 4, 3), np.uint16))


def test_a_text_is_read_by_others_and_damage_is_survived(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    plain = cv2.imencode(".png", np.zeros((3, 5, 3), np.uint8))[1].tobytes()
    path.write_bytes(add_text(plain, TEXT))
    with Image.open(path) as image:
        assert image.text["Comment"] == TEXT  # type: ignore[attr-defined]
        image.load()
    assert add_text(plain, "") == plain
    packed = zlib.compress(TEXT.encode(), 9)
    for cut in (b"", plain[:20], add_text(plain, TEXT).replace(packed, b"x" * len(packed))):
        path.write_bytes(cut)
        assert read_text(path) == ""
    assert read_text(tmp_path / "absent.png") == ""
