"""The three networks of the demo model: Stable Diffusion 1.x's topology at small widths."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextModel

from demo import make_model
from demo.designed import SCALE, silence

TEXT_WIDTH = 64
"""That of `demo.make_model`."""
VOCABULARY = 49408
"""Tokens of CLIP."""
_GROUPS = 32
"""Of every group normalisation: LDM's networks know no other number."""
_PARTNER = 4.0
"""See `_give_partners`."""


@dataclass(frozen=True, slots=True)
class Widths:
    """Sizes of a network with four stages, from the largest image to the smallest."""

    channels: tuple[int, int, int, int]
    """Of each stage: whole multiples of the first, which LDM's configuration asks for."""
    blocks: int
    """Residual blocks of a stage of the encoder; a stage of the decoder has one more."""

    def __post_init__(self) -> None:
        if any(width % self.channels[0] or width % _GROUPS for width in self.channels):
            raise ValueError(
                f"Widths {self.channels} are not multiples of {_GROUPS} and of the first one."
            )

    @property
    def multiples(self) -> list[int]:
        """Of the first width, as LDM's configuration has them."""
        return [width // self.channels[0] for width in self.channels]


AUTOENCODER = Widths((96, 96, 96, 192), 1)
"""96 channels are three a group, the least that keeps brightness, see `_give_partners`."""
UNET = Widths((64, 64, 128, 64), 2)
"""Two blocks, since every loader of Stable Diffusion 1.x counts on two."""
SPREAD = 4.0
"""Standard deviation of scaled latents. Stable Diffusion's is 1; a network this small cannot invent
what noise hides, so its noise hides less."""


def _size(channels: int) -> int:
    """Channels of a group."""
    return channels // _GROUPS


def _is_signal(channels: int) -> torch.Tensor:
    """Which channels are not constants; [channels]."""
    size = _size(channels)
    return torch.arange(channels) % size < max(1, size - 2)


def _give_partners(conv: nn.Conv2d) -> None:
    """Two channels of every group start as opposite constants.

    Normalisation has 32 groups whatever the width. A group of one or two channels loses its mean
    over the image, which is brightness, and its scale, which is contrast; beside constants that
    rule the group's statistics a third channel keeps both.
    """
    size = _size(conv.out_channels)
    assert conv.bias is not None
    if size < 3:
        return
    for place, constant in ((size - 2, _PARTNER), (size - 1, -_PARTNER)):
        conv.weight[place::size] = 0.0
        conv.bias[place::size] = constant


def _pass_on(conv: nn.Conv2d, taps: slice, value: float) -> None:
    """Every channel starts as itself, averaged or repeated; signals get a little of the others."""
    conv.weight.mul_(0.3 * _is_signal(conv.out_channels)[:, None, None, None])
    for channel in range(conv.out_channels):
        conv.weight[channel, channel, taps, taps] += value
    if conv.bias is not None:
        conv.bias.zero_()


def _widen(conv: nn.Conv2d) -> None:
    """A 1 x 1 convolution between widths: signals keep their group and place, as far as there are
    any on the other side."""
    before, after = _size(conv.in_channels), _size(conv.out_channels)
    assert conv.bias is not None
    conv.weight.mul_(0.3)
    conv.bias.zero_()
    for group in range(_GROUPS):
        for place in range(min(max(1, before - 2), max(1, after - 2))):
            conv.weight[group * after + place] = 0.0
            conv.weight[group * after + place, group * before + place] = 1.0
    _give_partners(conv)


@torch.no_grad()
def make_autoencoder(widths: Widths = AUTOENCODER) -> AutoencoderKL:
    """KL autoencoder, factor 8, 4 channels; it starts as the mean colours of 8 x 8 pixels."""
    sizes: dict[str, Any] = {
        "block_out_channels": widths.channels, "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4, "layers_per_block": widths.blocks,
        "norm_num_groups": _GROUPS, "latent_channels": 4, "sample_size": 512,
        "scaling_factor": SCALE,
    }
    vae: Any = AutoencoderKL(**sizes)
    silence(vae)  # so that depth does not slow the first steps
    for conv in (vae.encoder.conv_in, vae.decoder.conv_in):
        conv.weight.mul_(3.0)
        _give_partners(conv)
    for name, module in vae.named_modules():
        if name.endswith("conv_shortcut"):
            _widen(module)
    for block in vae.encoder.down_blocks[:-1]:
        _pass_on(block.downsamplers[0].conv, slice(0, 2), 0.25)
    for block in vae.decoder.up_blocks[:-1]:
        _pass_on(block.upsamplers[0].conv, slice(1, 2), 1.0)
    _pass_colours(vae, widths)
    return vae


def _undo_norm(channels: int) -> float:
    """Inverse of a small signal's way through norm and SiLU beside its partners."""
    return 2 * _PARTNER * (2 / _size(channels)) ** 0.5


def _pass_colours(vae: Any, widths: Widths) -> None:
    """The autoencoder starts as the mean colour of each latent's 8 x 8 pixels.

    Colours are what training finds last otherwise: brightness has most of the detail.
    """
    wide, narrow = widths.channels[-1], widths.channels[0]
    ends = ((vae.encoder.conv_in, narrow, vae.encoder.conv_out, wide),
            (vae.decoder.conv_in, wide, vae.decoder.conv_out, narrow))
    for colour in range(3):
        for first, at_first, last, at_last in ends:
            first.weight[_size(at_first) * colour] = 0.0
            first.weight[_size(at_first) * colour, colour, 1, 1] = 1.0
            last.weight[colour] *= 0.1
            last.weight[colour, _size(at_last) * colour, 1, 1] = _undo_norm(at_last)
        for plain in (vae.quant_conv, vae.post_quant_conv):
            plain.weight[colour] = 0.0
            plain.weight[colour, colour] = 1.0


@torch.no_grad()
def make_unet(widths: Widths = UNET) -> UNet2DConditionModel:
    """SD 1.5's UNet; it starts by taking what it is given for noise."""
    unet: Any = UNet2DConditionModel(
        sample_size=64, block_out_channels=widths.channels, layers_per_block=widths.blocks,
        cross_attention_dim=TEXT_WIDTH, attention_head_dim=8, norm_num_groups=_GROUPS,
    )
    silence(unet, ("conv2", "proj_out"))
    _pass_input(unet, widths)
    return unet


def _pass_input(unet: Any, widths: Widths) -> None:
    """Channel pairs (x, -x) from the input through the last skip connection to the output.

    After normalisation, silu(x) - silu(-x) = x: the output is the input over its own scale.
    """
    first, last = unet.conv_in, unet.up_blocks[-1].resnets[-1].conv_shortcut
    out = unet.conv_out
    behind = last.in_channels - widths.channels[0]
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
