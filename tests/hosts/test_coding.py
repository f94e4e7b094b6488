"""How many frames a VAE works on at once."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from fresco.hosts import coding
from fresco.hosts.coding import LATENT_SIDE, PIXELS, code_in_parts, split_frames
from fresco.hosts.diffusers.vae import LatentCodec
from tests.helpers.tiny_xl import make_vae

CODED_APART = 2e-5
"""Between frames coded together and one by one: the rounding of other loops."""


@pytest.mark.parametrize(("shape", "side", "lengths"), [
    ((5, 3, 512, 512), 1, [1] * 5),
    ((5, 3, 256, 256), 1, [4, 1]),
    ((3, 3, 1088, 1920), 1, [1] * 3),  # larger than all that fits, and still coded
    ((3, 4, 64, 64), LATENT_SIDE, [1] * 3),
    ((5, 4, 32, 32), LATENT_SIDE, [4, 1]),
])
def test_parts_have_the_pixels_of_one_frame_of_512(
    shape: tuple[int, ...], side: int, lengths: list[int]
) -> None:
    assert PIXELS == 512 * 512
    parts = split_frames(torch.empty(shape, device="meta"), side)
    assert [len(part) for part in parts] == lengths


def test_frames_keep_their_order() -> None:
    frames = torch.arange(6.0)[:, None, None, None].expand(6, 1, 256, 512)
    assert torch.equal(code_in_parts(lambda part: 2 * part, frames), 2 * frames)


def test_the_codec_of_diffusers_works_frame_by_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    vae: Any = make_vae(0.13025, shows=False)
    images = torch.rand(3, 3, 32, 32) * 2 - 1
    codec, seen = LatentCodec(vae), []

    def watch(layer: nn.Module, given: tuple[torch.Tensor, ...]) -> None:
        seen.append(len(given[0]))

    vae.encoder.register_forward_pre_hook(watch)
    vae.decoder.register_forward_pre_hook(watch)
    latents = codec.encode(images)
    whole = codec.decode(latents)
    assert seen == [3, 3]
    monkeypatch.setattr(coding, "PIXELS", 32 * 32)
    seen.clear()
    apart = codec.encode(images)
    for found, expected in ((apart, latents), (codec.decode(apart), whole)):
        torch.testing.assert_close(found, expected, atol=CODED_APART, rtol=0)
    assert seen == [1] * 6
