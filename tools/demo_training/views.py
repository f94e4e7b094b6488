"""What the UNet learns from: latents of images in the looks of the filters."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

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
_SHORT = (224, 384)
"""Range of the short side an image is scaled to, in pixels."""
_LARGEST = 320
"""Largest side of the part that is kept."""

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
    size = max(_SHORT[0] // 2, round(width * scale)), max(_SHORT[0] // 2, round(height * scale))
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
    looks = stack_images([STYLES[name][0](placed) for name in chosen])
    with fast_arithmetic():
        latents = SCALE * encode(vae, looks).float()
    return View(dict(zip(chosen, latents.half(), strict=True)), words)


def make_views(
    vae: AutoencoderKL, images: Sequence[tuple[NDArray[np.uint8], str]], *, seed: int = 0
) -> list[View]:
    """A view of every image, given with its words."""
    views = []
    for number, (image, words) in enumerate(images):
        views.append(make_view(vae, image, words, np.random.default_rng((seed, number))))
        if (number + 1) % 100 == 0:
            logger.info("%d of %d images filtered and encoded", number + 1, len(images))
    return views
