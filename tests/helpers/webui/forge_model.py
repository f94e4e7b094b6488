"""The double's model as the Forge kinds have it: behind `forge_objects`, a VAE that draws.

The double's samplers stay those of the WebUI; what they give the model comes to the UNet as a Forge
kind would give it: negative rows first, with `transformer_options`. So both families can be
compared.
"""

from __future__ import annotations

import copy
import types
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from fresco.guidance.ports import Chunk
from tests.helpers.forge_unet import NUMBERS, make_forge_unet
from tests.helpers.webui.model import LatentDiffusion, Posterior, small_model

BYTES_A_PIXEL = 100
"""What the VAE says that it needs."""


class Predictor(nn.Module):
    """Noise levels of the training timesteps."""

    prediction_type = "epsilon"

    def __init__(self, alphas: Tensor) -> None:
        super().__init__()
        self.sigmas = ((1 - alphas) / alphas).sqrt()

    def timestep(self, sigma: Tensor) -> Tensor:
        """Between two of them, as the double's denoiser has it; Forge kinds take the nearest."""
        levels = self.sigmas.log()
        high = torch.searchsorted(levels, sigma.log()).clamp(1, len(levels) - 1)
        share = (sigma.log() - levels[high - 1]) / (levels[high] - levels[high - 1])
        return high - 1 + share.clamp(0, 1)


class AroundUNet(nn.Module):
    """`KModel` of Forge: takes x and a noise level, gives the estimate."""

    def __init__(self, unet: nn.Module, alphas: Tensor) -> None:
        super().__init__()
        self.diffusion_model = unet
        self.predictor = Predictor(alphas)

    def apply_model(
        self, x: Tensor, t: Tensor, c_crossattn: Tensor, y: Tensor | None = None,
        transformer_options: Any = None,
    ) -> Tensor:
        """x0 of x = x0 + t noise."""
        level = t[:, None, None, None]
        eps = self.diffusion_model(
            x / (level**2 + 1).sqrt(), self.predictor.timestep(t), context=c_crossattn, y=y,
            transformer_options=transformer_options,
        )
        return x - level * eps


class Patcher:
    """Memory of a model; several patchers share one model."""

    controlnet_linked_list: Any = None

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.model_options: dict[str, Any] = {"transformer_options": {}}
        self.extra_model_patchers_during_sampling: list[Any] = []
        self.extra_preserved_memory_during_sampling = 0

    def clone(self) -> Patcher:
        """Another of the same model."""
        made = copy.copy(self)
        made.model_options = copy.deepcopy(self.model_options)
        made.extra_model_patchers_during_sampling = [*self.extra_model_patchers_during_sampling]
        return made

    def add_extra_model_patcher_during_sampling(self, patcher: Any) -> None:
        """Keep another model on the card."""
        self.extra_model_patchers_during_sampling.append(patcher)

    def add_extra_preserved_memory_during_sampling(self, memory: int) -> None:
        """Keep room."""
        self.extra_preserved_memory_during_sampling += memory

    def memory_required(self, shape: Any) -> int:
        """Bytes of an evaluation."""
        return int(shape[0] * shape[2] * shape[3])


class Objects:
    """`forge_objects`."""

    def __init__(self, unet: Patcher, vae: Any) -> None:
        self.unet, self.vae = unet, vae

    def shallow_copy(self) -> Objects:
        """For a call."""
        return Objects(self.unet, self.vae)


class ForgeEngine(LatentDiffusion):
    """The same weights as the double's small model."""

    cond_stage_key = ""

    def __init__(self, style: str) -> None:
        super().__init__()
        source = small_model()
        self.load_state_dict(source.state_dict())
        unet = make_forge_unet(source.model.diffusion_model, style)
        self.model.diffusion_model = unet
        around = AroundUNet(unet, self.schedule)
        vae = self.first_stage_model
        vae.encode = types.MethodType(_encode, vae)
        self.forge_objects = Objects(Patcher(around), SimpleNamespace(
            first_stage_model=vae, patcher=Patcher(vae), latent_channels=4, vae_dtype=torch.float32,
            memory_used_decode=lambda shape, dtype: BYTES_A_PIXEL * shape[2] * shape[3],
        ))
        self.eval().requires_grad_(False)
        self.evaluations: list[tuple[int, ...]] = []
        """Conditionings of every evaluation."""

    def apply_model(self, x: Tensor, t: Tensor, cond: dict[str, Any]) -> Tensor:
        """eps of what the double asks for: both conditionings, positive first, or the positive."""
        half = len(x) // 2
        both = len(x) == 2 * half and torch.equal(x[:half], x[half:])
        order: tuple[Chunk, ...] = ("negative", "positive") if both else ("positive",)
        numbers = [NUMBERS[chunk] for chunk in order]
        self.evaluations.append(tuple(numbers))
        turned = [_turn(part, len(order)) for part in (x, t, *cond["c_crossattn"])]
        output = self.model.diffusion_model(
            *turned, transformer_options={"cond_or_uncond": numbers}
        )
        return _turn(output, len(order))

    def encode_first_stage(self, x: Tensor) -> Any:
        """Latents, drawn."""
        return self.scale_factor * self.forge_objects.vae.first_stage_model.encode(x)

    def get_first_stage_encoding(self, latents: Tensor) -> Tensor:
        """They are scaled already."""
        return latents

    def decode_first_stage(self, z: Tensor) -> Tensor:
        """Clamped."""
        return super().decode_first_stage(z).clamp(-1, 1)


def _turn(rows: Tensor, chunks: int) -> Tensor:
    """Chunks of rows, the last first."""
    return torch.cat(rows.chunk(chunks)[::-1])


def _encode(vae: Any, x: Tensor) -> Tensor:
    return Posterior(vae.encoder(x)).sample()
