"""Sampling functions in the WebUI's calling convention."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

Told = Callable[[dict[str, Any]], None]


class _Noise:
    """Where samplers draw noise from: the call's generators, one a picture."""

    source: Callable[[], Tensor]


noise = _Noise()


def _tell(callback: Told | None, **values: Any) -> None:
    if callback is not None:
        callback(values)


def _calls(model: Any, x: Tensor, extra_args: dict[str, Any] | None
           ) -> Callable[[Tensor, Any], Tensor]:
    """The model at one noise level for all rows."""
    ones = x.new_ones(len(x))
    return lambda x, level: model(x, level * ones, **(extra_args or {}))


def sample_euler(model: Any, x: Tensor, sigmas: Tensor, extra_args: Any = None,
                 callback: Told | None = None, disable: Any = None) -> Tensor:
    """One call a step."""
    call = _calls(model, x, extra_args)
    for i, (now, after) in enumerate(pairwise(sigmas)):
        denoised = call(x, now)
        _tell(callback, x=x, i=i, sigma=now, denoised=denoised)
        x = x + (x - denoised) / now * (after - now)
    return x


def sample_euler_ancestral(model: Any, x: Tensor, sigmas: Tensor, extra_args: Any = None,
                           callback: Told | None = None, disable: Any = None, eta: float = 1.0
                           ) -> Tensor:
    """With new noise at every step but the last."""
    call = _calls(model, x, extra_args)
    for i, (now, after) in enumerate(pairwise(sigmas)):
        denoised = call(x, now)
        _tell(callback, x=x, i=i, sigma=now, denoised=denoised)
        up = min(after, eta * (after**2 * (now**2 - after**2) / now**2).sqrt())
        down = (after**2 - up**2).sqrt()
        x = x + (x - denoised) / now * (down - now)
        if after > 0:
            x = x + noise.source() * up
    return x


def sample_heun(model: Any, x: Tensor, sigmas: Tensor, extra_args: Any = None,
                callback: Told | None = None, disable: Any = None) -> Tensor:
    """Two calls a step, one at the last."""
    call = _calls(model, x, extra_args)
    for i, (now, after) in enumerate(pairwise(sigmas)):
        denoised = call(x, now)
        _tell(callback, x=x, i=i, sigma=now, denoised=denoised)
        slope = (x - denoised) / now
        guess = x + slope * (after - now)
        if after > 0:
            slope = (slope + (guess - call(guess, after)) / after) / 2
            guess = x + slope * (after - now)
        x = guess
    return x


def sample_dpmpp_2m(model: Any, x: Tensor, sigmas: Tensor, extra_args: Any = None,
                    callback: Told | None = None, disable: Any = None) -> Tensor:
    """DPM-Solver++(2M): the last two estimates make the next."""
    call, before, length = _calls(model, x, extra_args), None, None
    for i, (now, after) in enumerate(pairwise(sigmas)):
        denoised = call(x, now)
        _tell(callback, x=x, i=i, sigma=now, denoised=denoised)
        step = now.log() - after.log()
        estimate = denoised
        if before is not None and length is not None and after > 0:
            share = step / (2 * length)
            estimate = (1 + share) * denoised - share * before
        x = after / now * x - torch.expm1(-step) * estimate
        before, length = denoised, step
    return x


def sample_lcm(model: Any, x: Tensor, sigmas: Tensor, extra_args: Any = None,
               callback: Told | None = None, disable: Any = None) -> Tensor:
    """Every estimate is noised anew, in place as the WebUI's does."""
    call = _calls(model, x, extra_args)
    for i, (now, after) in enumerate(pairwise(sigmas)):
        denoised = call(x, now)
        _tell(callback, x=x, i=i, sigma=now, denoised=denoised)
        x = denoised
        if after > 0:
            x += after * noise.source()
    return x


def sample_dpm_adaptive(model: Any, x: Tensor, sigma_min: Tensor, sigma_max: Tensor,
                        extra_args: Any = None, callback: Told | None = None, disable: Any = None
                        ) -> Tensor:
    """Steps until the estimate stands still."""
    call, now, before = _calls(model, x, extra_args), sigma_max, None
    for i in range(20):
        denoised = call(x, now)
        _tell(callback, x=x, i=i, sigma=now, denoised=denoised)
        still = before is not None and float((denoised - before).abs().max()) < 0.1
        if still or now <= sigma_min:
            return denoised
        x = x + (x - denoised) / now * (now * 0.6 - now)
        now, before = now * 0.6, denoised
    return x


def ddim(model: Any, x: Tensor, timesteps: Tensor, extra_args: Any = None,
         callback: Told | None = None, disable: Any = None, eta: float = 0.0) -> Tensor:
    """On eps; the first timestep is only reached, not called."""
    alphas = model.inner_model.inner_model.alphas_cumprod
    call = _calls(model, x, extra_args)
    for i, index in enumerate(range(len(timesteps) - 1, 0, -1)):
        eps = call(x, timesteps[index].item())
        now, after = alphas[timesteps[index]], alphas[timesteps[index - 1]]
        spread = eta * ((1 - after) / (1 - now) * (1 - now / after)).sqrt()
        estimate = (x - (1 - now).sqrt() * eps) / now.sqrt()
        x = after.sqrt() * estimate + (1 - after - spread**2).sqrt() * eps
        x = x + spread * noise.source()
        _tell(callback, x=x, i=i, sigma=0, denoised=estimate)
    return x
