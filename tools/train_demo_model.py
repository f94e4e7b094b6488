"""Train the small model of the demo, stage by stage.

    bash tools/demo_training/unpack.sh FOLDER
    python -m tools.train_demo_model --packages FOLDER --work WORK [STAGE...]

Stages, all of them in this order unless some are named:

    images        images of the packages, in their looks, into one file
    autoencoder   trained on crops of them
    latents       the autoencoder as it is then is kept for good, and the images are encoded by it
    unet          UNet and text model together, trained on those latents
    export        the checkpoint, its configuration and its tokenizer

Every stage saves its state into WORK and goes on from there when the same command is given again.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import CLIPTokenizer

from fresco.hosts.diffusers.tokenizer import unpack_vocabulary
from tools.demo_training.autoencoder import (
    SIDE,
    measure_psnr,
    normalise,
    reconstruct,
    train_autoencoder,
)
from tools.demo_training.diffusion import Batches, Denoiser, measure_levels, train_denoiser
from tools.demo_training.export import export
from tools.demo_training.images import fit, load_samples
from tools.demo_training.networks import make_autoencoder
from tools.demo_training.progress import Budget
from tools.demo_training.scenes import draw_scene
from tools.demo_training.store import open_images, write_images
from tools.demo_training.styles import RGB, STYLES
from tools.demo_training.views import PLAIN, View, read_views, write_views

NAME = "fresco-demo"
_SCENES = 80
_VOCABULARY = "open_clip/bpe_simple_vocab_16e6.txt.gz"
_HELD_SIDES = (256, 384)
"""Short sides that held-out images are measured at."""
_LEVELS = 8
"""Batches that the level test is made on."""
_LARGER = 8
"""Times as many crops a step on a graphics card as on a processor."""

logger = logging.getLogger("fresco.training")


class UnfinishedError(Exception):
    """A stage stopped early; its state is saved."""


def _apply_looks(images: Sequence[RGB], seed: int) -> Iterator[RGB]:
    """Every image, and each in two looks: what the autoencoder must be able to show."""
    names = [name for name in STYLES if name != PLAIN]
    for number, image in enumerate(images):
        if min(image.shape[:2]) < SIDE:
            continue
        random = np.random.default_rng((seed, number))
        yield image
        for name in random.choice(names, 2, replace=False):
            yield STYLES[name][0](image)


class Training:
    """The stages, on the files of one folder."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._work: Path = options.work
        self._seed: int = options.seed
        self._device = torch.device(options.device)
        self._ends = time.monotonic() + 60 * options.minutes
        self._larger = 1 if self._device.type == "cpu" else _LARGER

    def write_images(self) -> None:
        """Images of the packages: learned from, the same in looks, held out; and their words."""
        if (self._work / "words.json").exists():
            return
        samples = load_samples(self._options.packages)
        scenes = [draw_scene(number) for number in range(_SCENES)]
        learned = [(s.image, s.words) for s in samples if not s.held_out]
        learned += [(s.image, s.words) for s in scenes]
        images = [image for image, _ in learned]
        write_images(self._work / "learned.bin", images)
        write_images(self._work / "looks.bin", _apply_looks(images, self._seed))
        write_images(self._work / "held.bin", [s.image for s in samples if s.held_out])
        words = json.dumps([words for _, words in learned])
        (self._work / "words.json").write_text(words, "utf-8")
        logger.info("%d images to learn from", len(learned))

    def train_autoencoder(self) -> None:
        """The autoencoder, up to its number of steps or the end of the time."""
        steps: int = self._options.autoencoder_steps
        _, done = self._run_autoencoder(Budget(steps, self._ends))
        if done < steps:
            raise UnfinishedError(f"The autoencoder is at step {done} of {steps}.")

    def _run_autoencoder(self, budget: Budget) -> tuple[Any, int]:
        return train_autoencoder(
            open_images(self._work / "looks.bin"), open_images(self._work / "held.bin"),
            self._work / "autoencoder.pt", budget=budget, crops=self._options.crops * self._larger,
            device=self._device, seed=self._seed,
        )

    def write_latents(self) -> None:
        """Keep the autoencoder as it is, and encode the images in their looks."""
        kept = self._work / "frozen.pt"
        if not kept.exists():
            vae, done = self._run_autoencoder(Budget(0))
            if not done:
                raise SystemExit(f"{self._work} has no trained autoencoder; run that stage first.")
            normalise(vae, open_images(self._work / "looks.bin"), self._seed)
            torch.save({"weights": vae.state_dict(), "steps": done}, kept)
            logger.info("the autoencoder is kept as it was after %d steps", done)
        words = json.loads((self._work / "words.json").read_text("utf-8"))
        whole = write_views(
            self._load_frozen(), open_images(self._work / "learned.bin"), words,
            self._work / "views", each=self._options.views, seed=self._seed, ends=self._ends,
        )
        if not whole:
            raise UnfinishedError("Some of the images are not encoded yet.")

    def _load_frozen(self) -> Any:
        vae: Any = make_autoencoder()
        saved = torch.load(self._work / "frozen.pt", weights_only=True, map_location="cpu")
        vae.load_state_dict(saved["weights"])
        return vae.to(self._device, memory_format=torch.channels_last).eval()

    @cached_property
    def _tokenizer(self) -> CLIPTokenizer:
        folder = self._work / "tokenizer"
        if not folder.exists():
            unpack_vocabulary(self._options.packages / _VOCABULARY, folder)
        return CLIPTokenizer.from_pretrained(folder, local_files_only=True)

    def train_unet(self) -> None:
        """UNet and text model, up to their number of steps or the end of the time."""
        steps: int = self._options.steps
        views = read_views(self._work / "views")
        denoiser, done = self._run_unet(views, Budget(steps, self._ends))
        batches = Batches(views, self._tokenizer, self._seed)
        loss, ratios = measure_levels(denoiser, batches, count=_LEVELS, device=self._device)
        logger.info("loss %.4f; with the entry of a decoder stage made flat, times %s", loss,
                    ", ".join(f"{ratio:.3f} (stage {stage})" for stage, ratio in ratios.items()))
        if done < steps:
            raise UnfinishedError(f"The UNet is at step {done} of {steps}.")

    def _run_unet(self, views: Sequence[View], budget: Budget) -> tuple[Denoiser, int]:
        return train_denoiser(
            views, self._tokenizer, self._work / "denoiser.pt", budget=budget,
            latents=self._options.latents * self._larger, device=self._device, seed=self._seed,
        )

    def export(self) -> None:
        """Write the checkpoint and tell what the autoencoder keeps of held-out images."""
        denoiser, done = self._run_unet([], Budget(0))
        if not done:
            raise SystemExit(f"{self._work} has no trained UNet; run that stage first.")
        vae = self._load_frozen()
        held = open_images(self._work / "held.bin")
        for side in _HELD_SIDES:
            images = [fit(image, side) for image in held]
            ratios = [measure_psnr(reconstruct(vae, image), image) for image in images]
            logger.info("PSNR of %d held-out images, short side %d: %.2f dB", len(ratios), side,
                        float(np.mean(ratios)))
        path = export(denoiser.cpu(), vae.cpu(), self._work / "tokenizer", self._options.output,
                      NAME)
        logger.info("written: %s", path)

    @property
    def stages(self) -> Mapping[str, Callable[[], None]]:
        """By name, in order."""
        return {
            "images": self.write_images, "autoencoder": self.train_autoencoder,
            "latents": self.write_latents, "unet": self.train_unet, "export": self.export,
        }


