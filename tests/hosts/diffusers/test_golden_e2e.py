"""Golden 10: whole samplings of a small UNet against the official method."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler, UNet2DConditionModel
from torch import Tensor

from fresco.control import ControlUnit
from fresco.flow.occlusion import BidirectionalFlow
from fresco.guidance.guide import BatchGuidance, FrescoGuide
from fresco.guidance.ports import BatchCarry, SamplingGuide
from fresco.hosts.diffusers.conditioning import Conditioning
from fresco.hosts.diffusers.denoiser import Control, Denoiser
from fresco.hosts.diffusers.sampling import (
    Sampling,
    capture_reference,
    draw_noise,
    make_start_latents,
)
from fresco.hosts.diffusers.schedulers import plan_timesteps
from fresco.hosts.diffusers.unet import DiffusersUNet
from fresco.hosts.noise import compute_model_sigmas, interpolate_sigmas
from fresco.progress import Progress
from fresco.settings import PRESETS, GuidanceSettings
from tests.helpers.golden_vae import GivenCodec, LossyCodec
from tests.helpers.shared import golden, golden_cases, kept
from tests.helpers.tolerances import (
    CAPTURED_INPUT,
    GOLDEN_LINEAR,
    GOLDEN_OPTIMIZED_MEAN,
    GOLDEN_TWO_ITERATIONS_MEAN,
)

SEED = 101

OFF = GuidanceSettings(**PRESETS["off"])
ALL = GuidanceSettings(background_smoothing=True)
CASES = {
    "all_off": OFF,
    "attention_only": GuidanceSettings(**PRESETS["attention"]),
    "optimization_only": dataclasses.replace(
        OFF, spatial_optimization=True, temporal_optimization=True
    ),
    "attention_optimization": GuidanceSettings(**PRESETS["paper"]),
    "all_on": ALL,
    "all_on_iters2": dataclasses.replace(ALL, optimization_iterations=2),
}


class GivenControl:
    """Residuals of a ControlNet as stored."""

    dtype = torch.float32

    def __init__(self, arrays: dict[str, Tensor]) -> None:
        self._down = [arrays[f"control_residual_{k}"] for k in range(12)]
        self._middle = arrays["control_residual_mid"]

    def __call__(self, *args: Any, conditioning_scale: float, **rest: Any) -> Any:
        down = [residual * conditioning_scale for residual in self._down]
        return down, self._middle * conditioning_scale


@pytest.fixture(scope="module")
def arrays() -> dict[str, Tensor]:
    loaded, _ = golden("10_e2e", "car_128")
    return {name: torch.from_numpy(array) for name, array in loaded.items()}


@pytest.fixture(scope="module")
def unet() -> UNet2DConditionModel:
    weights, _ = golden("10_e2e", "unet_fp16_exact")
    state = {name: torch.from_numpy(array) for name, array in weights.items()}
    model = UNet2DConditionModel(
        block_out_channels=(32, 64, 128, 128), layers_per_block=2, cross_attention_dim=64,
        attention_head_dim=8,
    )
    model.load_state_dict(state)
    return model.eval().requires_grad_(False)


def batch_of(arrays: dict[str, Tensor], prefix: str, settings: GuidanceSettings) -> BatchGuidance:
    names = ("fwd_flows", "bwd_flows", "fwd_occs", "bwd_occs")
    flow = BidirectionalFlow(*(arrays[prefix + name].float() for name in names))
    images = arrays[f"{prefix}frames_rgb_u8"].permute(0, 3, 1, 2).float()
    saliency = arrays["saliency"] if settings.background_smoothing else None
    return BatchGuidance.build(images, flow, saliency, settings, "cpu")


def run(
    unet: UNet2DConditionModel, arrays: dict[str, Tensor], settings: GuidanceSettings | None, *,
    prefix: str = "", carry: BatchCarry | None = None, control: bool = False,
) -> tuple[Tensor, BatchCarry]:
    """Five DDPM steps from the second on, guidance 7.5; settings None: no guide at all."""
    scheduler = DDPMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False,
        steps_offset=1, timestep_spacing="leading",
    )
    levels = compute_model_sigmas(scheduler.alphas_cumprod)
    timesteps = plan_timesteps(scheduler, 5, 0.8)
    assert timesteps.tolist() == arrays["timesteps"][1:].tolist()
    adapter, codec = DiffusersUNet(unet), LossyCodec(arrays)
    negative, positive = arrays["prompt_embeds"].chunk(2)
    unit = ControlUnit("given", "canny", 0.7)
    given = [Control(GivenControl(arrays), torch.zeros(4, 3, 128, 128), unit)] if control else []
    denoiser = Denoiser(
        adapter, Conditioning(positive), Conditioning(negative), scale=7.5, controls=given
    )
    clean = codec.encode(arrays[f"{prefix}frames_rgb_u8"].permute(0, 3, 1, 2) / 127.5 - 1)
    generator = torch.Generator().manual_seed(SEED)
    noise = draw_noise(clean, generator)
    sampling = Sampling(
        scheduler, timesteps, levels, denoiser, codec, generator
    )
    latents = make_start_latents(scheduler, timesteps, clean, noise)
    with Progress().stage("golden", len(timesteps)) as stage:
        if settings is None:
            return sampling.run(latents, None, carry, stage)
        guide: SamplingGuide = FrescoGuide(batch_of(arrays, prefix, settings), settings, levels)
        with adapter.installed(guide):
            guide.begin(interpolate_sigmas(timesteps, levels))
            capture_reference(denoiser, guide, clean, noise, timesteps[-1], levels[1])
            return sampling.run(latents, guide, carry, stage)


def mean(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().mean())


@pytest.mark.parametrize("case", ["all_off", "attention_only"])
def test_without_optimization_latents_are_equal(
    unet: UNet2DConditionModel, arrays: dict[str, Tensor], case: str
) -> None:
    latents, _ = run(unet, arrays, CASES[case])
    assert float((latents - arrays[f"final_{case}"]).abs().max()) < GOLDEN_LINEAR


def test_two_iterations_agree_in_the_mean(
    unet: UNet2DConditionModel, arrays: dict[str, Tensor]
) -> None:
    latents, _ = run(unet, arrays, CASES["all_on_iters2"])
    assert mean(latents, arrays["final_all_on_iters2"]) < GOLDEN_TWO_ITERATIONS_MEAN


@pytest.mark.parametrize("case", ["optimization_only", "attention_optimization"])
def test_parts_agree_in_the_mean(
    unet: UNet2DConditionModel, arrays: dict[str, Tensor], case: str
) -> None:
    latents, _ = run(unet, arrays, CASES[case])
    assert mean(latents, arrays[f"final_{case}"]) < GOLDEN_OPTIMIZED_MEAN
    assert mean(latents, arrays["final_all_off"]) > 5 * GOLDEN_OPTIMIZED_MEAN


def test_all_parts_then_a_second_batch_agree_in_the_mean(
    unet: UNet2DConditionModel, arrays: dict[str, Tensor]
) -> None:
    latents, carry = run(unet, arrays, ALL)
    assert mean(latents, arrays["final_all_on"]) < GOLDEN_OPTIMIZED_MEAN
    for call, pair in enumerate(carry.latents):
        assert mean(pair, arrays[f"record_latents_{call}"]) < GOLDEN_OPTIMIZED_MEAN
    stored = BatchCarry(tuple(arrays[f"record_latents_{call}"] for call in range(4)))
    latents, carry = run(unet, arrays, ALL, prefix="batch2_", carry=stored)
    assert mean(latents, arrays["batch2_final"]) < GOLDEN_OPTIMIZED_MEAN
    for call, pair in enumerate(carry.latents):
        assert torch.equal(pair[0], stored.latents[call][0])
        assert mean(pair, arrays[f"batch2_record_latents_{call}"]) < GOLDEN_OPTIMIZED_MEAN


def test_control_residuals_come_before_the_optimization(
    unet: UNet2DConditionModel, arrays: dict[str, Tensor]
) -> None:
    latents, _ = run(unet, arrays, ALL, control=True)
    assert mean(latents, arrays["final_controlnet"]) < GOLDEN_OPTIMIZED_MEAN
    assert mean(arrays["final_all_on"], arrays["final_controlnet"]) > GOLDEN_OPTIMIZED_MEAN


def test_all_off_is_the_host_alone_bit_by_bit(
    unet: UNet2DConditionModel, arrays: dict[str, Tensor]
) -> None:
    guided, alone = run(unet, arrays, OFF), run(unet, arrays, None)
    assert torch.equal(guided[0], alone[0])
    assert all(torch.equal(*pair) for pair in zip(*(r[1].latents for r in (guided, alone)),
                                                  strict=True))


@pytest.mark.parametrize("case", golden_cases("10_e2e", "car_128"))
def test_reference_pass_sees_what_the_official_one_saw(
    unet: UNet2DConditionModel, arrays: dict[str, Tensor], case: str
) -> None:
    """One draw of the seed serves the reference pass frame by frame and the start by its first."""
    stored, note = golden("10_e2e", case)
    codec = GivenCodec(arrays)
    clean = codec.encode(arrays["frames_rgb_u8"].permute(0, 3, 1, 2) / 127.5 - 1)
    noise = draw_noise(clean, torch.Generator().manual_seed(SEED))
    assert torch.equal(noise, arrays["initial_noise"])
    negative, positive = arrays["prompt_embeds"].chunk(2)
    adapter = DiffusersUNet(unet)
    seen: dict[int, Tensor] = {}

    def keep(site: Any, x: Tensor, project: Any, rows: Any) -> None:
        seen[site.index] = x.clone()

    hooks: Any = SimpleNamespace(
        decoder_entry=lambda stage, h, rows: h, self_attention=keep,
        decoder_block=lambda stage, h, skip, rows: (h, skip),
    )
    a = arrays["alphas_cumprod"][1]
    with adapter.installed(hooks):
        x = a.sqrt() * clean + (1 - a).sqrt() * noise
        denoiser = Denoiser(adapter, Conditioning(positive), Conditioning(negative), scale=7.5)
        denoiser(x, torch.tensor(1))
    for index in (0, 5):
        name = f"stored_attn_{index}"
        found = kept(note, name, seen[index].numpy())
        assert np.abs(found - stored[name]).max() < CAPTURED_INPUT
