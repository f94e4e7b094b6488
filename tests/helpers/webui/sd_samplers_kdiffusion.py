"""`modules.sd_samplers_kdiffusion` and `sd_samplers_lcm`: samplers that count in noise levels."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tests.helpers.webui import shared
from tests.helpers.webui.sd_samplers_cfg_denoiser import CFGDenoiser
from tests.helpers.webui.sd_samplers_common import Sampler, setup_img2img_steps


class Denoiser(nn.Module):
    """x0 at a noise level, from a model of eps at whole timesteps (k-diffusion's form)."""

    def __init__(self, model: Any, stride: int = 1) -> None:
        super().__init__()
        self.inner_model = model
        self.stride = stride
        alphas = model.alphas_cumprod.flip(0)[::stride].flip(0)
        self.sigmas: Tensor = ((1 - alphas) / alphas).sqrt()

    def sigma_to_t(self, sigma: Tensor) -> Tensor:
        """Timestep of a level, between two of them by its logarithm."""
        levels = self.sigmas.log()
        high = torch.searchsorted(levels, sigma.log()).clamp(1, len(levels) - 1)
        low = high - 1
        share = ((sigma.log() - levels[low]) / (levels[high] - levels[low])).clamp(0, 1)
        return (low + share) * self.stride + (self.stride - 1)

    def t_to_sigma(self, t: Tensor) -> Tensor:
        """The inverse."""
        place = (t - (self.stride - 1)) / self.stride
        low, levels = place.floor().long(), self.sigmas.log()
        high = (low + 1).clamp(max=len(levels) - 1)
        return torch.lerp(levels[low], levels[high], place - low).exp()

    def get_sigmas(self, n: int) -> Tensor:
        """[n + 1] falling, 0 at the end."""
        last = float(self.stride - 1)
        first = len(self.sigmas) * self.stride - 1
        times = torch.linspace(first, last, n, device=self.sigmas.device)
        return torch.cat([self.t_to_sigma(times).cpu(), torch.zeros(1)])

    def forward(self, x: Tensor, sigma: Tensor, cond: dict[str, Any]) -> Tensor:
        """x0."""
        level = sigma[:, None, None, None]
        scaled = x / (level**2 + 1).sqrt()
        return x - level * self.inner_model.apply_model(scaled, self.sigma_to_t(sigma), cond)


class LcmDenoiser(Denoiser):
    """Of a latent consistency model: fifty timesteps, skip scalings."""

    def __init__(self, model: Any) -> None:
        super().__init__(model, stride=20)

    def sigma_to_t(self, sigma: Tensor) -> Tensor:
        """The nearest of its timesteps."""
        nearest = (sigma.log()[:, None] - self.sigmas.log()).abs().argmin(1)
        return nearest * self.stride + (self.stride - 1)

    def forward(self, x: Tensor, sigma: Tensor, cond: dict[str, Any]) -> Tensor:
        """x0, near the input at low noise."""
        time, data = self.sigma_to_t(sigma)[:, None, None, None] * 10.0, 0.5
        kept = data**2 / (time**2 + data**2)
        return time / (time**2 + data**2).sqrt() * super().forward(x, sigma, cond) + kept * x


class CFGDenoiserKDiffusion(CFGDenoiser):
    """Around x0."""

    @property
    def inner_model(self) -> Any:
        """The denoiser below, made when first asked for."""
        if self.model_wrap is None:
            self.model_wrap = Denoiser(shared.sd_model)
        return self.model_wrap


class CFGDenoiserLCM(CFGDenoiser):
    """Around x0 of a latent consistency model."""

    @property
    def inner_model(self) -> Any:
        """The denoiser below, made when first asked for."""
        if self.model_wrap is None:
            self.model_wrap = LcmDenoiser(shared.sd_model)
        return self.model_wrap


class KDiffusionSampler(Sampler):
    """Euler and its kin."""

    denoiser: type[CFGDenoiser] = CFGDenoiserKDiffusion

    def __init__(self, func: Callable[..., Tensor]) -> None:
        super().__init__(func)
        self.model_wrap_cfg = self.denoiser(self)
        self.model_wrap = self.model_wrap_cfg.inner_model

    def sample_img2img(self, p: Any, x: Tensor, noise: Tensor, conditioning: Any,
                       unconditional_conditioning: Any, steps: int | None = None,
                       image_conditioning: Any = None) -> Tensor:
        """From latents with noise of the level that the strength says."""
        steps, start = setup_img2img_steps(p, steps)
        sigmas = self.model_wrap.get_sigmas(steps)[steps - start - 1:]
        extra = self.initialize(p)
        offered = {"sigmas": sigmas, "sigma_min": sigmas[-2], "sigma_max": sigmas[0],
                   "n": len(sigmas) - 1}
        wanted = inspect.signature(self.func).parameters
        extra |= {name: value for name, value in offered.items() if name in wanted}
        conditionings = (conditioning, unconditional_conditioning, image_conditioning)
        return self.launch(x, x + noise * sigmas[0], conditionings, **extra)


class LCMSampler(KDiffusionSampler):
    """LCM."""

    denoiser = CFGDenoiserLCM
