"""The loaded checkpoint: an LDM UNet, a VAE of a few convolutions, and a text model of hashes."""

from __future__ import annotations

import copy
import functools
import hashlib
from typing import Any

import torch
from torch import Tensor, nn

from tests.helpers.ldm_unet import CONTEXT, SD1, UNetModel

_WORDS, _TOKENS = 75, 77
_STEPS = 1000
_SHARPER = 6.0
"""Factor on queries, so that attention of random weights picks instead of averaging."""


class Posterior:
    """Gaussian over latents."""

    def __init__(self, moments: Tensor) -> None:
        self.mean, spread = moments.chunk(2, dim=1)
        self.std = (0.5 * (spread - 8).clamp(-30, 20)).exp()

    def mode(self) -> Tensor:
        """The likeliest."""
        return self.mean

    def sample(self) -> Tensor:
        """One drawn from torch's own generator, which nobody seeds."""
        return self.mean + self.std * torch.randn(self.mean.shape).to(self.mean)


class Autoencoder(nn.Module):
    """Eight pixels a side of a latent."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(3, 16, 4, stride=2, padding=1), nn.SiLU(),
            nn.Conv2d(16, 16, 4, stride=2, padding=1), nn.SiLU(),
            nn.Conv2d(16, 8, 4, stride=2, padding=1),
        )
        self.decoder = nn.Sequential(
            nn.Conv2d(4, 16, 3, padding=1), nn.SiLU(), nn.Upsample(scale_factor=2),
            nn.Conv2d(16, 16, 3, padding=1), nn.SiLU(), nn.Upsample(scale_factor=2),
            nn.Conv2d(16, 16, 3, padding=1), nn.SiLU(), nn.Upsample(scale_factor=2),
            nn.Conv2d(16, 3, 3, padding=1),
        )


class HijackedUNet(UNetModel):
    """The UNet as the WebUI patches it: sides need not be multiples of 64 pixels."""

    @property
    def dtype(self) -> torch.dtype:
        """Number format of the weights."""
        return next(self.parameters()).dtype

    def forward(
        self, x: Tensor, timesteps: Tensor, context: Tensor | None = None, y: Tensor | None = None
    ) -> Tensor:
        emb = self.time_embed(self._waves(timesteps).to(x.dtype))
        skips: list[Tensor] = []
        for block in self.input_blocks:
            x = block(x, emb, context)
            skips.append(x)
        x = self.middle_block(x, emb, context)
        for block in self.output_blocks:
            skip = skips.pop()
            if x.shape[-2:] != skip.shape[-2:]:
                x = nn.functional.interpolate(x, skip.shape[-2:], mode="nearest")
            x = block(torch.cat([x, skip], dim=1), emb, context)
        return self.out(x)


class DiffusionWrapper(nn.Module):
    """Hands the conditionings to the UNet."""

    conditioning_key = "crossattn"

    def __init__(self) -> None:
        super().__init__()
        self.diffusion_model = HijackedUNet(SD1)

    def forward(self, x: Tensor, t: Tensor, c_crossattn: list[Tensor], c_concat: Any = None
                ) -> Tensor:
        return self.diffusion_model(x, t, context=torch.cat(c_crossattn, 1))


class LatentDiffusion(nn.Module):
    """What the WebUI calls `sd_model`."""

    scale_factor = 0.18215
    parameterization = "eps"
    cond_stage_key = "txt"
    is_sdxl = is_sd3 = False

    def __init__(self) -> None:
        super().__init__()
        self.model = DiffusionWrapper()
        self.first_stage_model = Autoencoder()
        betas = torch.linspace(0.00085**0.5, 0.012**0.5, _STEPS, dtype=torch.float64) ** 2
        self.register_buffer("alphas_cumprod", (1 - betas).cumprod(0).float())
        self.rows: list[int] = []
        """Rows of every call of the UNet that the WebUI made."""

    @property
    def schedule(self) -> Tensor:
        """`alphas_cumprod`, whose type a checker cannot see."""
        kept = self.alphas_cumprod
        assert isinstance(kept, Tensor)
        return kept

    def apply_model(self, x: Tensor, t: Tensor, cond: dict[str, Any]) -> Tensor:
        """The UNet's output, eps."""
        self.rows.append(len(x))
        kind = self.model.diffusion_model.dtype
        cast = {name: [part.to(kind) for part in parts] for name, parts in cond.items()}
        return self.model(x.to(kind), t, **cast).float()

    def encode_first_stage(self, x: Tensor) -> Posterior:
        """[N, 3, H, W] in [-1, 1]."""
        return Posterior(self.first_stage_model.encoder(x))

    def get_first_stage_encoding(self, posterior: Posterior) -> Tensor:
        """Scaled latents."""
        return self.scale_factor * posterior.sample()

    def decode_first_stage(self, z: Tensor) -> Tensor:
        """[N, 3, H, W] of scaled latents."""
        return self.first_stage_model.decoder(z / self.scale_factor)

    def embed(self, prompt: str) -> Tensor:
        """[77 k, C]: noise that depends on the words."""
        words = prompt.split()
        parts = [" ".join(words[i:i + _WORDS]) for i in range(0, max(len(words), 1), _WORDS)]
        return torch.cat([_noise_of(part) for part in parts]).to(self.schedule.device)


def _noise_of(text: str) -> Tensor:
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")
    return torch.randn(_TOKENS, CONTEXT, generator=torch.Generator().manual_seed(seed))


def place_model(device: torch.device, dtype: torch.dtype) -> LatentDiffusion:
    """A copy of the small model on a device; the noise schedule stays in float32."""
    model = copy.deepcopy(small_model())
    model.alphas_cumprod = model.schedule.to(device)
    model.model.to(device, dtype)
    model.first_stage_model.to(device, dtype)
    return model


@functools.cache
def small_model() -> LatentDiffusion:
    """The same weights always."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LatentDiffusion().eval().requires_grad_(False)
    for name, parameter in model.named_parameters():
        if name.endswith("attn1.to_q.weight"):
            parameter *= _SHARPER
        elif name == "first_stage_model.encoder.4.weight":
            parameter *= 80  # latents near 1 after scaling
        elif name == "first_stage_model.decoder.0.weight":
            parameter *= 0.4  # pictures that are seldom black or white
    return model
