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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import CLIPTokenizer

from tools.demo_training.networks import UNET, Widths, make_text_encoder, make_unet
from tools.demo_training.progress import Budget, fast_arithmetic, train
from tools.demo_training.prompts import write_caption
from tools.demo_training.views import PLAIN, View

TIMESTEPS = 1000
EARLIEST = 350
"""Earliest start of img2img, as a timestep: a strength of about 0.35."""
_RATE = 8e-4
_GENERATED = 0.2
"""Share of samples without any source: generation from noise."""
_FIRST = 0.3
"""Share of samples at the start of their path: of few calls the first has the most to do."""
_BLIND = 0.25
"""Share of samples without the finest skip connections, see `blind_skips`."""
SIDES = (32, 40, 48)
"""Sides of a crop in latents, one of them a step: 256 to 384 pixels, what the model is used at."""
_COLLAGES = 0.6
"""Share of samples that show one thing four times. Each copy has noise of its own, so that an
attention pays that finds the same thing elsewhere, as it does between the frames of a video."""
_JITTER = 3
"""Latents that the copies of a collage are moved against each other at most."""


class Denoiser(nn.Module):
    """UNet and text model as one module."""

    def __init__(self, widths: Widths = UNET) -> None:
        super().__init__()
        self.unet: Any = make_unet(widths)
        self.text: Any = make_text_encoder()

    def forward(self, noisy: Tensor, t: Tensor, tokens: Tensor) -> Tensor:
        """Predicted noise of [N, 4, h, w] at timesteps [N] for token numbers [N, 77]."""
        return self.unet(noisy, t, self.text(tokens).last_hidden_state).sample


@contextmanager
def blind_skips(unet: Any, rows: Tensor) -> Iterator[None]:
    """Samples lose what the finest stage's skip connections carry but for its mean over the image.

    The finest stage could predict the noise from its own skips alone; then nothing that enters a
    deeper stage of the decoder counts, and FRESCO, which changes those inputs, changes no image.
    Samples without the skips teach the deeper stages to carry the image.

    Args:
        rows: [N], true where the skips are lost.
    """
    keep = (~rows)[:, None, None, None]

    def replace(_: nn.Module, positional: Any, named: dict[str, Any]) -> Any:
        skips = named["res_hidden_states_tuple"]
        means = (skip.mean(dim=(2, 3), keepdim=True) for skip in skips)
        blind = tuple(torch.where(keep.to(skip.device), skip, mean.expand_as(skip))
                      for skip, mean in zip(skips, means, strict=True))
        return positional, named | {"res_hidden_states_tuple": blind}

    handle = unet.up_blocks[-1].register_forward_pre_hook(replace, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def flat_entry(unet: Any, stage: int) -> Iterator[None]:
    """What enters a stage of the decoder becomes its mean over the image; 0 is the coarsest."""
    def replace(_: nn.Module, positional: Any, named: dict[str, Any]) -> Any:
        entering = named["hidden_states"]
        flat = entering.mean(dim=(2, 3), keepdim=True).expand_as(entering)
        return positional, named | {"hidden_states": flat}

    handle = unet.up_blocks[stage].register_forward_pre_hook(replace, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


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
    model: Denoiser, batch: tuple[Tensor, Tensor, Tensor], generator: torch.Generator,
    device: torch.device, *, blind: float = _BLIND,
) -> Tensor:
    source, target, tokens = batch
    count = len(source)
    moving = (torch.rand(count, generator=generator) >= _GENERATED).float()
    start = torch.randint(EARLIEST, TIMESTEPS, (count,), generator=generator)
    start = torch.where(moving > 0, start, TIMESTEPS - 1)
    t = (torch.rand(count, generator=generator) * (start + 1)).long()
    t = torch.where(torch.rand(count, generator=generator) < _FIRST, start, t)
    noise = torch.randn(source.shape, generator=generator)
    lost = torch.rand(count, generator=generator) < blind
    path = place_on_path(source, target, noise, t, start, moving)
    noisy = path.latents.to(device).contiguous(memory_format=torch.channels_last)
    with fast_arithmetic(device), blind_skips(model.unet, lost.to(device)):
        predicted = model(noisy, t.to(device), tokens.to(device))
    return (predicted.float() - path.noise.to(device)).square().mean()


def count_crops(latents: int, side: int) -> int:
    """Crops of a side that a step of about so many latents takes."""
    return max(1, round(latents / side**2))


def train_denoiser(
    views: Sequence[View], tokenizer: CLIPTokenizer, path: Path, *, budget: Budget, latents: int,
    device: torch.device, seed: int = 0, widths: Widths = UNET,
) -> tuple[Denoiser, int]:
    """Train, or go on from the state in the file; the running mean of the weights, steps done.

    Args:
        latents: positions a step, in all its crops together.
    """
    torch.manual_seed(seed)
    model = Denoiser(widths).to(device)
    model.unet.to(memory_format=torch.channels_last)
    batches = Batches(views, tokenizer, seed)

    def loss_of(step: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
        side = SIDES[step % len(SIDES)]
        batch = batches(step, side, count_crops(latents, side))
        return _step_loss(model, batch, generator, device)

    return train(path, model, list(model.parameters()), budget=budget, rate=_RATE, loss_of=loss_of)


@torch.no_grad()
def measure_levels(
    model: Denoiser, batches: Batches, *, count: int, device: torch.device
) -> tuple[float, dict[int, float]]:
    """The loss on `count` batches, and its ratio with each stage's entry made flat.

    A ratio near 1 says that nothing that enters that stage counts; FRESCO optimises those entries.
    """
    def loss() -> float:
        losses = []
        for step in range(count):
            generator = torch.Generator().manual_seed(step)
            batch = batches(-1 - step, SIDES[0], 8)
            losses.append(float(_step_loss(model, batch, generator, device, blind=0.0)))
        return sum(losses) / count

    plain = loss()
    ratios = {}
    for stage in range(1, len(model.unet.up_blocks)):
        with flat_entry(model.unet, stage):
            ratios[stage] = loss() / plain
    return plain, ratios
