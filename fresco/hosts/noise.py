"""Noise levels of a model's schedule, and conversion of its output to a denoised estimate."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

ALMOST_CLEAN = 0.06
"""Share of the training timesteps below which the last call of a sampling lies; 20 steps end at
timestep 51 of 1000 or below it, whatever their spacing, and 4 steps at 250."""
REFERENCE = 0.001
"""Share of the training timesteps that the published reference pass takes: timestep 1 of 1000."""


def choose_reference(last: float, trained: int) -> float:
    """Choose the timestep of the reference pass: that of the last model call.

    With few calls the last one is far from clean; then it is the published one (docs/method.md,
    section 5).

    Args:
        last: timestep of the last model call
        trained: training timesteps
    """
    return last if last <= ALMOST_CLEAN * trained else REFERENCE * trained


def compute_model_sigmas(alphas_cumprod: Tensor) -> tuple[float, ...]:
    """Compute the noise level sqrt((1 - a) / a) of every training timestep, rising."""
    # The lower bound is that of diffusers, for schedules that end in pure noise (a = 0).
    a = alphas_cumprod.detach().cpu().double().clamp(min=2**-24)
    return tuple(((1 - a) / a).sqrt().tolist())


def interpolate_sigmas(timesteps: Tensor, model_sigmas: Sequence[float]) -> tuple[float, ...]:
    """Find the noise level at timesteps; second-order schedulers use fractions."""
    place = timesteps.cpu().double().clamp(0, len(model_sigmas) - 1)
    below = place.floor().long()
    above = (below + 1).clamp(max=len(model_sigmas) - 1)
    log = torch.tensor(model_sigmas, dtype=torch.float64).log()
    return tuple(torch.lerp(log[below], log[above], place - below).exp().tolist())


def to_estimate(output: Tensor, x: Tensor, sigma: float, kind: str) -> Tensor:
    """Compute the denoised estimate x0 from a model output.

    Args:
        output: epsilon, v or x0 itself
        x: model input sqrt(a) x0 + sqrt(1 - a) noise
        sigma: noise level sqrt((1 - a) / a)
        kind: prediction type of diffusers
    """
    a, s = weigh_signal_and_noise(sigma)
    if kind == "epsilon":
        return (x - s * output) / a
    if kind == "v_prediction":
        return a * x - s * output
    return output


def from_estimate(estimate: Tensor, x: Tensor, sigma: float, kind: str) -> Tensor:
    """Inverse of `to_estimate` at the same input."""
    a, s = weigh_signal_and_noise(sigma)
    noise = (x - a * estimate) / s
    if kind == "epsilon":
        return noise
    if kind == "v_prediction":
        return a * noise - s * estimate
    return estimate


def weigh_signal_and_noise(sigma: float) -> tuple[float, float]:
    """Compute sqrt(a) and sqrt(1 - a) of a noise level."""
    a = (1 + sigma * sigma) ** -0.5
    return a, sigma * a
