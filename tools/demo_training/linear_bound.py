"""Measure what the best linear code of 8 x 8 pixels keeps: a bound to compare an autoencoder with.

    python -m tools.demo_training.linear_bound WORK

WORK is the folder of `tools.train_demo_model` after its stage `images`. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tools.demo_training.autoencoder import measure_psnr
from tools.demo_training.images import fit
from tools.demo_training.store import open_images
from tools.demo_training.styles import RGB

BLOCK = 8
"""Side of what one latent stands for, in pixels."""
_SIDES, _NUMBERS = (256, 384), (3, 4, 6, 8)
_TAKEN = 3
"""One of so many images learned from: the components change no more with all."""

Floats = NDArray[np.float64]


def cut_blocks(image: RGB) -> Floats:
    """[N, 192]: blocks of 8 x 8 pixels in RGB; what does not fill one is left out."""
    high, wide = (side // BLOCK for side in image.shape[:2])
    whole = image[: high * BLOCK, : wide * BLOCK].astype(np.float64)
    blocks = whole.reshape(high, BLOCK, wide, BLOCK, 3).swapaxes(1, 2)
    return blocks.reshape(high * wide, -1)


def find_components(images: Iterable[RGB]) -> tuple[Floats, Floats]:
    """Mean block [192], and the principal components as columns [192, 192], largest first."""
    total, products, count = np.zeros(3 * BLOCK**2), np.zeros((3 * BLOCK**2, 3 * BLOCK**2)), 0
    for image in images:
        blocks = cut_blocks(image)
        total += blocks.sum(axis=0)
        products += blocks.T @ blocks
        count += len(blocks)
    mean = total / count
    _, vectors = np.linalg.eigh(products / count - np.outer(mean, mean))
    return mean, vectors[:, ::-1]


def keep_numbers(blocks: Floats, mean: Floats, components: Floats) -> Floats:
    """The blocks as they are decoded from one number for each component."""
    return mean + (blocks - mean) @ components @ components.T


def main(words: Sequence[str] | None = None) -> None:
    """Command line of this file."""
    parser = argparse.ArgumentParser(description="What the best linear code of blocks keeps.")
    parser.add_argument("work", type=Path, help="folder of the training, with its images")
    work = parser.parse_args(words).work
    learned, held = open_images(work / "learned.bin"), open_images(work / "held.bin")
    found: dict[str, dict[str, float]] = {}
    for side in _SIDES:
        mean, vectors = find_components(fit(image, side) for image in learned[::_TAKEN])
        found[str(side)] = {}
        for count in _NUMBERS:
            cut = (cut_blocks(fit(image, side)) for image in held)
            ratios = [measure_psnr(keep_numbers(b, mean, vectors[:, :count]), b) for b in cut]
            found[str(side)][str(count)] = round(float(np.mean(ratios)), 2)
    sys.stdout.write(json.dumps({"images": len(held), "psnr": found}, indent=2) + "\n")


if __name__ == "__main__":
    main()
