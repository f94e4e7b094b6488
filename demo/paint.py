"""Paint keyframes of a clip with brush strokes, a classical filter that needs no model.

Run as `python -m demo.paint CLIP FOLDER --every 12 --last-frame 48`: PNG files named by frame
number, as `fresco propagate CLIP --keys FOLDER` takes them. The strokes are those of Hertzmann,
*Painterly rendering with curved brush strokes of multiple sizes*, 1998: large brushes first,
smaller ones where the painting still differs from the picture, each stroke along the edges.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from fresco.digests import list_state
from fresco.errors import FrescoError, SettingsError
from fresco.video.reader import open_source
from fresco.video.size import carried_size, scale_frame
from fresco.workspace import frame_name, read_json, write_image, write_json

Image = NDArray[np.uint8]
Floats = NDArray[np.float32]

_ORIGIN = ".painted.json"
"""File of a folder of paintings: what they are of."""
_LARGEST = 720
"""Short side of paintings at most, in pixels."""
_BRUSHES = (0.022, 0.012, 0.0065, 0.0035)
"""Radii of the brushes, as shares of the shorter side."""
_DIFFERENCE = 30.0
"""Difference, summed over the colours, that a brush leaves as it is."""
_STEPS = (3, 10)
"""Fewest and most steps of a stroke, each as long as the brush's radius."""
_INERTIA = 0.6
"""How much of its direction a stroke keeps from one step to the next."""
_SHADE = 9.0
"""Standard deviation of a stroke's brightness from what it paints, grey levels."""
_RELIEF = 0.35
"""How strongly the light shows the height of the paint."""


