"""The loaded model of the WebUI, as guidance takes it: its UNet, noise levels and VAE."""

# pyright: reportMissingImports=false
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from modules import devices, shared
from torch import Tensor

from fresco.hosts.detection import find_guidable_unet
from fresco.hosts.ldm.unet import LdmUNet, Sources
from fresco.hosts.noise import compute_model_sigmas


@dataclass(frozen=True, slots=True)
class WebuiModel:
    """A model of the WebUI that can be guided."""

    model: Any
    """The WebUI's own object."""
    unet: LdmUNet
    """The seam on its UNet."""
    sigmas: Sequence[float]
    """Noise level of every training timestep, rising."""

    @classmethod
    def of(cls, model: Any) -> WebuiModel:
        """A loaded model; one that cannot be guided is refused by name."""
        unet = LdmUNet(find_guidable_unet(model), sources=_hypernetworks())
        return cls(model, unet, compute_model_sigmas(model.alphas_cumprod))

    def decode(self, latents: Tensor) -> Tensor:
        """[N, C, h, w] -> images [N, 3, H, W] in [-1, 1]."""
        with devices.without_autocast():
            return self.model.decode_first_stage(latents.to(devices.dtype_vae)).float()

    def encode(self, images: Tensor) -> Tensor:
        """Images [N, 3, H, W] in [-1, 1] -> [N, C, h, w]; the mean, without noise."""
        with devices.without_autocast():
            posterior = self.model.encode_first_stage(images.to(devices.dtype_vae))
            latents = posterior if isinstance(posterior, Tensor) else posterior.mode()
            scale = 1.0 if isinstance(posterior, Tensor) else self.model.scale_factor
            return latents * scale


def _hypernetworks() -> Sources | None:
    """What keys and values of attention are made of, if hypernetworks are loaded. Forge Neo has
    none."""
    loaded = getattr(shared, "loaded_hypernetworks", None)
    if not loaded:
        return None
    from modules.hypernetworks import hypernetwork

    return lambda x: hypernetwork.apply_hypernetworks(loaded, x)
