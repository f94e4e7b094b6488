"""The VAE of a diffusers model: images to latents and back, a few frames at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor

from fresco.errors import HostError
from fresco.memory import memory_errors

_PIXELS = 1 << 19
"""Pixels coded at once: two frames of 512x512; bounds memory."""


def to_tensor(frames: NDArray[np.uint8], device: torch.device) -> Tensor:
    """[N, H, W, 3] uint8 -> [N, 3, H, W] in [-1, 1]."""
    pixels = torch.from_numpy(np.ascontiguousarray(frames)).to(device)
    return rearrange(pixels, "n h w c -> n c h w").float() / 127.5 - 1


def to_pixels(images: Tensor) -> NDArray[np.uint8]:
    """[N, 3, H, W] in [-1, 1] -> [N, H, W, 3] uint8, clamped and rounded."""
    pixels = ((images / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8)
    return rearrange(pixels, "n c h w -> n h w c").cpu().numpy()


class LatentCodec:
    """`Codec` on an AutoencoderKL; float32 in and out, the VAE's own type within."""

    def __init__(self, vae: Any) -> None:
        self._vae = vae

    @torch.no_grad()
    def encode(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """[N, 3, H, W] in [-1, 1] -> scaled latents.

        With a generator: a sample of the posterior, its noise shared by all frames, so that equal
        frames get equal latents. Without: its mode.
        """
        shift, factor = self._vae.config.shift_factor or 0.0, self._vae.config.scaling_factor
        noise: Tensor | None = None
        result: list[Tensor] = []
        for part in images.split(self._count_frames(images)):
            with memory_errors("while encoding frames"):
                posterior = self._vae.encode(part.to(self._vae.dtype)).latent_dist
            latents = posterior.mode().float()
            if generator is not None:
                if noise is None:
                    noise = torch.randn(latents.shape[1:], generator=generator).to(latents)
                latents = latents + posterior.std.float() * noise
            result.append((latents - shift) * factor)
        return torch.cat(result)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Scaled latents -> [N, 3, H, W] in about [-1, 1]."""
        config = self._vae.config
        scaled = latents / config.scaling_factor + (config.shift_factor or 0.0)
        result: list[Tensor] = []
        factor = 2 ** (len(config.block_out_channels) - 1)
        for part in scaled.split(max(1, self._count_frames(scaled) // factor**2)):
            with memory_errors("while decoding frames"):
                result.append(self._vae.decode(part.to(self._vae.dtype)).sample.float())
        images = torch.cat(result)
        if not bool(torch.isfinite(images).all()):
            raise HostError(
                f"The VAE returned NaN or infinite values in {self._vae.dtype}. "
                "Set sampling.dtype to float32, or use another sampling.vae."
            )
        return images

    @staticmethod
    def _count_frames(images: Tensor) -> int:
        return max(1, _PIXELS // (images.shape[-1] * images.shape[-2]))
