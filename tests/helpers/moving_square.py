"""A textured square that moves over a still texture: its mask is known at every frame."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fresco.workspace import frame_name, write_image
from tests.helpers.clips import texture

HEIGHT, WIDTH, SIDE = 64, 128, 24


def find_corner(frame: int) -> tuple[int, int]:
    """Row and column of the square's corner."""
    return 20 + frame // 2, 8 + 3 * frame


def draw_frame(frame: int) -> NDArray[np.uint8]:
    """[64, 128, 3] RGB."""
    image = texture(HEIGHT, WIDTH, seed=1).copy()
    row, column = find_corner(frame)
    image[row:row + SIDE, column:column + SIDE] = 255 - texture(SIDE, SIDE, seed=7)
    return image


def draw_mask(frame: int) -> NDArray[np.bool_]:
    """[64, 128], True = the square."""
    mask = np.zeros((HEIGHT, WIDTH), bool)
    row, column = find_corner(frame)
    mask[row:row + SIDE, column:column + SIDE] = True
    return mask


def write_mask(path: Path, mask: NDArray[np.bool_], repeat: int = 1) -> Path:
    """A mask as an image, each pixel repeated along both sides."""
    large = np.kron(mask, np.ones((repeat, repeat), bool)).astype(np.uint8) * 255
    write_image(path, np.asarray(np.repeat(large[..., None], 3, axis=2), np.uint8))
    return path


def write_masks(folder: Path, count: int) -> Path:
    """The masks of the first frames."""
    for frame in range(count):
        write_mask(folder / frame_name(frame), draw_mask(frame))
    return folder


def overlap(mask: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    """Intersection over union."""
    return float((mask & other).sum() / max(1, (mask | other).sum()))
