"""Training of the autoencoder on crops of images in all looks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from diffusers import AutoencoderKL
from numpy.typing import NDArray
from torch import Tensor

from fresco.hosts.diffusers.vae import to_pixels, to_tensor
from tools.demo_training.images import fit
from tools.demo_training.networks import AUTOENCODER, SCALE, SPREAD, Widths, make_autoencoder
from tools.demo_training.progress import Budget, fast_arithmetic, train
from tools.demo_training.styles import RGB

SIDE = 64
"""Of a crop, in pixels."""
_ZOOM = 2.0
"""A crop shows a part of up to this times its side, scaled down."""
_RATE = 2e-4
_NOISE = 0.1
"""Highest standard deviation of the noise added to latents while training, so that small errors
of the UNet do not show."""
_PULL = 1e-3
"""Weight of the latents' square, which keeps that noise from being outgrown."""
_SLOPES = 0.5
"""Weight of the difference of neighbouring pixels beside that of pixels."""
_MEANS = 1.0
"""Weight of the difference of 8 x 8 means, which hold the colours."""
_SQUARES = 4.0
"""Weight of the squared difference, which the PSNR is made of."""
_NORMALISED = 256
"""Crops that the latents' mean and deviation are taken of."""
_MEASURED = 8
"""Held-out images that the PSNR in the log is of, at `_MEASURED_SIDE`."""
_MEASURED_SIDE = 256

_CPU = torch.device("cpu")


def stack_images(images: Sequence[RGB], device: torch.device = _CPU) -> Tensor:
    """[N, H, W, 3] uint8 as [N, 3, H, W] floats in [-1, 1], channels last in memory."""
    return to_tensor(np.stack(images), device).contiguous(memory_format=torch.channels_last)


def cut_crops(images: Sequence[RGB], random: np.random.Generator, count: int) -> list[RGB]:
    """Square crops at any place and of any scale, every other one mirrored on average."""
    result = []
    for _ in range(count):
        image = images[int(random.integers(len(images)))]
        side = min(*image.shape[:2], round(SIDE * random.uniform(1.0, _ZOOM)))
        top = int(random.integers(image.shape[0] - side + 1))
        left = int(random.integers(image.shape[1] - side + 1))
        crop = image[top:top + side, left:left + side]
        crop = np.asarray(cv2.resize(crop, (SIDE, SIDE), interpolation=cv2.INTER_AREA), np.uint8)
        result.append(crop[:, ::-1] if random.random() < 0.5 else crop)
    return result


def reconstruction_loss(made: Tensor, wanted: Tensor) -> Tensor:
    """Mean absolute and squared difference of pixels, of their slopes, of 8 x 8 means."""
    error = made.float() - wanted
    across, down = error.diff(dim=3).abs().mean(), error.diff(dim=2).abs().mean()
    means = torch.nn.functional.avg_pool2d(error, 8).abs().mean()
    plain = error.abs().mean() + _SQUARES * error.square().mean()
    return plain + _SLOPES * (across + down) + _MEANS * means


def encode(vae: Any, images: Tensor) -> Tensor:
    """Mean latents [N, 4, H / 8, W / 8], not scaled."""
    return vae.quant_conv(vae.encoder(images)).chunk(2, dim=1)[0]


def train_autoencoder(
    images: Sequence[RGB], held: Sequence[RGB], path: Path, *, budget: Budget, crops: int,
    device: torch.device = _CPU, seed: int = 0, widths: Widths = AUTOENCODER,
) -> tuple[AutoencoderKL, int]:
    """Train, or go on from the state in the file.

    Args:
        images: [H, W, 3] uint8 each, sides at least `SIDE`.
        held: images that the PSNR in the log is of.
        crops: a step.

    Returns:
        The running mean of the weights, not normalised, and the steps done.
    """
    torch.manual_seed(seed)
    vae: Any = make_autoencoder(widths)
    vae.to(device, memory_format=torch.channels_last)

    def loss_of(step: int) -> Tensor:
        random = np.random.default_rng((seed, step))
        wanted = stack_images(cut_crops(images, random, crops), device)
        generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
        shape = (crops, 4, SIDE // 8, SIDE // 8)
        noise = torch.rand(crops, 1, 1, 1, generator=generator)
        noise = (_NOISE * noise * torch.randn(shape, generator=generator)).to(device)
        with fast_arithmetic(device):
            latents = encode(vae, wanted)
            made = vae.decoder(vae.post_quant_conv(latents + noise))
        return reconstruction_loss(made, wanted) + _PULL * latents.float().square().mean()

    seen = [fit(image, _MEASURED_SIDE) for image in held[:: max(1, len(held) // _MEASURED)]]

    def measure(mean: Any) -> float:
        return float(np.mean([measure_psnr(reconstruct(mean, image), image) for image in seen]))

    return train(path, vae, list(vae.parameters()), budget=budget, rate=_RATE, loss_of=loss_of,
                 measure=measure if seen else None)


@torch.no_grad()
def normalise(vae: Any, images: Sequence[RGB], seed: int) -> None:
    """Give scaled latents the mean 0 and the standard deviation SPREAD, channel by channel."""
    random = np.random.default_rng(seed)
    crops = stack_images(cut_crops(images, random, _NORMALISED), vae.device)
    latents = encode(vae, crops).float()
    mean, deviation = latents.mean(dim=(0, 2, 3)), latents.std(dim=(0, 2, 3))
    factor = SPREAD / SCALE / deviation
    vae.quant_conv.weight[:4] *= factor[:, None, None, None]
    vae.quant_conv.bias[:4] = (vae.quant_conv.bias[:4] - mean) * factor
    vae.quant_conv.weight[4:] = 0.0  # the encoder is taken at its word: next to no variance
    vae.quant_conv.bias[4:] = -20.0
    before, offset = vae.post_quant_conv.weight.clone(), vae.post_quant_conv.bias
    offset += (before[:, :, 0, 0] * mean).sum(dim=1)
    vae.post_quant_conv.weight.copy_(before / factor[None, :, None, None])


def measure_psnr(made: NDArray[Any], wanted: NDArray[Any]) -> float:
    """Peak signal-to-noise ratio of two images, dB."""
    error = np.square(made.astype(np.float64) - wanted).mean()
    return math.inf if error == 0 else 10 * math.log10(255**2 / error)


@torch.no_grad()
def reconstruct(vae: Any, image: RGB) -> RGB:
    """What is left of an image after encoding and decoding."""
    return to_pixels(vae.decode(encode(vae, stack_images([image], vae.device))).sample)[0]
