"""The sampling loop: SDEdit over any scheduler, with anchors, guide and background smoothing.

A scheduler's own numbers stay on the CPU, and latents on the model's device. So a step reads
nothing back from the device, and a scheduler may count in float64, which MPS does not have. The
loop waits for the device once a model call, to see that its result is finite; a scheduler that adds
noise waits once more, since the noise is drawn on the CPU.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor

from fresco.errors import HostError
from fresco.guidance.ports import BatchCarry, SamplingGuide, Step
from fresco.hosts.carry import make_carry, pick_ends, send_carry
from fresco.hosts.diffusers.schedulers import (
    draw_own_noise_on_cpu,
    find_exact_sigma,
    pick_step_options,
)
from fresco.hosts.noise import (
    choose_reference,
    from_estimate,
    interpolate_sigmas,
    to_estimate,
    weigh_signal_and_noise,
)
from fresco.hosts.preview import LatentPreview
from fresco.progress import Stage

Predict = Callable[[Tensor, Tensor], Tensor]
"""Model input [N, C, h, w] and timestep -> model output, classifier-free guidance applied."""


class Codec(Protocol):
    """Converts images to latents and back."""

    def encode(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Encode [N, 3, H, W] in [-1, 1]; without generator the mode of the posterior."""
        ...

    def decode(self, latents: Tensor) -> Tensor:
        """Decode latents to [N, 3, H, W] in about [-1, 1]."""
        ...


@dataclass(frozen=True, slots=True)
class Sampling:
    """What a sampling needs besides its batch."""

    scheduler: Any
    """Scheduler of diffusers, with its timesteps set."""
    timesteps: Tensor
    """Timestep of every model call, on the CPU."""
    model_sigmas: tuple[float, ...]
    """Noise level of every training timestep."""
    predict: Predict
    """The model."""
    codec: Codec
    """The VAE, for background smoothing."""
    generator: torch.Generator
    """Source of the noise that the scheduler adds."""
    begin_call: Callable[[Step], None] = lambda step: None
    """Called before each model call."""

    def run(
        self, latents: Tensor, guide: SamplingGuide | None, carry: BatchCarry | None, stage: Stage,
        *, preview: LatentPreview | None = None,
    ) -> tuple[Tensor, BatchCarry]:
        """Denoise [N, C, h, w] from the first timestep on; the anchors follow `carry`."""
        sigmas = interpolate_sigmas(self.timesteps, self.model_sigmas)
        _check_carry(carry, len(sigmas))
        pinned = send_carry(carry, latents) if carry is not None else None
        times = send_timesteps(self.timesteps, latents.device)
        options = pick_step_options(self.scheduler, self.generator)
        draw_own_noise_on_cpu(self.scheduler, latents)
        record: list[Tensor] = []
        for index, (t, sigma) in enumerate(zip(self.timesteps, sigmas, strict=True)):
            if pinned is not None:
                latents = torch.cat([pinned[index], latents[2:]])
            record.append(pick_ends(latents))
            step = Step(index, len(sigmas), sigma)
            if guide is not None:
                guide.step(step)
            self.begin_call(step)
            x = self.scheduler.scale_model_input(latents, t)
            output = self.predict(x, times[index])
            _check_finite(output, step)
            if guide is not None and (guide.steers(step) or guide.smooths(step)):
                exact = find_exact_sigma(self.scheduler, t, sigma)
                output = self._change_estimate(output, x, exact, guide, step)
            latents = self.scheduler.step(output, t, latents, **options, return_dict=False)[0]
            if preview is not None:
                kind = self.scheduler.config.prediction_type
                preview.take(partial(to_estimate, output, x, sigma, kind))
            stage.advance()
        return latents, make_carry(record)

    def _change_estimate(
        self, output: Tensor, x: Tensor, sigma: float, guide: SamplingGuide, step: Step
    ) -> Tensor:
        """Change a model output so that its denoised estimate is that of the guide.

        What it changes in images is added, so that all else is free of the codec's loss.
        """
        kind = self.scheduler.config.prediction_type
        estimate = to_estimate(output, x, sigma, kind)
        if guide.steers(step):
            estimate = guide.steer(estimate)
        if guide.smooths(step):
            images = self.codec.decode(estimate)
            estimate = estimate + (
                self.codec.encode(guide.smooth(images)) - self.codec.encode(images)
            )
        return from_estimate(estimate, x, sigma, kind)


def send_timesteps(timesteps: Tensor, device: torch.device) -> Tensor:
    """Send timesteps to the model's device, never in float64, which MPS does not have."""
    wanted = torch.float32 if timesteps.dtype == torch.float64 else timesteps.dtype
    return timesteps.to(device, wanted)


def draw_noise(like: Tensor, generator: torch.Generator) -> Tensor:
    """Draw noise in the shape of [N, C, h, w] on the CPU, so that every device gets the same."""
    return torch.randn(like.shape, generator=generator, dtype=torch.float32).to(like)


def make_start_latents(scheduler: Any, timesteps: Tensor, clean: Tensor, noise: Tensor) -> Tensor:
    """Make SDEdit's start; all frames have the first one's noise (docs/method.md, section 9)."""
    shared = noise[:1].expand_as(clean).contiguous().cpu()
    return scheduler.add_noise(clean.cpu(), shared, timesteps[:1].repeat(len(clean))).to(clean)


def place_reference(last: Tensor, trained: int) -> Tensor:
    """Choose the timestep of the reference pass, as a timestep of the scheduler.

    See `noise.choose_reference`.
    """
    return torch.full_like(last, choose_reference(float(last), trained))


def capture_reference(
    predict: Callable[..., Tensor], guide: SamplingGuide, clean: Tensor, noise: Tensor,
    t: Tensor, sigma: float,
) -> None:
    """Run the reference pass (docs/method.md, section 5): almost clean frames, no ControlNet.

    Args:
        noise: another one for every frame
        sigma: noise level at t, the last timestep
    """
    if guide.wants_reference:
        a, s = weigh_signal_and_noise(sigma)
        with guide.capturing():
            predict(a * clean + s * noise, send_timesteps(t, clean.device), controlled=False)


def _check_carry(carry: BatchCarry | None, calls: int) -> None:
    if carry is not None and len(carry.latents) != calls:
        raise HostError(
            f"The batch before has {len(carry.latents)} model calls, this one {calls}; it was "
            "made with other settings. Start the run in a new folder."
        )


def _check_finite(output: Tensor, step: Step) -> None:
    if not bool(torch.isfinite(output).all()):
        raise HostError(
            f"The model returned NaN or infinite values in call {step.index + 1} of {step.count} "
            f"(noise level {step.sigma:.3g}). Set sampling.dtype to float32, or use another "
            "checkpoint."
        )
