"""The loop of the diffusers host on a device, by every scheduler and with smoothing at every call.

A scheduler's numbers stay on the CPU, so a step may read them; latents stay on the device.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest
import torch
from diffusers import DDPMScheduler
from torch import Tensor

from fresco.guidance.ports import BatchCarry, Projections, Rows, Site, Step
from fresco.hosts.diffusers.sampling import Sampling, make_start_latents
from fresco.hosts.diffusers.schedulers import SCHEDULERS, create_scheduler, plan_timesteps
from fresco.hosts.noise import compute_model_sigmas
from fresco.progress import Progress
from tests.helpers.strict_device import Log
from tests.helpers.tolerances import EXACT_BY_DTYPE

KARRAS = ("dpm2", "dpm++-2m", "unipc")
NAMES = [*SCHEDULERS, *(f"{name}-karras" for name in KARRAS)]
BASE = DDPMScheduler(
    beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False
)
FRAMES = 3
NOISY = ("ddpm", "dpm++-2m-sde", "dpm++-sde", "dpm2-a", "euler-a", "lcm", "tcd")
"""Those that add noise, which is drawn on the CPU and sent."""
UNIPC_WAITS = 18
"""Waits of UniPC's own in four calls: it solves its small systems on the device."""


class SmoothsAlways:
    """A guide that changes every estimate."""

    wants_reference, wants_smoothing = False, True

    def begin(self, sigmas: Sequence[float]) -> None: ...

    def step(self, step: Step) -> None: ...

    @contextmanager
    def capturing(self) -> Iterator[None]:
        yield

    def steers(self, step: Step) -> bool:
        return True

    def steer(self, latents: Tensor) -> Tensor:
        return torch.lerp(latents, latents.mean(0, keepdim=True), 0.1)

    def smooths(self, step: Step) -> bool:
        return True

    def smooth(self, images: Tensor) -> Tensor:
        return torch.lerp(images, images.mean(0, keepdim=True), 0.1)

    def decoder_entry(self, stage: int, h: Tensor, rows: Rows) -> Tensor:
        return h

    def decoder_block(
        self, stage: int, h: Tensor, skip: Tensor, rows: Rows
    ) -> tuple[Tensor, Tensor]:
        return h, skip

    def self_attention(
        self, site: Site, x: Tensor, project: Projections, rows: Rows
    ) -> Tensor | None:
        return None


class Doubling:
    """A codec of images twice as bright."""

    def encode(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return images / 2

    def decode(self, latents: Tensor) -> Tensor:
        return latents * 2


def predict(x: Tensor, t: Tensor) -> Tensor:
    """A model's output on its device, from the timestep there."""
    assert t.device == x.device
    return 0.3 * x + 1e-4 * t + 0.1 * x.roll(1, 0)


def sample(
    name: str, device: torch.device, carry: BatchCarry | None = None
) -> tuple[Tensor, BatchCarry, int]:
    """Latents at the end, the carry, and the model calls."""
    scheduler = create_scheduler(name, BASE.config)
    timesteps = plan_timesteps(scheduler, 6, 0.7)
    assert timesteps.device.type == "cpu"
    generator = torch.Generator().manual_seed(5)
    if hasattr(scheduler, "noise_sampler_seed"):
        scheduler.noise_sampler_seed = 5
    clean, noise = torch.randn(2, FRAMES, 4, 3, 3, generator=generator)
    start = make_start_latents(scheduler, timesteps, clean.to(device), noise.to(device))
    sampling = Sampling(
        scheduler, timesteps, compute_model_sigmas(BASE.alphas_cumprod), predict, Doubling(),
        generator,
    )
    with Progress().stage("test", len(timesteps)) as stage:
        latents, record = sampling.run(start, SmoothsAlways(), carry, stage)
    return latents, record, len(timesteps)


# torchsde warns of times that differ by rounding alone.
@pytest.mark.filterwarnings("ignore:Should have ta")
@pytest.mark.parametrize("name", NAMES)
def test_it_gives_the_cpus_latents_and_waits_little(
    device: torch.device, log: Log, name: str
) -> None:
    expected, first, calls = sample(name, torch.device("cpu"))
    assert log.waits == []
    found, other, _ = sample(name, device)
    waits = len(log.waits)
    assert found.device == device
    close = EXACT_BY_DTYPE[torch.float32] * max(1.0, float(expected.abs().max()))
    assert (found.cpu() - expected).abs().max() < close
    for one, same in zip(first.latents, other.latents, strict=True):
        assert same.device.type == "cpu"
        assert (one - same).abs().max() < close
    # Once: two inputs, the start from the device and back (3), timesteps, the record.
    # A call: whether its result is finite, and noise.
    plain = name.removesuffix("-karras")
    own = UNIPC_WAITS if plain == "unipc" else 0
    assert waits <= 7 + (2 if plain in NOISY else 1) * calls + own, log


@pytest.mark.parametrize("name", ["ddpm", "heun"])
def test_anchors_are_sent_at_once(device: torch.device, log: Log, name: str) -> None:
    _, carry, _ = sample(name, torch.device("cpu"))
    expected, first, _ = sample(name, torch.device("cpu"), carry)
    sample(name, device)
    without = len(log.waits)
    log.clear()
    found, other, _ = sample(name, device, carry)
    assert len(log.waits) == without + 1
    assert (found.cpu() - expected).abs().max() < EXACT_BY_DTYPE[torch.float32]
    assert all(torch.equal(a[0], b[0]) for a, b in zip(other.latents, carry.latents, strict=True))
    assert len(first.latents) == len(other.latents)
