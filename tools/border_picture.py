"""Make docs/borders.jpg: keyframes on both sides of a border between two batches.

`python -m tools.border_picture` translates eight keyframes of stretches of clips that packages
ship, as `benchmarks.consistency` does, and shows the last keyframe of the first batch beside the
first one of the second batch. One row for the source and each way of translation.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.consistency import STUDY, run_study

PICTURE = Path(__file__).resolve().parents[1] / "docs" / "borders.jpg"
CLIPS = (("bigbuckbunny.mp4", 0), ("carphone_pristine.mp4", 0), ("bigbuckbunny.mp4", 66))
"""Clips, and the first frame of each stretch."""
ROWS = ("source", "FRESCO", "FRESCO and joined keyframes", "consensus and joined keyframes")
BATCH = 5
OPTIONS = ("--noise", "each", "--keyframes", str(BATCH + 3), "--every", "6",
           "--batch-size", str(BATCH), "--resolution", "192")
_HEIGHT, _GAP = 160, 4

Image = NDArray[np.uint8]


def load(path: Path) -> Image:
    """An image at the height of a row, a white line below and to the right of it."""
    image = cv2.imread(str(path))
    assert image is not None, path
    size = (round(image.shape[1] * _HEIGHT / image.shape[0]), _HEIGHT)
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return np.asarray(np.pad(small, ((0, _GAP), (0, _GAP), (0, 0)), constant_values=255), np.uint8)


def main() -> None:
    """Translate, and put the keyframes together."""
    columns: list[Image] = []
    for clip, first in CLIPS:
        with tempfile.TemporaryDirectory(prefix="fresco-borders-") as name:
            run_study(STUDY, [clip, "--first", str(first), "--results", str(Path(name) / "rows"),
                              "--pictures", name, *OPTIONS,
                              *(word for row in ROWS for word in ("--only", row))])
            folders = [Path(name) / Path(clip).stem / row.replace(" ", "-") for row in ROWS]
            keyframes = sorted(path.name for path in folders[0].iterdir())
            columns += [
                np.concatenate([load(folder / keyframe) for folder in folders])
                for keyframe in keyframes[BATCH - 1 : BATCH + 1]
            ]
        columns.append(np.full((len(columns[-1]), 2 * _GAP, 3), 255, np.uint8))
    picture = np.concatenate(columns[:-1], axis=1)
    cv2.imwrite(str(PICTURE), picture, [cv2.IMWRITE_JPEG_QUALITY, 85])
    sys.stdout.write(f"{PICTURE}: {PICTURE.stat().st_size // 1000} kB\n")


if __name__ == "__main__":
    main()
