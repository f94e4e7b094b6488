"""Golden 10 under an LDM UNet: whole samplings against the official method."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import pytest
import torch
from diffusers import DDPMScheduler
from torch import Tensor, nn

from fresco.flow.occlusion import BidirectionalFlow
from fresco.guidance.guide import BatchGuidance, FrescoGuide
from fresco.hosts.diffusers.sampling import (
    Sampling,
    capture_reference,
    draw_noise,
    make_start_latents,
)
from fresco.hosts.diffusers.schedulers import plan_timesteps
from fresco.hosts.ldm.unet import LdmUNet
from fresco.hosts.noise import compute_model_sigmas
from fresco.progress import Progress
from fresco.settings import PRESETS, GuidanceSettings
from tests.helpers.golden_vae import LossyCodec
from tests.helpers.ldm_unet import SD1, UNetModel, ldm_names
from tests.helpers.shared import golden
from tests.helpers.tolerances import GOLDEN_LINEAR, GOLDEN_OPTIMIZED_MEAN

FRAMES, SCALE, SEED = 4, 7.5, 101
ATTENTION = GuidanceSettings(**PRESETS["attention"])
ALL = GuidanceSettings(background_smoothing=True)


@pytest.fixture(scope="module")
def arrays() -> dict[str, Tensor]:
    loaded, _ = golden("10_e2e", "car_128")
    return {name: torch.from_numpy(array) for name, array in loaded.items()}


@pytest.fixture(scope="module")
def unet() -> UNetModel:
    """The golden UNet, from the names of diffusers."""
    model = UNetModel(SD1)
    weights, _ = golden("10_e2e", "unet_fp16_exact")
    state = {name: torch.from_numpy(array) for name, array in weights.items()}
    model.load_state_dict(ldm_names(state, set(model.state_dict())))
    return model.eval().requires_grad_(False)


@contextmanager
def own_forward(unet: nn.Module) -> Iterator[None]:
    """Within: the UNet's own forward, whatever was laid over it."""
    over = vars(unet).pop("forward", None)
    try:
        yield
    finally:
        vars(unet).update({"forward": over} if over else {})


def predictor(adapter: LdmUNet, arrays: dict[str, Tensor]) -> Callable[..., Tensor]:
    """The WebUI's denoiser: positive rows first, both in one evaluation."""
    negative, positive = arrays["prompt_embeds"].chunk(2)

    @torch.no_grad()
    def predict(x: Tensor, t: Tensor, *, controlled: bool = True) -> Tensor:
        with nullcontext() if controlled else own_forward(adapter.unet), adapter.calling(FRAMES):
            output = adapter.unet(
                x.repeat(2, 1, 1, 1), t.reshape(1).repeat(2 * FRAMES),
                context=torch.cat([positive, negative]),
            )
        towards, away = output.chunk(2)
        return away + SCALE * (towards - away)

    return predict


def sample(unet: UNetModel, arrays: dict[str, Tensor], settings: GuidanceSettings) -> Tensor:
    """Five DDPM steps from the second on."""
    scheduler = DDPMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False,
        steps_offset=1, timestep_spacing="leading",
    )
    levels = compute_model_sigmas(scheduler.alphas_cumprod)
    timesteps = plan_timesteps(scheduler, 5, 0.8)
    images = arrays["frames_rgb_u8"].permute(0, 3, 1, 2).float()
    flow = BidirectionalFlow(
        *(arrays[n].float() for n in ("fwd_flows", "bwd_flows", "fwd_occs", "bwd_occs"))
    )
    saliency = arrays["saliency"] if settings.background_smoothing else None
    batch = BatchGuidance.build(images, flow, saliency, settings, "cpu")
    guide = FrescoGuide(batch, settings, levels)
    adapter, codec = LdmUNet(unet), LossyCodec(arrays)
    predict = predictor(adapter, arrays)
    generator = torch.Generator().manual_seed(SEED)
    clean = codec.encode(images / 127.5 - 1)
    noise = draw_noise(clean, generator)
    sampling = Sampling(
        scheduler, timesteps, levels, predict, codec, generator
    )
    with Progress().stage("golden", len(timesteps)) as stage, adapter.installed(guide):
        guide.begin([levels[t] for t in timesteps.tolist()])
        capture_reference(predict, guide, clean, noise, timesteps[-1], levels[1])
        start = make_start_latents(scheduler, timesteps, clean, noise)
        return sampling.run(start, guide, None, stage)[0]


def mean(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().mean())


def test_attention_is_the_official_one(unet: UNetModel, arrays: dict[str, Tensor]) -> None:
    latents = sample(unet, arrays, ATTENTION)
    assert float((latents - arrays["final_attention_only"]).abs().max()) < GOLDEN_LINEAR


def test_all_parts_agree_in_the_mean(unet: UNetModel, arrays: dict[str, Tensor]) -> None:
    assert mean(sample(unet, arrays, ALL), arrays["final_all_on"]) < GOLDEN_OPTIMIZED_MEAN


def test_control_is_added_before_the_optimization(
    unet: UNetModel, arrays: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An extension walks the blocks itself and adds what its network gave."""
    def rows(name: str) -> Tensor:
        return 0.7 * arrays[f"control_residual_{name}"].roll(FRAMES, 0)  # stored negative first

    def forward(x: Tensor, timesteps: Tensor, context: Tensor) -> Tensor:
        emb, skips = unet.time_embed(unet._waves(timesteps)), []
        for number, block in enumerate(unet.input_blocks):
            x = block(x, emb, context)
            skips.append(x + rows(str(number)))
        x = unet.middle_block(x, emb, context) + rows("mid")
        for block in unet.output_blocks:
            x = block(torch.cat([x, skips.pop()], dim=1), emb, context)
        return unet.out(x)

    monkeypatch.setattr(unet, "forward", forward)
    latents = sample(unet, arrays, ALL)
    assert mean(latents, arrays["final_controlnet"]) < GOLDEN_OPTIMIZED_MEAN
    assert mean(latents, arrays["final_all_on"]) > GOLDEN_OPTIMIZED_MEAN
