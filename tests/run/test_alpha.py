"""Transparent parts of a source: told, and kept in the result where it may be transparent."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from fresco.errors import SettingsError, VideoError
from fresco.options import from_dict
from fresco.progress import Progress
from fresco.run.translate import propagate_keys
from fresco.settings import FrescoSettings
from fresco.video.reader import open_source
from fresco.video.writer import VideoWriter
from fresco.workspace import frame_name, write_image

COUNT, HIGH, WIDE = 3, 64, 96


def draw(number: int) -> NDArray[np.uint8]:
    """A disc with a soft edge that moves, RGBA; a grey below it that nobody sees."""
    y, x = np.mgrid[:HIGH, :WIDE].astype(np.float32)
    away = np.hypot(y - 32, x - 40 - 3 * number)
    alpha = np.rint(255 * np.clip((24 - away) / 6, 0, 1))
    colour = np.dstack([200 - x, 90 + y, 60 + 0 * x])
    colour[alpha == 0] = 128
    return np.dstack([colour, alpha]).astype(np.uint8)


def over_black(rgba: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.rint(rgba[..., :3] * (rgba[..., 3:] / 255)).astype(np.uint8)


def write_source(place: Path, kind: str) -> Path:
    """The same frames as a folder of images or as a video with alpha."""
    if kind == "":
        (place / "source").mkdir()
        for number in range(COUNT):
            bgra = cv2.cvtColor(draw(number), cv2.COLOR_RGBA2BGRA)
            cv2.imwrite(str(place / "source" / frame_name(number)), bgra)
        return place / "source"
    path = place / f"source{kind}"
    if kind == ".webp":
        first, *rest = (Image.fromarray(draw(number)) for number in range(COUNT))
        first.save(path, save_all=True, append_images=rest, duration=40, lossless=True, exact=True)
        return path
    name = {".mov": "prores-4444", ".webm": "vp9", ".mkv": "ffv1"}[kind]
    with VideoWriter(path, WIDE, HIGH, Fraction(25), codec=name, alpha=True, crf=0) as writer:
        for number in range(COUNT):
            writer.write(draw(number))
    return path


@pytest.mark.parametrize(("kind", "lost"), [
    ("", 0), (".mkv", 0), (".webp", 0), (".mov", 1), (".webm", 2),
])
def test_alpha_is_read_from_every_kind_of_source(tmp_path: Path, kind: str, lost: int) -> None:
    """And told. The levels lost are those of the codec."""
    with open_source(write_source(tmp_path, kind)) as source:
        assert source.info.transparent
        (note,) = (note for note in source.info.notes if "transparent parts" in note)
        assert "output.background transparent keeps them" in note
        for number, alpha in enumerate(source.alphas()):
            assert alpha.shape == (HIGH, WIDE)
            assert np.abs(alpha * 255 - draw(number)[..., 3].astype(float)).max() <= lost + 0.01
        (last,) = source.alphas(2, 2)
        assert np.abs(last * 255 - draw(2)[..., 3].astype(float)).max() <= lost + 0.01


def settings(codec: str, **rest: dict[str, Any]) -> FrescoSettings:
    return from_dict({
        "sampling": {"resolution": 64}, "flow": {"estimator": "dis"},
        "keyframes": {"detect_shots": False}, "propagation": {"method": "flow", "workers": 1},
        "output": {"codec": codec, "background": "transparent"}, **rest,
    })


def run(source: Path, place: Path, chosen: FrescoSettings, name: str) -> Path:
    """Keyframes that are the source over black, so that the result should be the source."""
    for number in range(COUNT):
        write_image(place / "keys" / frame_name(number), over_black(draw(number)))
    result = propagate_keys(
        source, place / "keys", place / name, chosen, Progress(), workspace=place / "workspace"
    )
    return result.output


@pytest.mark.parametrize(("codec", "most"), [("png", 255), ("png-16bit", 65535)])
def test_a_transparent_source_comes_back_bit_by_bit(tmp_path: Path, codec: str, most: int) -> None:
    """Its alpha; its colours over black; and its straight colours where they are seen."""
    output = run(write_source(tmp_path, ""), tmp_path, settings(codec), "r")
    for number in range(COUNT):
        found = cv2.imread(str(output / f"{number:04d}.png"), cv2.IMREAD_UNCHANGED)
        assert found is not None
        found = cv2.cvtColor(found, cv2.COLOR_BGRA2RGBA) / (most / 255)
        wanted = draw(number)
        assert np.abs(found[..., 3] - wanted[..., 3]).max() < 1e-6
        shown = found[..., :3] * (found[..., 3:] / 255)
        assert np.abs(shown - over_black(wanted)).max() <= 0.5
        seen = wanted[..., 3] > 100
        assert np.abs(found[..., :3] - wanted[..., :3])[seen].max() <= 2
    with open_source(output) as again:
        assert again.info.transparent


def test_a_mask_and_the_alpha_are_multiplied(tmp_path: Path) -> None:
    mask = np.zeros((HIGH, WIDE, 3), np.uint8)
    mask[:32] = 255
    write_image(tmp_path / "mask.png", mask)
    chosen = settings("prores-4444", mask={
        "source": "files", "path": str(tmp_path / "mask.png"), "feather": 0})
    output = run(write_source(tmp_path, ".mov"), tmp_path, chosen, "r.mov")
    with open_source(output) as result:
        for number, alpha in enumerate(result.alphas()):
            assert not alpha[32:].any()
            assert np.abs(alpha[:32] * 255 - draw(number)[:32, :, 3].astype(float)).max() <= 2


def test_without_a_wish_it_lies_over_black_and_is_told(tmp_path: Path) -> None:
    chosen = settings("auto", output={"codec": "ffv1", "background": "source"})
    source = write_source(tmp_path, ".mkv")
    output = run(source, tmp_path, chosen, "r.mkv")
    with open_source(output) as result:
        assert not result.info.transparent
        for number, frame in enumerate(result.frames()):
            assert np.array_equal(frame, over_black(draw(number)))


def test_what_cannot_be_transparent_is_refused(tmp_path: Path) -> None:
    source = write_source(tmp_path, "")
    with pytest.raises(VideoError, match=r"H\.264 cannot keep"):
        run(source, tmp_path, settings("auto"), "r.mp4")
    for number in range(COUNT):
        write_image(tmp_path / "opaque" / frame_name(number), draw(number)[..., :3].copy())
    with pytest.raises(SettingsError, match="the source has no transparent parts; choose a mask"):
        run(tmp_path / "opaque", tmp_path, settings("png"), "r")
