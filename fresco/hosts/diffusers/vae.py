"""The VAE of a diffusers model: images to latents and back, a few frames at a time."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor

from fresco.errors import HostError
from fresco.hosts.coding import split_frames
from fresco.hosts.devices import find_dtype
from fresco.memory import memory_errors

log = logging.getLogger("fresco")


def to_tensor(frames: NDArray[np.uint8], device: torch.device) -> Tensor:
    """Convert [N, H, W, 3] uint8 to [N, 3, H, W] in [-1, 1]."""
    pixels = torch.from_numpy(np.ascontiguousarray(frames)).to(device)
    return rearrange(pixels, "n h w c -> n c h w").float() / 127.5 - 1


def to_pixels(images: Tensor) -> NDArray[np.uint8]:
    """Convert [N, 3, H, W] in [-1, 1] to [N, H, W, 3] uint8, clamped and rounded."""
    pixels = ((images / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8)
    return rearrange(pixels, "n c h w -> n h w c").cpu().numpy()


class LatentCodec:
    """`Codec` with an AutoencoderKL; float32 in and out, inside the VAE's own type.

    SDXL's VAE overflows in float16. From the first time that a VAE does so it works in float32.
    """

    def __init__(self, vae: Any) -> None:
        self._vae = vae

    @torch.no_grad()
    def encode(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Encode [N, 3, H, W] in [-1, 1] to scaled latents.

        With a generator: a sample of the posterior, its noise shared by all frames, so that equal
        frames get equal latents. Without: its mode.
        """
        shift, factor = self._vae.config.shift_factor or 0.0, self._vae.config.scaling_factor

        def encode_part(part: Tensor) -> Tensor:
            """Mean and deviation of the posterior, side by side."""
            with memory_errors("while encoding frames"):
                posterior = self._vae.encode(part.to(find_dtype(self._vae))).latent_dist
            return torch.cat([posterior.mode(), posterior.std], dim=1).float()

        latents, deviation = self._compute(encode_part, split_frames(images)).chunk(2, dim=1)
        if generator is not None:
            noise = torch.randn(latents.shape[1:], generator=generator).to(latents)
            latents = latents + deviation * noise
        return (latents - shift) * factor

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Decode scaled latents to [N, 3, H, W] in about [-1, 1]."""
        config = self._vae.config
        scaled = latents / config.scaling_factor + (config.shift_factor or 0.0)
        factor = 2 ** (len(config.block_out_channels) - 1)

        def decode_part(part: Tensor) -> Tensor:
            with memory_errors("while decoding frames"):
                return self._vae.decode(part.to(find_dtype(self._vae))).sample.float()

        images = self._compute(decode_part, split_frames(scaled, factor))
        if find_dtype(self._vae) == torch.float32 and not _is_finite(images):
            raise HostError(
                f"The VAE returned NaN or infinite values in {find_dtype(self._vae)}. Use another "
                "sampling.vae, or another checkpoint."
            )
        return images

    def _compute(self, work: Callable[[Tensor], Tensor], parts: Sequence[Tensor]) -> Tensor:
        """Apply `work` to some frames at a time, again in float32 if the VAE overflows."""
        result = torch.cat([work(part) for part in parts])
        before = find_dtype(self._vae)
        # Reading values waits for the device, so a VAE in float32 is checked in decode only.
        if before == torch.float32 or _is_finite(result):
            return result
        log.warning(
            "The VAE returned NaN or infinite values in %s; it works in float32 from here on, "
            "which takes more time and memory. A VAE made for float16 avoids that.", before,
        )
        with memory_errors("while turning the VAE to float32"):
            torch.nn.Module.to(self._vae, dtype=torch.float32)
        return torch.cat([work(part) for part in parts])


def _is_finite(values: Tensor) -> bool:
    return bool(torch.isfinite(values).all())
