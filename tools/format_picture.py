"""Make docs/formats.webp: one detail in every format of results, with the sizes of the files.

`python -m tools.format_picture` writes the stylised frames of `benchmarks.scene` in each codec at
the default quality, reads a frame back and enlarges a part of it. The last image is a frame with a
transparent background.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks import scene
from fresco.video.codecs import CODECS
from fresco.video.reader import open_source
from fresco.video.writer import VideoWriter

PICTURE = Path(__file__).resolve().parents[1] / "docs" / "formats.webp"
RATE, SHOWN = 12, 12
TOP, LEFT, SIDE, ZOOM = 88, 96, 72, 3
"""The part that is shown."""
COLUMNS, LABEL = 4, 26
CUT_OUT = (1, 2)
"""Surfaces of the scene that stay where the background is transparent: the sheet and the wheel."""

Image = NDArray[np.uint8]


def find_size(path: Path) -> str:
    """How large a file is, in words."""
    return f"{path.stat().st_size / 1000:.0f} kB"


def write_in(codec: str, folder: Path, frames: list[Image], *, alpha: bool = False) -> Path:
    """Write frames in a codec; the file."""
    height, width = frames[0].shape[:2]
    path = folder / f"{codec}{CODECS[codec].suffixes[0]}"
    with VideoWriter(path, width, height, RATE, codec=codec, alpha=alpha) as writer:
        for frame in frames:
            writer.write(frame)
    return path


def label(image: Image, text: str) -> Image:
    """An image with a line of text below it."""
    line = np.full((LABEL, image.shape[1], 3), 24, np.uint8)
    cv2.putText(
        line, text, (6, LABEL - 9), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (235, 235, 235), 1, cv2.LINE_AA
    )
    return np.concatenate([image, line])


def enlarge(frame: Image) -> Image:
    """The part that is shown, every pixel a square."""
    part = frame[TOP : TOP + SIDE, LEFT : LEFT + SIDE, :3]
    return part.repeat(ZOOM, axis=0).repeat(ZOOM, axis=1)


def lay_on_squares(frame: Image) -> Image:
    """A frame with alpha over grey and white squares."""
    rows, columns = np.indices(frame.shape[:2]) // 16
    ground = np.where((rows + columns) % 2, 255, 200)[..., None]
    share = frame[..., 3:] / 255
    return np.asarray(frame[..., :3] * share + ground * (1 - share), np.uint8)


def main() -> None:
    """Write, read back, and put the images together."""
    frames = [scene.render(number)[1] for number in range(scene.FRAMES)]
    shown = [label(enlarge(frames[SHOWN]), "the frame itself")]
    with tempfile.TemporaryDirectory(prefix="fresco-formats-") as name:
        for codec, facts in CODECS.items():
            path = write_in(codec, Path(name), frames)
            with open_source(path) as source:
                shown.append(label(
                    enlarge(source.frame(SHOWN)), f"{facts.label}: {find_size(path)}"))
    mask = np.isin(scene.owners(scene.grid(1), SHOWN), CUT_OUT)
    cut_out = np.dstack([frames[SHOWN], mask * np.uint8(255)])
    side = SIDE * ZOOM
    small = cv2.resize(lay_on_squares(cut_out), (side, side), interpolation=cv2.INTER_AREA)
    shown.append(label(np.asarray(small, np.uint8), "transparent background"))
    rows = [
        np.concatenate(shown[start : start + COLUMNS], axis=1)
        for start in range(0, len(shown), COLUMNS)
    ]
    lossless = [cv2.IMWRITE_WEBP_QUALITY, 101]
    cv2.imwrite(str(PICTURE), np.concatenate(rows)[..., ::-1], lossless)
    sys.stdout.write(f"{PICTURE}: {find_size(PICTURE)}\n")


if __name__ == "__main__":
    main()