def main(words: Sequence[str] | None = None) -> None:
    """Command line of this file."""
    names = ("images", "autoencoder", "latents", "unet", "export")
    parser = argparse.ArgumentParser(description="Train the small model of the demo.")
    parser.add_argument("stages", nargs="*", metavar="STAGE", default=[],
                        help=f"some of {', '.join(names)}; default: all")
    parser.add_argument("--packages", type=Path, required=True, help="folder of unpacked packages")
    parser.add_argument("--work", type=Path, required=True, help="folder of the training's state")
    parser.add_argument("--output", type=Path, default=Path("demo/model"))
    parser.add_argument("--autoencoder-steps", type=int, default=40_000)
    parser.add_argument("--steps", type=int, default=20_000, help="of UNet and text model")
    parser.add_argument("--crops", type=int, default=16,
                        help=f"that the autoencoder sees a step; {_LARGER} times as many on cuda")
    parser.add_argument("--latents", type=int, default=6144,
                        help=f"that the UNet sees a step; {_LARGER} times as many on cuda")
    parser.add_argument("--views", type=int, default=3, help="sizes and places of every image")
    parser.add_argument("--minutes", type=float, default=float("inf"),
                        help="stop after so long, ready to go on")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(words)
    unknown = [name for name in options.stages if name not in names]
    if unknown:
        parser.error(f"{', '.join(unknown)}: not a stage; there are {', '.join(names)}.")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(options.threads)
    training = Training(options)
    try:
        for name, stage in training.stages.items():
            if name in (options.stages or names):
                stage()
    except UnfinishedError as stopped:
        logger.info("%s The same command goes on from there.", stopped)


if __name__ == "__main__":
    main()
