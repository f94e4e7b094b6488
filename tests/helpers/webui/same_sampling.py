"""The diffusers host's sampling from what A1111 begins with: same noise, levels and encoding.

Both hosts draw noise and place steps in their own way, as their users know it. Here the loop of the
diffusers host is given A1111's, so that what is left is the model, the sampler and the guidance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fresco.flow.estimator import create_estimator
from fresco.guidance.ports import BatchCarry, BatchRequest
from fresco.hosts.diffusers.sampling import Sampling, capture_reference, make_start_latents
from fresco.hosts.diffusers.schedulers import create_scheduler
from fresco.hosts.diffusers.vae import to_tensor
from fresco.hosts.noise import choose_reference, interpolate_sigmas
from fresco.options import from_dict
from fresco.planning.keyframes import Batch, plan_batches
from fresco.progress import Progress
from fresco.run.guide import GuideMaker

Pictures = NDArray[np.uint8]
_REFERENCE_SEED = 1 << 20
"""Added to the seed for the noise of the reference pass in a WebUI."""


@dataclass(frozen=True, slots=True)
class SamplerPair:
    """One sampler by its names in both hosts."""

    webui: str
    scheduler: str
    schedule: str = "Automatic"
    """Of A1111."""


SAMPLERS = (
    SamplerPair("Euler", "euler"), SamplerPair("Euler a", "euler-a"), SamplerPair("Heun", "heun"),
    SamplerPair("LMS", "lms"), SamplerPair("DPM++ 2M", "dpm++-2m", "Karras"),
    SamplerPair("DDIM", "ddim"),
)


@dataclass(frozen=True, slots=True)
class _Plan:
    """Where one sampling begins and goes."""

    scheduler: Any
    timesteps: Tensor
    """Of the calls."""
    planned: tuple[float, ...]
    """Levels that the guide is told; DDIM plans one that it does not call."""
    start_level: float | None
    """Where the start lies, if not at the first call."""


def _plan(pair: SamplerPair, host: Any, payload: Mapping[str, Any]) -> _Plan:
    steps, levels = payload["steps"], host.model_sigmas
    calls = int(payload["denoising_strength"] * steps)
    scheduler = create_scheduler(pair.scheduler, host._parts.schedule)
    scheduler.set_timesteps(steps)
    if pair.webui == "DDIM":
        marks = torch.arange(0, 1000, 1000 // steps)[: steps + 1] + 1
        down = marks[:calls].flip(0)
        (start,) = interpolate_sigmas(marks[calls:calls + 1], levels)
        return _Plan(scheduler, down[:-1], interpolate_sigmas(down, levels), start)
    if pair.schedule == "Karras":
        low, high = (level ** (1 / 7) for level in (levels[0], levels[-1]))
        every = (high + torch.linspace(0, 1, steps, dtype=torch.float64) * (low - high)) ** 7
    else:
        places = torch.linspace(999, 0, steps, dtype=torch.float64)
        every = torch.tensor(interpolate_sigmas(places, levels), dtype=torch.float64)
    sigmas = every[steps - calls - 1:]
    logs = np.log(np.asarray(levels))
    places = torch.from_numpy(np.interp(np.log(sigmas.numpy()), logs, np.arange(len(levels))))
    scheduler.set_timesteps(len(sigmas))
    if pair.scheduler == "heun":
        again = torch.cat([places[:1], places[1:].repeat_interleave(2)])
        middle = torch.cat([sigmas[:1], sigmas[1:].repeat_interleave(2)])
    else:
        again, middle = places, sigmas
    scheduler.sigmas = torch.cat([middle, middle.new_zeros(1)]).float()
    scheduler.timesteps = again.float()
    scheduler.set_begin_index(0)
    return _Plan(scheduler, scheduler.timesteps, tuple(sigmas.tolist()), None)


def _encode(host: Any, frames: Pictures, seed: int) -> Tensor:
    """Frame by frame with one generator, as A1111 does."""
    vae, generator = host._parts.vae, torch.Generator().manual_seed(seed)
    found = []
    for image in to_tensor(frames, torch.device("cpu")):
        posterior = vae.encode(image[None]).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=generator)
        found.append(posterior.mean + posterior.std * noise)
    return torch.cat(found) * vae.config.scaling_factor


def _sample(
    host: Any, pair: SamplerPair, payload: Mapping[str, Any], guide: Any, request: BatchRequest,
) -> tuple[Pictures, BatchCarry]:
    plan, seed = _plan(pair, host, payload), payload["seed"]
    clean = _encode(host, request.frames, seed)
    generators = [torch.Generator().manual_seed(seed) for _ in clean]
    noise = torch.stack([torch.randn(clean.shape[1:], generator=each) for each in generators])
    denoiser = host._make_denoiser(request)
    with host.unet.installed(guide), Progress().stage("test", len(plan.timesteps)) as stage:
        guide.begin(plan.planned)
        places = np.interp(plan.planned[-1], host.model_sigmas, np.arange(len(host.model_sigmas)))
        last = torch.tensor(choose_reference(float(places), len(host.model_sigmas)))
        other = torch.randn(
            clean.shape, generator=torch.Generator().manual_seed(seed + _REFERENCE_SEED)
        )
        (level,) = interpolate_sigmas(last[None], host.model_sigmas)
        capture_reference(denoiser, guide, clean, other, last, level)
        if plan.start_level is None:
            latents = make_start_latents(plan.scheduler, plan.timesteps, clean, noise)
        else:
            a = (1 + plan.start_level ** 2) ** -0.5
            latents = a * clean + plan.start_level * a * noise
        drawing: Any = generators  # diffusers draws by one for each frame
        latents, carry = Sampling(
            plan.scheduler, plan.timesteps, host.model_sigmas, denoiser, host._codec, drawing,
            denoiser.begin_call,
        ).run(latents, guide, request.carry, stage)
    images = (host._codec.decode(latents) / 2 + 0.5).clamp(0, 1) * 255
    return images.byte().permute(0, 2, 3, 1).numpy(), carry  # cut off, as A1111 does


@torch.no_grad()
def translate_as_a1111(
    host: Any, frames: Pictures, pair: SamplerPair, options: Mapping[str, Any],
    payload: Mapping[str, Any],
) -> Pictures:
    """Frames [N, H, W, 3] translated by the diffusers host, as img2img of A1111 begins.

    Args:
        options: FRESCO's, flat, as the script takes them.
        payload: of the request of img2img.
    """
    guidance = dict(options)
    size, flow = guidance.pop("batch_size"), {"estimator": guidance.pop("estimator")}
    settings = from_dict({"flow": flow, "guidance": guidance})
    maker = GuideMaker(settings, create_estimator(settings.flow, "cpu"), "cpu", host.model_sigmas)
    made: dict[int, Pictures] = {}
    carry: BatchCarry | None = None
    batches: Sequence[Batch] = plan_batches(tuple(range(len(frames))), size)
    for batch in batches:
        count = len(batch.all)
        finished = np.stack([made[n] for n in batch.anchors]) if batch.anchors else None
        prompts = (payload["prompt"],) * count
        request = BatchRequest(
            frames[list(batch.all)], prompts, (payload["negative_prompt"],) * count, carry
        )
        guide = maker.guide(request.frames, host.unet, finished=finished, prompts=prompts)
        images, carry = _sample(host, pair, payload, guide, request)
        made |= {n: image for n, image in zip(batch.all, images, strict=True) if n not in made}
    return np.stack([made[number] for number in range(len(frames))])
