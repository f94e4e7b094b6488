"""The loaded model of AUTOMATIC1111's WebUI."""

# pyright: reportMissingImports=false
from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from modules import devices, sd_models, shared
from modules.sd_samplers_timesteps import CompVisSampler
from torch import Tensor

from fresco.guidance.ports import Chunk
from fresco.hosts.coding import LATENT_SIDE, code_in_parts
from fresco.hosts.detection import find_guidable_unet
from fresco.hosts.ldm.unet import LdmUNet, Sources
from fresco.hosts.noise import compute_model_sigmas, weigh_signal_and_noise
from fresco.hosts.webui.model import ReferencePoint


@dataclass(frozen=True, slots=True)
class A1111Model:
    """`HostModel` of the WebUI, whose model is one of `ldm` or `sgm`."""

    model: Any
    """The WebUI's own model object."""
    unet: LdmUNet
    """Its guided UNet."""
    sigmas: Sequence[float]
    """Noise level of every training timestep, rising."""

    @classmethod
    def of(cls, model: Any) -> A1111Model:
        """Open a loaded model; HostError if it cannot be guided."""
        unet = LdmUNet(find_guidable_unet(model), sources=_find_hypernetworks())
        return cls(model, unet, compute_model_sigmas(model.alphas_cumprod))

    def evaluate(
        self, denoiser: Any, point: ReferencePoint, text: Any, image_cond: Any, chunk: Chunk
    ) -> None:
        """Call the denoiser's own model, in the form that its sampler uses."""
        x = _add_noise(point, by_timestep=isinstance(denoiser.sampler, CompVisSampler))
        mark = x.new_full((len(x),), point.mark)
        with _plain_forward(self.unet.unet):
            denoiser.inner_model(x, mark, cond=_make_condition(_unmark(text), image_cond))

    def decode(self, latents: Tensor) -> Tensor:
        """Decode [N, C, h, w] to images [N, 3, H, W] in [-1, 1]."""
        def decode_part(part: Tensor) -> Tensor:
            return self.model.decode_first_stage(part.to(devices.dtype_vae)).float()

        with devices.without_autocast():
            return code_in_parts(decode_part, latents, LATENT_SIDE)

    def encode(self, images: Tensor) -> Tensor:
        """Encode images [N, 3, H, W] in [-1, 1] to [N, C, h, w]; the mean, without noise."""
        def encode_part(part: Tensor) -> Tensor:
            posterior = self.model.encode_first_stage(part.to(devices.dtype_vae))
            latents = posterior if isinstance(posterior, Tensor) else posterior.mode()
            scale = 1.0 if isinstance(posterior, Tensor) else self.model.scale_factor
            return latents * scale

        with devices.without_autocast():
            return code_in_parts(encode_part, images)

    @contextmanager
    def sampling(self, p: Any, *, smooths: bool) -> Iterator[None]:
        """Within the context, no tokens are merged; the WebUI sets its ratio again later."""
        sd_models.apply_token_merging(p.sd_model, 0)  # merged tokens have no motion path
        yield

    def list_facts(self) -> Mapping[str, Any]:
        """Return nothing more."""
        return {}


def _find_hypernetworks() -> Sources | None:
    """Find the hypernetworks that change keys and values of attention, if any is loaded."""
    loaded = getattr(shared, "loaded_hypernetworks", None)
    if not loaded:
        return None
    hypernetwork = importlib.import_module("modules.hypernetworks.hypernetwork")
    return lambda x: hypernetwork.apply_hypernetworks(loaded, x)


def _add_noise(point: ReferencePoint, *, by_timestep: bool) -> Tensor:
    """Add noise to latents, in the form in which the sampler passes them to the model."""
    if not by_timestep:
        return point.clean + point.noise * point.mark
    a, s = weigh_signal_and_noise(point.sigma)
    return a * point.clean + s * point.noise


def _make_condition(text: Any, image_cond: Tensor) -> dict[str, Any]:
    """Make the conditioning as the WebUI passes it to the model: a dict for SDXL, else a tensor."""
    if isinstance(text, dict):
        return {**text, "c_concat": [image_cond]}
    return {"c_crossattn": [text], "c_concat": [image_cond]}


_MARK = 1024.0
"""ControlNet puts one token of plus or minus this before every conditioning."""


def _unmark(text: Any) -> Any:
    """Remove from a conditioning the token that ControlNet removes in its own forward."""
    if isinstance(text, dict):
        return {**text, "crossattn": _unmark(text["crossattn"])}
    first = text[:, :1].abs()
    marked = first.numel() > 0 and bool((first - _MARK).abs().max() < 1)
    return text[:, 1:] if marked else text


@contextmanager
def _plain_forward(unet: Any) -> Iterator[None]:
    """Within the context, the UNet has its own forward, not one that an extension has set."""
    attributes = vars(unet)
    foreign = attributes.pop("forward", None)
    try:
        yield
    finally:
        if foreign is not None:
            attributes["forward"] = foreign
