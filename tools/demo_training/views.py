"""What the UNet learns from: latents of images in the looks of the filters."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from diffusers import AutoencoderKL
from numpy.typing import NDArray
from torch import Tensor

from tools.demo_training.autoencoder import encode, stack_images
from tools.demo_training.networks import SCALE
from tools.demo_training.progress import fast_arithmetic
from tools.demo_training.styles import STYLES

PLAIN = "photo"
"""The look of the source."""
_LOOKS = 5
"""Of every view, besides the plain one."""
_SHORT = (256, 384)
"""Range of the short side an image is scaled to, in pixels: what the model is used at."""
_LARGEST = 384
"""Largest side of the part that is kept."""
_PART = 20
"""Images whose views share a file."""

logger = logging.getLogger("fresco.training")


@dataclass(frozen=True, slots=True)
class View:
    """One image at one size, in several looks."""

    latents: dict[str, Tensor]
    """Look to scaled latents [4, H / 8, W / 8], float16; all of one size, `PLAIN` among them."""
    words: str
    """What the image shows; empty where unknown."""


def _place(image: NDArray[np.uint8], random: np.random.Generator) -> NDArray[np.uint8]:
    """Scaled at random, cut to a part, mirrored half of the time; sides multiples of 8."""
    height, width = image.shape[:2]
    short = int(random.integers(*_SHORT, endpoint=True))
    scale = min(1.0, short / min(height, width))
    size = max(8, round(width * scale)), max(8, round(height * scale))
    image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
    if random.random() < 0.5:
        image = image[:, ::-1]
    high, wide = (min(_LARGEST, side) // 8 * 8 for side in image.shape[:2])
    top = int(random.integers(image.shape[0] - high + 1))
    left = int(random.integers(image.shape[1] - wide + 1))
    return np.ascontiguousarray(image[top:top + high, left:left + wide])


@torch.no_grad()
def make_view(
    vae: AutoencoderKL, image: NDArray[np.uint8], words: str, random: np.random.Generator
) -> View:
    """Filter and encode one image."""
    placed = _place(image, random)
    names = [name for name in STYLES if name != PLAIN]
    chosen = [PLAIN, *random.choice(names, _LOOKS, replace=False).tolist()]
    looks = stack_images([STYLES[name][0](placed) for name in chosen], vae.device)
    with fast_arithmetic(vae.device):
        latents = SCALE * encode(vae, looks).float()
    return View(dict(zip(chosen, latents.half().cpu(), strict=True)), words)


def write_views(
    vae: AutoencoderKL, images: Sequence[NDArray[np.uint8]], words: Sequence[str], folder: Path, *,
    each: int, seed: int = 0, ends: float = float("inf"),
) -> bool:
    """Write views of images into a folder, some images a file; files that are there are kept.

    Args:
        each: views of every image, at sizes and places of their own.
        ends: `time.monotonic()` after which no further file is begun.

    Returns:
        Whether all are written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for first in range(0, len(images), _PART):
        path = folder / f"{first:05}.pt"
        if path.exists():
            continue
        if time.monotonic() >= ends:
            return False
        made = []
        for number in range(first, min(first + _PART, len(images))):
            for turn in range(each):
                random = np.random.default_rng((seed, number, turn))
                made.append(make_view(vae, images[number], words[number], random))
        fresh = path.with_suffix(".new")
        torch.save([(view.latents, view.words) for view in made], fresh)
        fresh.replace(path)
        logger.info("views of %d of %d images", first + _PART, len(images))
    return True


def read_views(folder: Path) -> list[View]:
    """What `write_views` wrote."""
    return [View(latents, words) for path in sorted(folder.glob("*.pt"))
            for latents, words in torch.load(path, weights_only=True)]
