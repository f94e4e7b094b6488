"""Images in one file that is read where it is needed, not loaded as a whole."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from tools.demo_training.styles import RGB


def write_images(path: Path, images: Iterable[RGB]) -> None:
    """Write [H, W, 3] uint8 images into PATH and their sizes into PATH.json, whole or not at all.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh, shapes = path.with_suffix(".new"), []
    with fresh.open("wb") as file:
        for image in images:
            file.write(np.ascontiguousarray(image).tobytes())
            shapes.append(image.shape)
    _name_shapes(path).write_text(json.dumps(shapes), "utf-8")
    fresh.replace(path)


def open_images(path: Path) -> list[RGB]:
    """The images of a file of `write_images`; they are read from it when they are used."""
    memory = np.memmap(path, np.uint8, "r")
    images, place = [], 0
    for shape in json.loads(_name_shapes(path).read_text("utf-8")):
        size = int(np.prod(shape))
        images.append(memory[place:place + size].reshape(shape))
        place += size
    return images


def _name_shapes(path: Path) -> Path:
    return path.with_name(path.name + ".json")
