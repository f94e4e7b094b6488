"""Training of the autoencoder on crops of images in all looks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor

from fresco.hosts.diffusers.vae import to_pixels, to_tensor
from tools.demo_training.networks import SCALE, SPREAD, make_autoencoder
from tools.demo_training.progress import fast_arithmetic, train
from tools.demo_training.styles import RGB

SIDE = 64
"""Of a crop, in pixels."""
CROPS = 16
"""A step."""
_RATE = 2e-3
_NOISE = 0.1
"""Added to latents while training, so that small errors of the UNet do not show."""
_PULL = 1e-3
"""Weight of the latents' square, which keeps that noise from being outgrown."""
_SLOPES = 0.5
"""Weight of the difference of neighbouring pixels beside that of pixels."""
_MEANS = 2.0
"""Weight of the difference of 8 x 8 means, which hold the colours."""


def stack_images(images: Sequence[RGB]) -> Tensor:
    """[N, H, W, 3] uint8 as [N, 3, H, W] floats in [-1, 1], channels last in memory."""
    stacked = to_tensor(np.stack(images), torch.device("cpu"))
    return stacked.contiguous(memory_format=torch.channels_last)


def cut_crops(images: Sequence[RGB], random: np.random.Generator, count: int) -> list[RGB]:
    """Square crops at any place, every other one mirrored on average."""
    result = []
    for _ in range(count):
        image = images[int(random.integers(len(images)))]
        top = int(random.integers(image.shape[0] - SIDE + 1))
        left = int(random.integers(image.shape[1] - SIDE + 1))
        crop = image[top:top + SIDE, left:left + SIDE]
        result.append(crop[:, ::-1] if random.random() < 0.5 else crop)
    return result


def reconstruction_loss(made: Tensor, wanted: Tensor) -> Tensor:
    """Mean absolute difference of pixels, of their slopes, and of their means over 8 x 8."""
    error = made.float() - wanted
    across, down = error.diff(dim=3).abs().mean(), error.diff(dim=2).abs().mean()
    means = torch.nn.functional.avg_pool2d(error, 8).abs().mean()
    return error.abs().mean() + _SLOPES * (across + down) + _MEANS * means


def encode(vae: Any, images: Tensor) -> Tensor:
    """Mean latents [N, 4, H / 8, W / 8], not scaled."""
    return vae.quant_conv(vae.encoder(images)).chunk(2, dim=1)[0]


def train_autoencoder(
    images: Sequence[RGB], folder: Path, *, steps: int, seed: int = 0,
    frozen: AutoencoderKL | None = None,
) -> AutoencoderKL:
    """Train, or go on from the checkpoint in the folder; returns the normalised autoencoder.

    Args:
        images: [H, W, 3] uint8 each, sides at least `SIDE`.
        frozen: train the decoder of this one and leave its latents as a UNet has learned them.
    """
    torch.manual_seed(seed)
    vae: Any = frozen or make_autoencoder()
    vae.to(memory_format=torch.channels_last)
    if frozen is not None:
        vae.requires_grad_(False)
        vae.decoder.requires_grad_(True)
    trained = [parameter for parameter in vae.parameters() if parameter.requires_grad]

    def loss_of(step: int) -> Tensor:
        random = np.random.default_rng((seed, step))
        crops = stack_images(cut_crops(images, random, CROPS))
        with fast_arithmetic():
            latents = encode(vae, crops)
            spread = 1.0 if frozen is None else latents.detach().float().std()
            noisy = latents + spread * _NOISE * torch.randn_like(latents)
            made = vae.decoder(vae.post_quant_conv(noisy))
        loss = reconstruction_loss(made, crops)
        return loss if frozen is not None else loss + _PULL * latents.float().square().mean()

    path = folder / "autoencoder.pt"
    train("autoencoder", path, vae, trained, steps=steps, rate=_RATE, loss_of=loss_of)
    if frozen is None:
        normalise(vae, images, seed)
    return vae.eval()


@torch.no_grad()
def normalise(vae: Any, images: Sequence[RGB], seed: int) -> None:
    """Give scaled latents the mean 0 and the standard deviation SPREAD, channel by channel."""
    latents = encode(vae, stack_images(cut_crops(images, np.random.default_rng(seed), 256))).float()
    mean, deviation = latents.mean(dim=(0, 2, 3)), latents.std(dim=(0, 2, 3))
    factor = SPREAD / SCALE / deviation
    vae.quant_conv.weight[:4] *= factor[:, None, None, None]
    vae.quant_conv.bias[:4] = (vae.quant_conv.bias[:4] - mean) * factor
    vae.quant_conv.weight[4:] = 0.0  # the encoder is taken at its word: next to no variance
    vae.quant_conv.bias[4:] = -20.0
    before, offset = vae.post_quant_conv.weight.clone(), vae.post_quant_conv.bias
    offset += (before[:, :, 0, 0] * mean).sum(dim=1)
    vae.post_quant_conv.weight.copy_(before / factor[None, :, None, None])


def measure_psnr(made: RGB, wanted: RGB) -> float:
    """Peak signal-to-noise ratio of two images, dB."""
    error = np.square(made.astype(np.float64) - wanted).mean()
    return math.inf if error == 0 else 10 * math.log10(255**2 / error)


@torch.no_grad()
def reconstruct(vae: Any, image: RGB) -> RGB:
    """What is left of an image after encoding and decoding."""
    return to_pixels(vae.decode(encode(vae, stack_images([image]))).sample)[0]
