"""Without guidance, latents are those of diffusers' own pipelines."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from demo.designed import design_unet
from fresco.hosts.diffusers.host import DiffusersHost
from fresco.progress import Progress
from tests.helpers.tiny_models import tiny_host, tiny_request
from tests.helpers.tolerances import PIPELINE

PROMPT, NEGATIVE = "a red car, oil painting", "blurry"


def find_latents(
    host: DiffusersHost, monkeypatch: pytest.MonkeyPatch, negative: str
) -> tuple[Tensor, Tensor]:
    """What one frame starts from and what it ends as."""
    ends: list[Tensor] = []
    decode = host._codec.decode
    monkeypatch.setattr(host._codec, "decode", lambda x: (ends.append(x), decode(x))[1])
    request = tiny_request(1, prompts=(PROMPT,), negative_prompts=(negative,))
    with Progress().stage("test") as stage:
        host.sample(request, None, stage)
    return host._encode(request.frames, host._settings.seed), ends[0]


def call_pipeline(
    host: DiffusersHost, kind: Any, start: Tensor, negative: str, **more: Any
) -> Tensor:
    """The same latents by a pipeline, which has the host's networks and scheduler."""
    parts, settings = host._parts, host._settings
    networks = {"unet": parts.unet, "vae": parts.vae, "text_encoder": parts.text_encoder,
                "tokenizer": parts.tokenizer, "scheduler": host._make_scheduler(settings.seed)}
    if parts.text_encoder_2 is not None:
        networks |= {"text_encoder_2": parts.text_encoder_2, "tokenizer_2": parts.tokenizer_2,
                     "add_watermarker": False}
    else:
        networks |= {"safety_checker": None, "feature_extractor": None,
                     "requires_safety_checker": False}
    pipeline = kind(**networks)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline(
        prompt=PROMPT, negative_prompt=negative or None, image=start, strength=settings.strength,
        num_inference_steps=settings.steps, guidance_scale=settings.guidance_scale,
        generator=torch.Generator().manual_seed(settings.seed), output_type="latent",
        **more,
    ).images


CASES: dict[str, dict[str, Any]] = {
    "ddpm": {"guidance_scale": 5.0},
    "euler-a": {"scheduler": "euler-a", "guidance_scale": 2.0},
    "lcm": {"scheduler": "lcm", "guidance_scale": 1.5},
    "tcd": {"scheduler": "tcd", "guidance_scale": 0.0},
    "lightning": {"scheduler": "euler", "timesteps": "trailing", "guidance_scale": 0.0},
    "hyper": {"scheduler": "ddim", "timesteps": "trailing", "guidance_scale": 0.0},
    "v": {"scheduler": "ddim", "timesteps": "trailing", "prediction": "v-ztsnr", "strength": 1.0},
}


@pytest.mark.parametrize(("case", "negative"), [
    ("ddpm", ""), *((case, NEGATIVE) for case in CASES),
])
def test_sdxl_is_sampled_as_its_pipeline_does(
    xl_model: Path, monkeypatch: pytest.MonkeyPatch, case: str, negative: str
) -> None:
    host = tiny_host(xl_model, **CASES[case])
    start, found = find_latents(host, monkeypatch, negative)
    eta = {"eta": 0.3} if case == "tcd" else {}  # the scheduler's own, where the pipeline says 0
    expected = call_pipeline(
        host, diffusers.StableDiffusionXLImg2ImgPipeline, start, negative, **eta
    )
    assert float((found - expected).abs().max()) < PIPELINE
    assert float((found - start).abs().max()) > 1000 * PIPELINE


@pytest.mark.parametrize("case", ["lcm", "lightning"])
def test_models_of_few_steps_are_sampled_as_their_pipeline_does(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    host = tiny_host(tiny_model, **CASES[case])
    start, found = find_latents(host, monkeypatch, NEGATIVE)
    expected = call_pipeline(host, diffusers.StableDiffusionImg2ImgPipeline, start, NEGATIVE)
    assert float((found - expected).abs().max()) < PIPELINE


def test_stable_diffusion_2_is_sampled_as_its_pipeline_does(
    sd2_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = tiny_host(sd2_file, prediction="v", guidance_scale=5.0)
    start, found = find_latents(host, monkeypatch, NEGATIVE)
    expected = call_pipeline(host, diffusers.StableDiffusionImg2ImgPipeline, start, NEGATIVE)
    assert float((found - expected).abs().max()) < PIPELINE


def test_a_distilled_model_takes_the_guidance_scale_as_an_input(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As LCMs that were not made by a LoRA."""
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    index = folder / "model_index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | {
        "_class_name": "LatentConsistencyModelPipeline"
    }))
    config = dict(UNet2DConditionModel.load_config(folder / "unet")) | {"time_cond_proj_dim": 32}
    torch.manual_seed(0)
    unet = UNet2DConditionModel.from_config(config)
    design_unet(unet)
    unet.save_pretrained(folder / "unet")
    found: list[Tensor] = []
    for scale in (3.0, 8.0):
        host = tiny_host(folder, scheduler="lcm", guidance_scale=scale)
        with monkeypatch.context() as patch:
            start, latents = find_latents(host, patch, NEGATIVE)
        expected = call_pipeline(host, diffusers.StableDiffusionImg2ImgPipeline, start, NEGATIVE)
        assert float((latents - expected).abs().max()) < PIPELINE
        found.append(latents)
    assert float((found[0] - found[1]).abs().max()) > 10 * PIPELINE
