"""The script's sampling and that of the diffusers host are one: same start, same latents."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from torch import Tensor

from fresco.hosts.diffusers.conditioning import Conditioning
from fresco.hosts.diffusers.denoiser import Denoiser
from fresco.hosts.diffusers.sampling import Sampling, capture_reference, place_reference
from fresco.hosts.diffusers.unet import DiffusersUNet
from fresco.hosts.noise import compute_model_sigmas, interpolate_sigmas
from fresco.options import from_dict
from fresco.progress import Progress
from fresco.run.guide import GuideMaker
from tests.helpers.ldm_unet import SD1, diffusers_twin, ldm_twin
from tests.helpers.webui.client import REQUEST
from tests.helpers.webui.double import DoubleHost
from tests.helpers.webui.requests import NONE, frames
from tests.helpers.webui.watcher import Watcher

COUNT, SEED, SCALE = 4, 7, 5.0
STEPS, STRENGTH = 8, 0.63
"""Of eight steps DDIM plans the last five, and the WebUI calls the model for all but the last."""
ROUNDING = 1e-5
"""Mean difference after four steps of one formula in two orders of sums; 1e-6 was seen."""
CONSENSUS = NONE | {"consensus": True}
"""Latents of estimates are changed, and images of some."""
ATTENTION = NONE | dict.fromkeys(
    ("spatial_attention", "cross_frame_attention", "temporal_attention"), True
)


def by_diffusers(double: DoubleHost, adapter: DiffusersUNet, options: dict[str, Any], x: Tensor,
                 clean: Tensor) -> Tensor:
    """The end of a sampling from the latents of its first model call."""
    from fresco.hosts.webui.open import open_model

    scheduler = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1,
        clip_sample=False, set_alpha_to_one=False,
    )
    scheduler.set_timesteps(STEPS)
    timesteps = scheduler.timesteps[-int(STEPS * STRENGTH):]
    levels = compute_model_sigmas(scheduler.alphas_cumprod)
    sigmas = interpolate_sigmas(timesteps, levels)
    text = [
        Conditioning(double.model.embed(REQUEST[name])[None].repeat(COUNT, 1, 1))
        for name in ("prompt", "negative_prompt")
    ]
    denoiser = Denoiser(adapter, *text, scale=SCALE)
    guidance = {name: value for name, value in options.items() if name != "estimator"}
    settings = from_dict({"flow": {"estimator": "dis"}, "guidance": guidance})
    pictures = np.stack([np.asarray(frame) for frame in frames(COUNT)])
    guide = GuideMaker.create(settings, "cpu", levels).guide(pictures, adapter)
    own = torch.Generator().manual_seed(SEED + (1 << 20))
    noise = torch.randn(clean.shape, generator=own)
    with torch.no_grad(), adapter.installed(guide), Progress().stage("test", 4) as stage:
        guide.begin(sigmas)
        capture_reference(denoiser, guide, clean, noise, timesteps[-1], sigmas[-1])
        codec: Any = open_model(double.model)
        sampling = Sampling(
            scheduler, timesteps[:-1], levels, denoiser, codec, torch.Generator()
        )
        return sampling.run(x, guide, None, stage)[0]


@pytest.mark.parametrize(
    "options", [NONE, ATTENTION, CONSENSUS], ids=["off", "attention", "consensus"]
)
def test_sampling_ends_in_the_same_latents(
    double: DoubleHost, watcher: Watcher, options: dict[str, Any]
) -> None:
    unet = diffusers_twin(SD1)
    before = {name: value.clone() for name, value in double.unet.state_dict().items()}
    double.unet.load_state_dict(ldm_twin(unet, SD1).state_dict())
    try:
        double.img2img(
            frames(COUNT), options, sampler_name="DDIM", steps=STEPS, seed=SEED,
            denoising_strength=STRENGTH, cfg_scale=SCALE,
        )
    finally:
        double.unet.load_state_dict(before)
    seen = watcher.iterations[0]
    assert len(seen.inputs) == 4
    assert seen.samples is not None
    start, clean = seen.inputs[0], double.made[0].init_latent
    ours = by_diffusers(double, DiffusersUNet(unet), options, start, clean)
    assert float((ours - seen.samples).abs().mean()) < ROUNDING
    other = ATTENTION if options is NONE else NONE
    theirs = by_diffusers(double, DiffusersUNet(unet), other, start, clean)
    assert float((theirs - seen.samples).abs().mean()) > 50 * ROUNDING


@pytest.mark.parametrize("timesteps", [False, True])
def test_the_reference_of_few_calls_is_the_published_one(
    double: DoubleHost, timesteps: bool
) -> None:
    """As `place_reference` of the diffusers host: the last call of a few is far from clean."""
    from modules.sd_samplers_timesteps import CompVisSampler

    from fresco.hosts.webui.sampling import BatchSampling

    levels = range(1000) if timesteps else compute_model_sigmas(double.model.alphas_cumprod)
    sampler = CompVisSampler.__new__(CompVisSampler) if timesteps else SimpleNamespace()
    model: Any = SimpleNamespace(sigmas=levels)
    nothing: Any = None
    work = BatchSampling(model, sampler, nothing, nothing, SEED, None)
    for last, wanted in ((1, 1), (51, 51), (60, 60), (61, 1), (250, 1)):
        assert work._place_reference(levels[last]) == levels[wanted]
        given = torch.tensor(last)
        assert int(place_reference(given, 1000)) == wanted
