"""The painting filter of the demo."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from demo.paint import main, paint
from fresco.workspace import read_image
from tests.helpers.clips import moving_texture, write_clip


def test_a_painting_shows_the_picture_in_strokes() -> None:
    """Its colours are those of the picture, seen from afar; near by they are strokes."""
    picture = cv2.GaussianBlur(moving_texture(1, 120, 160)[0], (0, 0), 4)
    painting = paint(picture, seed=3)
    assert np.array_equal(painting, paint(picture, seed=3))
    assert not np.array_equal(painting, paint(picture, seed=4))
    far = [cv2.blur(image, (25, 25)).astype(int) for image in (picture, painting)]
    assert np.abs(far[0] - far[1]).mean() < 8
    near = [cv2.Laplacian(image, cv2.CV_32F).var() for image in (picture, painting)]
    assert near[1] > 10 * near[0]


def test_frames_are_painted_once(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", moving_texture(6, 64, 96))
    words = [str(clip), str(tmp_path / "keys"), "--every", "3", "--last-frame", "5"]
    main(words)
    paths = sorted((tmp_path / "keys").glob("*.png"))
    assert [path.name for path in paths] == ["000000.png", "000003.png", "000005.png"]
    image = read_image(paths[0])
    assert image is not None
    assert image.shape == (64, 96, 3)
    before = [path.stat().st_mtime_ns for path in paths]
    main(words)
    assert [path.stat().st_mtime_ns for path in paths] == before
    main([*words[:-1], "3"])
    assert not paths[2].exists()


def test_files_of_others_are_left_alone(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", moving_texture(2, 64, 64))
    (tmp_path / "mine.png").write_text("mine")
    with pytest.raises(SystemExit, match="not made by this program"):
        main([str(clip), str(tmp_path), "--last-frame", "1"])
    assert (tmp_path / "mine.png").read_text() == "mine"
