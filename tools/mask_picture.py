"""Make docs/masks.jpg: a drawing carried over a scene, and the result within it.

`python -m tools.mask_picture` renders the moving scene of `benchmarks.scene`, whose stylised frames
are known, draws the sheet and the wheel on its first frame and on its last, and runs
`fresco propagate` with that mask. Above: the source, what is masked tinted; below: the result.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks import scene

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "docs" / "masks.jpg"
DRAWN, SHOWN = (0, scene.FRAMES - 1), (0, 6, 12, 18)
SURFACES = (1, 2)
"""The sheet and the wheel."""
_TINT = np.array([78, 205, 120], np.float32)

Image = NDArray[np.uint8]


def save(path: Path, image: Image) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), image[..., ::-1] if image.ndim == 3 else image)


def load(path: Path) -> Image:
    image = cv2.imread(str(path))
    assert image is not None, path
    return np.asarray(image[..., ::-1], np.uint8)


def tint(image: Image, mask: Image) -> Image:
    """What is masked in colour, the rest grey and dark."""
    inside = mask[..., :1] > 127
    grey = np.repeat(image.mean(axis=-1, keepdims=True), 3, axis=-1) * 0.5
    shown = np.where(inside, image * 0.65 + _TINT * 0.35, grey)
    return np.asarray(shown, np.uint8)


def main() -> None:
    """Render, run, and put the frames together."""
    with tempfile.TemporaryDirectory(prefix="fresco-masks-") as name:
        folder = Path(name)
        for number in range(scene.FRAMES):
            source, style = scene.render(number)
            save(folder / "source" / f"{number:06d}.png", source)
            if number in scene.KEYS:
                save(folder / "keys" / f"{number:06d}.png", style)
            if number in DRAWN:
                mask = np.isin(scene.owners(scene.grid(1), number), SURFACES)
                save(folder / "drawn" / f"{number:06d}.png", np.asarray(mask * 255, np.uint8))
        subprocess.run([
            sys.executable, "-m", "fresco", "propagate", str(folder / "source"),
            "--keys", str(folder / "keys"), "-o", str(folder / "result"), "--flow", "dis",
            "--resolution", str(scene.SIDE), "--no-detect-shots", "--mask", "drawing",
            "--mask-path", str(folder / "drawn"), "--workspace", str(folder / "work"), "--quiet",
        ], cwd=ROOT, check=True)
        (masks,) = (folder / "work").glob("masks-*")
        results = sorted((folder / "result").glob("*.png"))
        columns = [
            np.concatenate([
                tint(load(folder / "source" / f"{n:06d}.png"), load(masks / f"{n:06d}.png")),
                load(results[n]),
            ]) for n in SHOWN
        ]
    picture = np.concatenate(columns, axis=1)
    cv2.imwrite(str(PICTURE), picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])
    sys.stdout.write(f"{PICTURE}: {PICTURE.stat().st_size // 1000} kB\n")


if __name__ == "__main__":
    main()
