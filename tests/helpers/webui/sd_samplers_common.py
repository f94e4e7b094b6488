"""`modules.sd_samplers_common`: what all samplers share."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from torch import Tensor

from tests.helpers.webui import sampling, shared


class InterruptedException(BaseException):
    """The person wants the sampling to end."""


def setup_img2img_steps(p: Any, steps: int | None = None) -> tuple[int, int]:
    """Steps of the whole schedule, and the place in it where img2img begins."""
    return p.steps, int(min(p.denoising_strength, 0.999) * p.steps)


class Sampler:
    """One call's sampler; made anew by every `p.init`."""

    eta_option_field, eta_default = "eta_ancestral", 1.0

    def __init__(self, func: Callable[..., Tensor]) -> None:
        self.func = func
        self.p: Any = None
        self.model_wrap_cfg: Any = None
        self.model_wrap: Any = None
        self.sampler_extra_args: dict[str, Any] = {}
        self.last_latent: Any = None
        self.eta: float | None = None
        self.s_min_uncond = 0.0
        self.conditioning_key = shared.sd_model.model.conditioning_key

    def callback_state(self, told: dict[str, Any]) -> None:
        """A sampler tells its step, after the model was called."""
        shared.state.sampling_step = told["i"]

    def initialize(self, p: Any) -> dict[str, Any]:
        """Take what a sampling needs from the call."""
        self.p = self.model_wrap_cfg.p = p
        self.model_wrap_cfg.mask, self.model_wrap_cfg.nmask = p.mask, p.nmask
        self.model_wrap_cfg.step = 0
        self.eta = p.eta if p.eta is not None else getattr(shared.opts, self.eta_option_field)
        self.s_min_uncond = p.s_min_uncond
        sampling.noise.source = p.rng.next
        return {"eta": self.eta} if "eta" in inspect.signature(self.func).parameters else {}

    def launch(self, x: Tensor, xi: Tensor, conditionings: tuple[Any, Any, Tensor],
               **schedule: Any) -> Tensor:
        """Sample from the noised latents `xi` of the clean ones `x`."""
        cond, uncond, image_cond = conditionings
        self.model_wrap_cfg.init_latent = self.last_latent = x
        self.sampler_extra_args = {
            "cond": cond, "image_cond": image_cond, "uncond": uncond,
            "cond_scale": self.p.cfg_scale, "s_min_uncond": self.s_min_uncond,
        }
        _, start = setup_img2img_steps(self.p)
        self.model_wrap_cfg.steps = self.model_wrap_cfg.total_steps = start + 1
        shared.state.sampling_steps, shared.state.sampling_step = start + 1, 0
        try:
            return self.func(
                self.model_wrap_cfg, xi, extra_args=self.sampler_extra_args, disable=False,
                callback=self.callback_state, **schedule,
            )
        except InterruptedException:
            return self.last_latent
