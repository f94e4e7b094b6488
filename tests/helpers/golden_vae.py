"""The golden files' stand-in for a VAE."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

SCALE = 0.18215


class GivenCodec:
    """A colour matrix and blocks of 8x8 pixels."""

    def __init__(self, arrays: dict[str, Tensor]) -> None:
        self._out, self._in = arrays["vae_M"], arrays["vae_P"]

    def encode(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """[N, 3, H, W] in [-1, 1] -> scaled latents."""
        return torch.einsum("cd,ndhw->nchw", self._in, avg_pool2d(images, 8)) * SCALE

    def decode(self, latents: Tensor) -> Tensor:
        """Scaled latents -> [N, 3, H, W]."""
        colours = torch.einsum("cd,ndhw->nchw", self._out, latents / SCALE)
        return interpolate(colours, scale_factor=8, mode="nearest")


class LossyCodec(GivenCodec):
    """The codec in a sampling whose smoothed estimates keep the codec's loss, as official.

    Ours adds the difference that smoothing makes between two encodings. Images that were decoded
    here encode to the latents they came from, so the difference contains the loss.
    """

    def __init__(self, arrays: dict[str, Tensor]) -> None:
        super().__init__(arrays)
        self._last: tuple[Tensor, Tensor] | None = None

    def decode(self, latents: Tensor) -> Tensor:
        """Scaled latents -> [N, 3, H, W]."""
        images = super().decode(latents)
        self._last = images, latents
        return images

    def encode(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """[N, 3, H, W] in [-1, 1] -> scaled latents."""
        if self._last is not None and images is self._last[0]:
            return self._last[1]
        return super().encode(images, generator)
