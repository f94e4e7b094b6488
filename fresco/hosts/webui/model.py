"""The interface of guidance to the loaded model of a WebUI of any kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from fresco.guidance.ports import Chunk
from fresco.hosts.ldm.unet import LdmUNet

_LATENT_CHANNELS = 4
"""Channels of the latents of all models that can be guided; older hosts do not tell."""


@dataclass(frozen=True, slots=True)
class ReferencePoint:
    """Noise level and noise of the reference pass: almost clean frames, each with its own noise."""

    clean: Tensor
    """[N, C, h, w] latents."""
    noise: Tensor
    """[N, C, h, w]."""
    sigma: float
    """Noise level."""
    mark: float
    """This level in the sampler's own units: a sigma or a timestep."""


class HostModel(Protocol):
    """A model that can be guided."""

    @property
    def unet(self) -> LdmUNet:
        """Its guided UNet."""
        ...

    @property
    def sigmas(self) -> Sequence[float]:
        """Noise level of every training timestep, rising, as it was when the model was opened."""
        ...

    def evaluate(
        self, denoiser: Any, point: ReferencePoint, text: Any, image_cond: Any, chunk: Chunk
    ) -> None:
        """Call the UNet as the reference pass does: once, without what extensions added to it.

        Args:
            denoiser: the sampler's `CFGDenoiser`
            text: conditioning of every frame
            image_cond: image conditioning of the call
            chunk: which conditioning it is
        """
        ...

    def decode(self, latents: Tensor) -> Tensor:
        """Decode [N, C, h, w] to images [N, 3, H, W] in [-1, 1]."""
        ...

    def encode(self, images: Tensor) -> Tensor:
        """Encode images [N, 3, H, W] in [-1, 1] to [N, C, h, w]; the mean, without noise."""
        ...

    def sampling(self, p: Any, *, smooths: bool) -> AbstractContextManager[None]:
        """Prepare the model within the context, so that a call of `p.sample` can be guided.

        Args:
            smooths: whether the VAE works between steps
        """
        ...

    def list_facts(self) -> Mapping[str, Any]:
        """List what changes images, besides what every WebUI has."""
        ...


def find_latent_channels(model: Any) -> int:
    """Number of channels of the latents of the model `shared.sd_model`."""
    objects = getattr(model, "forge_objects", None)
    owner = model if objects is None else objects.vae
    return getattr(owner, "latent_channels", None) or _LATENT_CHANNELS
