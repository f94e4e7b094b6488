"""Training of the UNet and the text model on noisy latents between an image and its looks.

A plain diffusion model of this size invents poor images, and what img2img asks of it is another
thing: it is handed the noisy *source* and is to end at the look. So it learns that path. Let T be
the target, S the source, s the timestep img2img starts at, with alpha and sigma the levels of
signal and noise. The deterministic sampler that knows T goes from alpha_s S + sigma_s e to T by

    x_t = alpha_t T + sigma_t n,    n = e + k (S - T),    k = alpha_s / sigma_s  at every t <= s,

and n is what the UNet has to predict. Without a source, k = 0: the usual training.
"""

from __future__ import annotations

import random as chances
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import CLIPTokenizer

from tools.demo_training.networks import make_text_encoder, make_unet
from tools.demo_training.progress import fast_arithmetic, train
from tools.demo_training.prompts import write_caption
from tools.demo_training.views import PLAIN, View

TIMESTEPS = 1000
EARLIEST = 350
"""Earliest start of img2img, as a timestep: a strength of about 0.35."""
_RATE = 8e-4
_GENERATED = 0.2
"""Share of samples without any source: generation from noise."""
_KEPT = 0.999
"""Of the running mean of weights that is exported, a step."""
_SIDES = ((0.0, 16, 24), (0.5, 24, 10))
"""From this share of the steps on: side of a crop in latents, crops a step."""
_COLLAGES = 0.6
"""Share of samples that show one thing four times. Each copy has noise of its own, so that an
attention pays that finds the same thing elsewhere, as it does between the frames of a video."""
_JITTER = 3
"""Latents that the copies of a collage are moved against each other at most."""


class Denoiser(nn.Module):
    """UNet and text model as one module."""

    def __init__(self) -> None:
        super().__init__()
        self.unet: Any = make_unet()
        self.text: Any = make_text_encoder()

    def forward(self, noisy: Tensor, t: Tensor, tokens: Tensor) -> Tensor:
        """Predicted noise of [N, 4, h, w] at timesteps [N] for token numbers [N, 77]."""
        return self.unet(noisy, t, self.text(tokens).last_hidden_state).sample


def compute_weights() -> tuple[Tensor, Tensor]:
    """alpha and sigma of every timestep, Stable Diffusion's schedule; [1000] each."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, TIMESTEPS, dtype=torch.float64).square()
    kept = (1 - betas).cumprod(0)
    return kept.sqrt().float(), (1 - kept).sqrt().float()


@dataclass(frozen=True, slots=True)
class Noisy:
    """Places on the path from a source to a target."""

    latents: Tensor
    """x_t, [N, 4, h, w]."""
    noise: Tensor
    """n, what is to be predicted, in the same shape."""


def place_on_path(
    source: Tensor, target: Tensor, noise: Tensor, t: Tensor, start: Tensor, moving: Tensor
) -> Noisy:
    """Where the sampler is at t that started from the source at `start`; see this module.

    Args:
        source, target, noise: [N, 4, h, w].
        t, start: timesteps [N], t at most start.
        moving: [N], 1 for a path from the source, 0 for one from nothing.
    """
    alpha, sigma = compute_weights()
    k = (moving * alpha[start] / sigma[start])[:, None, None, None]
    seen = noise + k * (source - target)
    a, b = alpha[t][:, None, None, None], sigma[t][:, None, None, None]
    return Noisy(a * target + b * seen, seen)


def _crop(latents: Tensor, side: int, chance: chances.Random) -> Tensor:
    """A square part of [..., H, W] at any place."""
    height, width = latents.shape[-2:]
    top, left = chance.randint(0, height - side), chance.randint(0, width - side)
    return latents[..., top:top + side, left:left + side]


def _collage(latents: Tensor, side: int, chance: chances.Random) -> Tensor:
    """Four parts of half the side from about the same place, two by two."""
    half = side // 2
    place = _crop(latents, half + _JITTER, chance)
    parts = [_crop(place, half, chance) for _ in range(4)]
    return torch.cat([torch.cat(parts[:2], dim=-1), torch.cat(parts[2:], dim=-1)], dim=-2)


class Batches:
    """Crops of views with captions; step numbers make them reproducible."""

    def __init__(self, views: Sequence[View], tokenizer: CLIPTokenizer, seed: int) -> None:
        self._views, self._tokenizer, self._seed = views, tokenizer, seed

    def __call__(self, step: int, side: int, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """Source and target [N, 4, side, side], token numbers [N, 77]."""
        chance = chances.Random(self._seed * 1_000_003 + step)
        sources, targets, captions = [], [], []
        large = [view for view in self._views if min(view.latents[PLAIN].shape[1:]) >= side]
        for _ in range(count):
            view = chance.choice(large)
            look = chance.choice(list(view.latents))
            both = torch.stack([view.latents[PLAIN], view.latents[look]])
            cut = _collage if chance.random() < _COLLAGES else _crop
            source, target = cut(both, side, chance)
            sources.append(source)
            targets.append(target)
            captions.append(write_caption(look, view.words, chance))
        tokens = self._tokenizer(
            captions, padding="max_length", max_length=77, truncation=True, return_tensors="pt"
        ).input_ids
        return torch.stack(sources).float(), torch.stack(targets).float(), tokens


def _step_loss(
    model: Denoiser, batch: tuple[Tensor, Tensor, Tensor], generator: torch.Generator
) -> Tensor:
    source, target, tokens = batch
    count = len(source)
    moving = (torch.rand(count, generator=generator) >= _GENERATED).float()
    start = torch.randint(EARLIEST, TIMESTEPS, (count,), generator=generator)
    start = torch.where(moving > 0, start, TIMESTEPS - 1)
    t = (torch.rand(count, generator=generator) * (start + 1)).long()
    noise = torch.randn(source.shape, generator=generator)
    path = place_on_path(source, target, noise, t, start, moving)
    noisy = path.latents.contiguous(memory_format=torch.channels_last)
    with fast_arithmetic():
        predicted = model(noisy, t, tokens)
    return (predicted.float() - path.noise).square().mean()


def _choose_crops(step: int, steps: int) -> tuple[int, int]:
    """Side and number of crops at a step."""
    return next((side, n) for share, side, n in reversed(_SIDES) if step >= share * steps)


def train_denoiser(
    views: Sequence[View], tokenizer: CLIPTokenizer, folder: Path, *, steps: int, seed: int = 0
) -> Denoiser:
    """Train, or go on from the checkpoint in the folder; the running mean of the weights."""
    torch.manual_seed(seed)
    model = Denoiser()
    model.unet.to(memory_format=torch.channels_last)
    both = nn.ModuleList([model, deepcopy(model).requires_grad_(False)])
    mean = both[1]
    parameters = list(model.parameters())
    batches = Batches(views, tokenizer, seed)

    def loss_of(step: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
        return _step_loss(model, batches(step, *_choose_crops(step, steps)), generator)

    @torch.no_grad()
    def average(step: int) -> None:
        kept = min(_KEPT, (step + 1) / (step + 10))
        for old, new in zip(mean.parameters(), parameters, strict=True):
            old.lerp_(new, 1 - kept)

    path = folder / "denoiser.pt"
    train("denoiser", path, both, parameters, steps=steps, rate=_RATE, loss_of=loss_of,
          after=average)
    assert isinstance(mean, Denoiser)
    return mean.eval()
