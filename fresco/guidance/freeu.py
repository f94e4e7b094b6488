"""FreeU: stronger backbone, damped low frequencies of the skip (docs/method.md, section 11)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from fresco.flow.precision import full_precision
from fresco.settings import GuidanceSettings

VERSION = 2
"""Increased when the results of FreeU change; images made with it are then made again.

2: every block of a stage, in float32. 1: the first block of a stage."""


@dataclass(frozen=True, slots=True)
class FreeU:
    """FreeU's factors at the coarsest decoder stages; 1 changes nothing."""

    backbone: tuple[float, ...]
    """Factors of the decoder's feature, by stage."""
    skip: tuple[float, ...]
    """Factors of the skip's low frequencies, by stage."""

    @classmethod
    def of(cls, settings: GuidanceSettings) -> FreeU:
        """Read the factors from the settings."""
        return cls(
            backbone=(settings.freeu_b1, settings.freeu_b2),
            skip=(settings.freeu_s1, settings.freeu_s2),
        )

    @property
    def is_on(self) -> bool:
        """Whether it changes anything."""
        return any(factor != 1 for factor in (*self.backbone, *self.skip))

    def apply(self, stage: int, h: Tensor, skip: Tensor) -> tuple[Tensor, Tensor]:
        """Change input and skip of one block of a decoder stage, each [rows, C, H, W]."""
        if stage >= len(self.backbone):
            return h, skip
        return (
            scale_backbone(h, self.backbone[stage]), damp_low_frequencies(skip, self.skip[stage])
        )


@torch.no_grad()
def scale_backbone(h: Tensor, factor: float) -> Tensor:
    """Multiply the first half of the channels by 1 + (factor - 1) m.

    m is the mean over channels, scaled to 0..1 for each frame. A frame with a constant mean is left
    unchanged. Factor 1 returns `h`.

    Args:
        h: [N, C, H, W].
    """
    if factor == 1:
        return h
    mean = h.float().mean(dim=1, keepdim=True)  # [N, 1, H, W]
    low, high = mean.amin((2, 3), keepdim=True), mean.amax((2, 3), keepdim=True)
    share = torch.where(high > low, (mean - low) / (high - low), 0)
    half = h.shape[1] // 2
    strengthened = h[:, :half] * (1 + (factor - 1) * share).to(h.dtype)
    return torch.cat([strengthened, h[:, half:]], dim=1)


def _list_frequencies(size: int, radius: int) -> list[int]:
    """Distinct frequencies of the window [-radius, radius) around the spectrum's centre."""
    centre = size // 2
    window = range(max(0, centre - radius), min(size, centre + radius))
    return [place - centre for place in window]


def _make_low_basis(height: int, width: int, radius: int, like: Tensor) -> Tensor:
    """[HW, K] cosines and sines of the frequencies in the window."""
    y = torch.arange(height, device=like.device, dtype=like.dtype)[:, None] / height
    x = torch.arange(width, device=like.device, dtype=like.dtype) / width
    waves = []
    for v, u in product(_list_frequencies(height, radius), _list_frequencies(width, radius)):
        angle = (2 * math.pi * (v * y + u * x)).flatten()
        waves += [angle.cos(), angle.sin()]
    return torch.stack(waves, dim=1)


@torch.no_grad()
def damp_low_frequencies(skip: Tensor, factor: float, *, radius: int = 1) -> Tensor:
    """Multiply a window of 2 radius by 2 radius at the spectrum's centre by `factor`.

    Its few waves are projected out instead of transforming the whole feature. That needs no complex
    numbers, so it works for every dtype and device. It is computed in float32 also under a host's
    autocast, because a sum over a frame of 64 x 64 exceeds the range of float16. Factor 1 returns
    `skip`.

    Args:
        skip: [N, C, H, W].
    """
    if factor == 1:
        return skip
    with full_precision(skip.device):
        flat = skip.float().flatten(2)  # [N, C, HW]
        basis = _make_low_basis(skip.shape[-2], skip.shape[-1], radius, flat)
        low = flat @ basis @ basis.T / flat.shape[-1]
        return (flat + (factor - 1) * low).view(skip.shape).to(skip.dtype)
