"""The three networks of the demo model: Stable Diffusion 1.x's topology at small widths."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextModel

from demo import make_model
from demo.designed import SCALE, silence

SPREAD = 4.0
"""Standard deviation of scaled latents. Stable Diffusion's is 1; a network this small cannot invent
what noise hides, so its noise hides less."""
UNET_WIDTHS = (64, 128, 128, 128)
VAE_WIDTHS = (96, 96, 96, 96)
"""Three channels a group at the least, see `_give_partners`; all alike, since the encoder's stages
have no residual block that could change the width."""
VAE_BLOCKS = 0
"""Residual blocks of a stage of the encoder; one of the decoder has one more."""
TEXT_WIDTH = 64
"""That of `demo.make_model`."""
VOCABULARY = 49408
"""Tokens of CLIP."""
_GROUPS = 32
"""Of every group normalisation: LDM's networks know no other number."""
_PARTNER = 4.0
"""See `_give_partners`."""
_THROUGH_NORM = 2 * _PARTNER * (2 / 3) ** 0.5
"""Inverse of a signal's way through norm and SiLU beside its partners, for small signals."""


def _give_partners(conv: nn.Conv2d) -> None:
    """Two channels of every group start as opposite constants.

    Normalisation has 32 groups whatever the width. A group of one or two channels loses its mean
    over the image, which is brightness, and its scale, which is contrast; beside constants that
    rule the group's statistics a third channel keeps both.
    """
    size = conv.out_channels // _GROUPS
    assert conv.bias is not None
    for place, constant in ((size - 2, _PARTNER), (size - 1, -_PARTNER)):
        conv.weight[place::size] = 0.0
        conv.bias[place::size] = constant


def _pass_on(conv: nn.Conv2d, taps: slice, value: float) -> None:
    """Every channel starts as itself, averaged or repeated; signals get a little of the others."""
    size = conv.out_channels // _GROUPS
    signals = torch.arange(conv.out_channels) % size < size - 2
    conv.weight.mul_(0.3 * signals[:, None, None, None])
    for channel in range(conv.out_channels):
        conv.weight[channel, channel, taps, taps] += value
    if conv.bias is not None:
        conv.bias.zero_()


@torch.no_grad()
def make_autoencoder() -> AutoencoderKL:
    """KL autoencoder, factor 8, 4 channels; the decoder is the larger part."""
    stages = len(VAE_WIDTHS)
    sizes: dict[str, Any] = {
        "block_out_channels": VAE_WIDTHS, "down_block_types": ("DownEncoderBlock2D",) * stages,
        "up_block_types": ("UpDecoderBlock2D",) * stages, "layers_per_block": VAE_BLOCKS,
        "norm_num_groups": _GROUPS, "latent_channels": 4, "sample_size": 512,
        "scaling_factor": SCALE,
    }
    vae: Any = AutoencoderKL(**sizes)
    silence(vae)  # so that depth does not slow the first steps
    for conv in (vae.encoder.conv_in, vae.decoder.conv_in):
        conv.weight.mul_(3.0)
        _give_partners(conv)
    for block in vae.encoder.down_blocks[:-1]:
        _pass_on(block.downsamplers[0].conv, slice(0, 2), 0.25)
    for block in vae.decoder.up_blocks[:-1]:
        _pass_on(block.upsamplers[0].conv, slice(1, 2), 1.0)
    _pass_colours(vae)
    return vae


def _pass_colours(vae: Any) -> None:
    """The autoencoder starts as the mean colour of each latent's 8 x 8 pixels.

    Colours are what training finds last otherwise: brightness has most of the detail.
    """
    size = VAE_WIDTHS[0] // _GROUPS
    for colour in range(3):
        for first in (vae.encoder.conv_in, vae.decoder.conv_in):
            first.weight[size * colour] = 0.0
            first.weight[size * colour, colour, 1, 1] = 1.0
        for last in (vae.encoder.conv_out, vae.decoder.conv_out):
            last.weight[colour] *= 0.1
            last.weight[colour, size * colour, 1, 1] = _THROUGH_NORM
        for plain in (vae.quant_conv, vae.post_quant_conv):
            plain.weight[colour] = 0.0
            plain.weight[colour, colour] = 1.0


@torch.no_grad()
def make_unet() -> UNet2DConditionModel:
    """SD 1.5's UNet; it starts by taking what it is given for noise."""
    unet: Any = UNet2DConditionModel(
        sample_size=64, block_out_channels=UNET_WIDTHS, layers_per_block=2,
        cross_attention_dim=TEXT_WIDTH, attention_head_dim=8, norm_num_groups=_GROUPS,
    )
    silence(unet, ("conv2", "proj_out"))
    _pass_input(unet)
    return unet


def _pass_input(unet: Any) -> None:
    """Channel pairs (x, -x) from the input through the last skip connection to the output.

    After normalisation, silu(x) - silu(-x) = x: the output is the input over its own scale.
    """
    first, last = unet.conv_in, unet.up_blocks[-1].resnets[-1].conv_shortcut
    out = unet.conv_out
    behind = last.in_channels - UNET_WIDTHS[0]
    out.weight.zero_()
    out.bias.zero_()
    for channel in range(4):
        for row, sign in ((2 * channel, 1.0), (2 * channel + 1, -1.0)):
            first.weight[row], first.bias[row] = 0.0, 0.0
            first.weight[row, channel, 1, 1] = sign
            last.weight[row], last.bias[row] = 0.0, 0.0
            last.weight[row, behind + row] = 1.0
            out.weight[channel, row, 1, 1] = sign


@torch.no_grad()
def make_text_encoder() -> CLIPTextModel:
    """CLIP's text model, narrow, with an end norm whose mean is not zero.

    The WebUI divides by the mean of the encoding where a prompt carries weights.
    """
    model = make_model.make_text_encoder(VOCABULARY)
    for name, parameter in model.named_parameters():
        if name.endswith("final_layer_norm.bias"):
            parameter.fill_(0.1)
    return model
