"""Golden 06: one DDPM step with and without smoothing of the denoised estimate."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import DDPMScheduler
from torch import Tensor

from fresco.flow.occlusion import BidirectionalFlow
from fresco.guidance.guide import BatchGuidance, FrescoGuide
from fresco.guidance.ports import Step
from fresco.hosts.diffusers.sampling import Sampling
from fresco.hosts.noise import compute_model_sigmas
from fresco.progress import Progress
from fresco.settings import PRESETS, GuidanceSettings
from tests.helpers.golden_vae import LossyCodec
from tests.helpers.shared import golden
from tests.helpers.tolerances import GOLDEN_STEP


@pytest.fixture(scope="module")
def step_arrays() -> dict[str, Tensor]:
    loaded, _ = golden("06_step", "step_car")
    return {name: torch.from_numpy(array) for name, array in loaded.items()}


@pytest.fixture(scope="module")
def guide_settings() -> GuidanceSettings:
    return GuidanceSettings(**(dict(PRESETS["off"]) | {"background_smoothing": True}))


class GivenNoise(DDPMScheduler):
    """DDPM that adds stored noise."""

    stored: Tensor

    def step(self, model_output: Tensor, timestep: Any, sample: Tensor, **rest: Any) -> Any:
        from diffusers.schedulers import scheduling_ddpm

        before = scheduling_ddpm.randn_tensor
        scheduling_ddpm.randn_tensor = lambda *a, **k: self.stored
        try:
            return super().step(model_output, timestep, sample, **rest)
        finally:
            scheduling_ddpm.randn_tensor = before


@pytest.mark.parametrize(("case", "index", "smoothed"), [
    (0, 5, False), (1, 15, False), (2, 16, True), (3, 17, True), (4, 19, False),
])
def test_step_is_the_official_one(
    step_arrays: dict[str, Tensor], guide_settings: GuidanceSettings, case: int, index: int,
    smoothed: bool,
) -> None:
    arrays = step_arrays
    scheduler = GivenNoise(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False,
        steps_offset=1, timestep_spacing="leading",
    )
    scheduler.set_timesteps(20)
    scheduler.stored = arrays[f"c{case}_noise"]
    flow = BidirectionalFlow(
        *(arrays[n].float() for n in ("fwd_flows", "bwd_flows", "fwd_occs", "bwd_occs"))
    )
    images = arrays["frames_rgb_u8"].permute(0, 3, 1, 2).float()
    batch = BatchGuidance.build(images, flow, arrays["saliency"], guide_settings, "cpu")
    levels = compute_model_sigmas(scheduler.alphas_cumprod)
    guide = FrescoGuide(batch, guide_settings, levels)
    guide.begin([levels[t] for t in scheduler.timesteps.tolist()])
    predict = lambda x, t: arrays[f"c{case}_model_output"]  # noqa: E731 - one stored answer
    sampling = Sampling(
        scheduler, scheduler.timesteps[index : index + 1], levels, predict, LossyCodec(arrays),
        torch.Generator(),
    )
    only = scheduler.timesteps[index]
    assert guide.smooths(Step(index, 20, levels[only])) is smoothed
    with Progress().stage("step", 1) as stage:
        latents, _ = sampling.run(arrays[f"c{case}_sample"], guide, None, stage)
    assert float((latents - arrays[f"c{case}_prev_sample"]).abs().max()) < GOLDEN_STEP
