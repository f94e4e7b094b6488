"""`modules.sd_samplers_timesteps`: samplers that count in timesteps and work on eps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tests.helpers.webui import shared
from tests.helpers.webui.sd_samplers_cfg_denoiser import CFGDenoiser
from tests.helpers.webui.sd_samplers_common import Sampler, setup_img2img_steps


class CompVisTimestepsDenoiser(nn.Module):
    """eps at a timestep."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.inner_model = model

    def forward(self, x: Tensor, timesteps: Tensor, cond: dict[str, Any]) -> Tensor:
        """eps."""
        return self.inner_model.apply_model(x, timesteps, cond)


class CFGDenoiserTimesteps(CFGDenoiser):
    """Around eps."""

    def estimate(self, x: Tensor, output: Tensor, sigma: Tensor) -> Tensor:
        """x0; what is called sigma is a timestep."""
        a = shared.sd_model.alphas_cumprod[sigma.long()][:, None, None, None]
        return (x - (1 - a).sqrt() * output) / a.sqrt()

    @property
    def inner_model(self) -> Any:
        """The model below, made when first asked for."""
        if self.model_wrap is None:
            self.model_wrap = CompVisTimestepsDenoiser(shared.sd_model)
        return self.model_wrap


class CompVisSampler(Sampler):
    """DDIM and its kin."""

    eta_option_field, eta_default = "eta_ddim", 0.0

    def __init__(self, func: Callable[..., Tensor]) -> None:
        super().__init__(func)
        self.model_wrap_cfg = CFGDenoiserTimesteps(self)
        self.model_wrap = self.model_wrap_cfg.inner_model

    def sample_img2img(self, p: Any, x: Tensor, noise: Tensor, conditioning: Any,
                       unconditional_conditioning: Any, steps: int | None = None,
                       image_conditioning: Any = None) -> Tensor:
        """From latents with noise of the timestep that the strength says."""
        steps, start = setup_img2img_steps(p, steps)
        timesteps = torch.arange(0, 1000, 1000 // steps).add(1).clip(0, 999)
        a = shared.sd_model.alphas_cumprod[timesteps[start]]
        extra = self.initialize(p) | {"timesteps": timesteps[:start]}
        conditionings = (conditioning, unconditional_conditioning, image_conditioning)
        return self.launch(x, x * a.sqrt() + noise * (1 - a).sqrt(), conditionings, **extra)
