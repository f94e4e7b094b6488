"""Small scenes with known motion, and loaders of them that a worker process can open."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from fresco.propagation.engine import Engine, FlowEngine
from fresco.propagation.segment import SegmentJob
from fresco.settings import BlendSettings, FlowSettings
from fresco.workspace import frame_name, write_image


def texture(height: int, width: int, seed: int) -> np.ndarray:
    """Detail at several scales, uint8 RGB."""
    random = np.random.default_rng(seed)
    total = np.zeros((height, width, 3), np.float32)
    for cell in (24, 12, 6):
        coarse = random.normal(0, 1, (height // cell + 2, width // cell + 2, 3))
        total += cv2.resize(coarse.astype(np.float32), (width, height)) * cell
    low, high = total.min(), total.max()
    return np.rint((total - low) / (high - low) * 215 + 20).astype(np.uint8)


@dataclass(frozen=True)
class SlidingScene:
    """A texture that slides right by `speed` pixels a frame, a square sliding left over it."""

    frames: int
    height: int = 64
    width: int = 80
    speed: int = 2
    square: int = 20
    """Side of the square; 0 for none."""

    def image(self, frame: int) -> np.ndarray:
        """Frame `frame`, [H, W, 3]."""
        wide = texture(self.height, self.width + self.speed * self.frames, 1)
        start = self.speed * (self.frames - frame)
        image = wide[:, start:start + self.width].copy()
        if self.square:
            top, left = self.height // 3, self.width - self.square - 8 - self.speed * frame
            left = max(left, 0)
            patch = texture(self.square, self.square, 2) // 2
            image[top:top + self.square, left:left + self.square] = patch
        return image

    def __call__(self, first: int, last: int) -> Iterator[np.ndarray]:
        """Frames first to last, both included."""
        for frame in range(first, min(last, self.frames - 1) + 1):
            yield self.image(frame)


@dataclass(frozen=True)
class DyingScene(SlidingScene):
    """Kills the process that reads frame `at`, as long as `flag` (a path) is absent."""

    at: int = 0
    flag: str = ""
    """A file made on the first death; empty: it dies every time."""

    def __call__(self, first: int, last: int) -> Iterator[np.ndarray]:
        """See SlidingScene."""
        for number, image in enumerate(super().__call__(first, last), first):
            if number == self.at and not (self.flag and Path(self.flag).exists()):
                if self.flag:
                    Path(self.flag).touch()
                os._exit(3)
            yield image


@dataclass(frozen=True)
class SlowScene(SlidingScene):
    """Takes a second over every frame and keeps the number of its process in `folder`."""

    folder: str = "."

    def __call__(self, first: int, last: int) -> Iterator[np.ndarray]:
        """See SlidingScene."""
        (Path(self.folder) / f"pid-{os.getpid()}").touch()
        for image in super().__call__(first, last):
            time.sleep(1)
            yield image


def negative(image: np.ndarray) -> np.ndarray:
    """A style that acts on every pixel alone, so that the true result is known."""
    return 255 - image


def make_jobs(
    scene: SlidingScene, keys: list[int], folder: Path, *, blend: BlendSettings | None = None,
    scale: int = 1, engine: Engine | None = None,
) -> list[SegmentJob]:
    """Keys in `folder`/keys and a job for every segment between them, into `folder`/frames."""
    for key in keys:
        picture = negative(scene.image(key))
        size = (picture.shape[1] * scale, picture.shape[0] * scale)
        write_image(folder / "keys" / frame_name(key), cv2.resize(picture, size))
    (folder / "frames").mkdir(parents=True, exist_ok=True)
    return [
        SegmentJob(
            first, last, folder / "keys" / frame_name(first), folder / "keys" / frame_name(last),
            scene, FlowSettings(estimator="dis"), blend or BlendSettings(), folder / "frames",
            engine or FlowEngine(),
        )
        for first, last in itertools.pairwise(keys)
    ]


def contents(folder: Path) -> dict[str, bytes]:
    """The files of a folder and of those in it, by their paths there."""
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def list_pictures(files: dict[str, bytes]) -> list[str]:
    """The frames among `contents`; how they were judged lies beside them."""
    return [name for name in files if "/" not in name and name.endswith(".png")]
