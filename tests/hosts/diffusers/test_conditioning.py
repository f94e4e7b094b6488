"""Conditioning as UNets of Stable Diffusion 1.x and of SDXL's kind take it."""

from __future__ import annotations

import pytest
import torch
from diffusers import UNet2DConditionModel

from fresco.hosts.diffusers.conditioning import Conditioning
from fresco.hosts.diffusers.denoiser import Denoiser
from fresco.hosts.diffusers.unet import DiffusersUNet

FRAMES, SCALE = 3, 2.0


def random_conditioning(frames: int) -> Conditioning:
    return Conditioning(
        torch.randn(frames, 5, 32), torch.randn(frames, 16), torch.full((frames, 6), 64.0)
    )


@pytest.fixture(scope="module")
def sdxl_unet() -> UNet2DConditionModel:
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=8, block_out_channels=(32, 64), layers_per_block=1, cross_attention_dim=32,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), attention_head_dim=(2, 4),
        transformer_layers_per_block=(1, 2), use_linear_projection=True,
        addition_embed_type="text_time", addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + 16,
    )
    return unet.eval().requires_grad_(False)


def test_frames_are_joined_in_order() -> None:
    first, second = random_conditioning(2), random_conditioning(1)
    joined = Conditioning.concatenate([first, second])
    for name in ("tokens", "pooled", "ids"):
        expected = torch.cat([getattr(first, name), getattr(second, name)])
        assert torch.equal(getattr(joined, name), expected)
    plain = Conditioning.concatenate([Conditioning(first.tokens), Conditioning(second.tokens)])
    assert (plain.pooled, plain.ids) == (None, None)


def test_a_model_without_pooled_prompts_gets_the_tokens_only() -> None:
    tokens = torch.randn(2, 5, 32)
    arguments = Conditioning(tokens).arguments(torch.bfloat16)
    assert list(arguments) == ["encoder_hidden_states"]
    assert torch.equal(arguments["encoder_hidden_states"], tokens.bfloat16())


def test_a_unet_of_sdxls_kind_is_denoised_as_by_hand(sdxl_unet: UNet2DConditionModel) -> None:
    torch.manual_seed(1)
    x, t = torch.randn(FRAMES, 4, 8, 8), torch.tensor(500)
    positive, negative = random_conditioning(FRAMES), random_conditioning(FRAMES)
    denoiser = Denoiser(DiffusersUNet(sdxl_unet), positive, negative, scale=SCALE)
    found = denoiser(x, t)

    def evaluate(given: Conditioning) -> torch.Tensor:
        added = {"text_embeds": given.pooled, "time_ids": given.ids}
        return sdxl_unet(
            x, t, encoder_hidden_states=given.tokens, added_cond_kwargs=added
        ).sample

    away, towards = evaluate(negative), evaluate(positive)
    torch.testing.assert_close(found, away + SCALE * (towards - away), atol=1e-5, rtol=0)


def test_prompts_of_two_lengths_have_calls_of_their_own(
    sdxl_unet: UNet2DConditionModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They cannot stand in one call without a change to the shorter one."""
    torch.manual_seed(2)
    x, t = torch.randn(FRAMES, 4, 8, 8), torch.tensor(500)
    short, long = random_conditioning(FRAMES), random_conditioning(FRAMES)
    long = Conditioning(torch.cat([long.tokens, torch.randn(FRAMES, 5, 32)], 1), long.pooled,
                        long.ids)
    lengths: list[int] = []
    monkeypatch.setattr(
        sdxl_unet, "forward",
        lambda *args, forward=sdxl_unet.forward, **given: (
            lengths.append(given["encoder_hidden_states"].shape[1]), forward(*args, **given)
        )[1],
    )
    denoiser = Denoiser(DiffusersUNet(sdxl_unet), long, short, scale=SCALE)
    found = denoiser(x, t)
    assert lengths == [5, 10]
    alone = [Denoiser(DiffusersUNet(sdxl_unet), each, each, scale=1)(x, t)
             for each in (short, long)]
    assert torch.equal(found, alone[0] + SCALE * (alone[1] - alone[0]))