def _find_starts(error: Floats, cell: int) -> NDArray[np.intp]:
    """[S, 2] x and y of the largest error in every cell whose mean error is too large."""
    rows, columns = (-(-side // cell) for side in error.shape)
    padded = np.zeros((rows * cell, columns * cell), np.float32)
    padded[: error.shape[0], : error.shape[1]] = error
    cells = padded.reshape(rows, cell, columns, cell).swapaxes(1, 2).reshape(rows, columns, -1)
    row, column = np.nonzero(cells.mean(axis=2) > _DIFFERENCE)
    place = cells[row, column].argmax(axis=1)
    return np.stack([column * cell + place % cell, row * cell + place // cell], axis=1)


def _follow(
    starts: NDArray[np.intp], radius: int, picture: Floats, error: Floats
) -> tuple[NDArray[np.int32], NDArray[np.intp]]:
    """Points of strokes along the edges of a picture.

    Args:
        starts: [S, 2] x and y.
        picture: [H, W, 3], 0..255.
        error: [H, W], how far what is painted so far is from it, summed over the colours.

    Returns:
        [S, most points, 2] x and y, and [S], how many of them each stroke has.
    """
    grey = cv2.cvtColor(picture / np.float32(255), cv2.COLOR_RGB2GRAY)
    edges = np.stack([-cv2.Sobel(grey, cv2.CV_32F, 0, 1), cv2.Sobel(grey, cv2.CV_32F, 1, 0)], -1)
    height, width = grey.shape
    colours = picture[starts[:, 1], starts[:, 0]]
    where, heading = starts.astype(np.float32), np.zeros(starts.shape, np.float32)
    points = [starts.astype(np.int32)]
    counts, going = np.ones(len(starts), np.intp), np.ones(len(starts), bool)
    for step in range(_STEPS[1]):
        x, y = points[-1].T
        if step >= _STEPS[0]:
            going &= error[y, x] >= np.abs(picture[y, x] - colours).sum(axis=1)
        along = edges[y, x]
        along *= np.where((along * heading).sum(axis=1) < 0, -1, 1)[:, None]
        along /= np.linalg.norm(along, axis=1, keepdims=True) + 1e-9
        heading = _INERTIA * heading + (1 - _INERTIA) * along
        heading /= np.linalg.norm(heading, axis=1, keepdims=True) + 1e-9
        where = where + radius * heading
        going &= (where >= 0).all(axis=1) & (where[:, 0] < width) & (where[:, 1] < height)
        counts += going
        points.append(np.clip(where, 0, (width - 1, height - 1)).astype(np.int32))
    return np.stack(points, axis=1), counts


def paint(frame: Image, seed: int = 0) -> Image:
    """A painting of a frame in brush strokes.

    Args:
        frame: [H, W, 3] RGB.
        seed: of the order and the shades of the strokes.

    Returns:
        [H, W, 3] RGB.
    """
    random = np.random.default_rng(seed)
    canvas = np.full(frame.shape, -255, np.float32)
    relief = np.zeros(frame.shape[:2], np.float32)
    for share in _BRUSHES:
        radius = max(1, round(share * min(frame.shape[:2])))
        picture = cv2.GaussianBlur(frame.astype(np.float32), (0, 0), 0.5 * radius)
        error = np.abs(picture - canvas).sum(axis=2)
        starts = random.permutation(_find_starts(error, radius))
        points, counts = _follow(starts, radius, picture, error)
        shades = random.normal(0, _SHADE, len(starts))
        heights = random.uniform(0, 1, len(starts))
        for index, (x, y) in enumerate(starts):
            line = [points[index, : counts[index]]]
            colour = picture[y, x] + shades[index]
            cv2.polylines(canvas, line, False, colour.tolist(), 2 * radius)
            cv2.polylines(relief, line, False, heights[index], 2 * radius)
    soft = cv2.GaussianBlur(relief, (0, 0), 1.0)
    light = np.clip(cv2.Sobel(soft, cv2.CV_32F, 1, 1), -0.5, 0.5)
    lit = cv2.GaussianBlur(canvas, (0, 0), 0.6) * (1 + _RELIEF * light)[..., None]
    return np.clip(lit, 0, 255).round().astype(np.uint8)


def _read(clip: str, numbers: Sequence[int]) -> Iterator[tuple[int, Image]]:
    with open_source(clip, last_frame=numbers[-1]) as source:
        for number in numbers:
            info = source.info
            short = min(_LARGEST, info.width, info.height)
            yield number, scale_frame(
                source.frame(number), carried_size(info.width, info.height, short)
            )


def _empty(folder: Path) -> None:
    """Remove the paintings of an earlier call; SettingsError if the folder holds anything else."""
    if folder.exists() and any(folder.iterdir()) and not (folder / _ORIGIN).exists():
        raise SettingsError(f"{folder} is not empty and not made by this program; name a new one.")
    shutil.rmtree(folder, ignore_errors=True)


def main(words: Sequence[str] | None = None) -> None:
    """Command line of this file."""
    parser = argparse.ArgumentParser(description="Paint frames of a clip with brush strokes.")
    parser.add_argument("clip", help="the video")
    parser.add_argument("folder", type=Path, help="folder for the paintings")
    parser.add_argument("--every", type=int, default=1, help="paint one frame of so many")
    parser.add_argument("--last-frame", type=int, required=True, help="last frame to paint")
    options = parser.parse_args(words)
    numbers = sorted({*range(0, options.last_frame + 1, options.every), options.last_frame})
    paths = {number: options.folder / frame_name(number) for number in numbers}
    try:
        origin = [list_state(Path(options.clip)), numbers]
        known = read_json(options.folder / _ORIGIN)
        if known == json.loads(json.dumps(origin)) and all(p.exists() for p in paths.values()):
            return
        _empty(options.folder)
        with ProcessPoolExecutor() as pool:
            waiting = [
                (number, pool.submit(paint, frame, number))
                for number, frame in _read(options.clip, numbers)
            ]
            for number, painting in waiting:
                write_image(paths[number], painting.result())
        write_json(options.folder / _ORIGIN, origin)
    except FrescoError as error:
        sys.exit(f"ERROR: {error}")


if __name__ == "__main__":
    main()
