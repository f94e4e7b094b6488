"""The three networks of the demo model: Stable Diffusion 1.x's topology at small widths."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextModel

from demo import make_model
from demo.designed import SCALE, silence

TEXT_WIDTH = 64
"""That of `demo.make_model`."""
VOCABULARY = 49408
"""Tokens of CLIP."""
_GROUPS = 32
"""Of every group normalisation: LDM's networks know no other number."""
_CONSTANT = 2.0
"""See `_Layout`."""
_COLOURS = 3
"""Groups that start as a colour each: nothing else is mixed into them at first."""


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
"""96 channels are three a group, the least that keeps brightness, see `_Layout`."""
UNET = Widths((64, 64, 128, 64), 2)
"""Two blocks, since every loader of Stable Diffusion 1.x counts on two."""
SPREAD = 4.0
"""Standard deviation of scaled latents. Stable Diffusion's is 1; a network this small cannot invent
what noise hides, so its noise hides less."""


class _Layout:
    """What the channels of every group of a normalisation start as: (x, -x), ..., constants.

    Normalisation has 32 groups whatever the width. A group of one or two channels loses its mean
    over the image, which is brightness, and its scale, which is contrast. Here neither is lost:
    the pairs have no mean, the constants rule the scale, and silu(z) - silu(-z) = z makes the way
    through norm and SiLU straight.
    """

    def __init__(self, channels: int) -> None:
        self.size = channels // _GROUPS
        if self.size < 3:
            raise ValueError(f"{channels} channels are fewer than three a group.")
        constants = 2 - self.size % 2
        self.pairs = (self.size - constants) // 2
        self.values = [_CONSTANT, -_CONSTANT][:constants]
        mean = sum(self.values) / self.size
        self.deviation = (sum(v * v for v in self.values) / self.size - mean**2) ** 0.5
        self.shift = mean / self.deviation

    def place(self, group: int, pair: int = 0) -> int:
        """Channel of x; the next one is -x."""
        return group * self.size + 2 * pair

    def set_constants(self, conv: nn.Conv2d) -> None:
        """The last channels of every group become constants."""
        assert conv.bias is not None
        for number, value in enumerate(self.values, 2 * self.pairs):
            conv.weight[number::self.size] = 0.0
            conv.bias[number::self.size] = value

    def oppose(self, conv: nn.Conv2d) -> None:
        """Every -x becomes the opposite of its x."""
        assert conv.bias is not None
        for pair in range(self.pairs):
            x = slice(2 * pair, None, self.size)
            opposite = slice(2 * pair + 1, None, self.size)
            conv.bias[x] = 0.0
            conv.bias[opposite] = 0.0
            conv.weight[opposite] = -conv.weight[x]

    def open_norm(self, norm: nn.GroupNorm) -> None:
        """x and -x come out around zero."""
        for pair in range(self.pairs):
            for sign in range(2):
                norm.bias[2 * pair + sign::self.size] = self.shift


def _pass_on(conv: nn.Conv2d, taps: Tensor) -> None:
    """Every pair starts as itself, resampled, and gets a little of the others.

    Args:
        taps: [3, 3].
    """
    layout = _Layout(conv.out_channels)
    conv.weight.mul_(0.3)
    conv.weight[: _COLOURS * layout.size] = 0.0
    for group in range(_GROUPS):
        for pair in range(layout.pairs):
            place = layout.place(group, pair)
            conv.weight[place, place] += taps
    layout.oppose(conv)
    layout.set_constants(conv)


def _widen(conv: nn.Conv2d) -> None:
    """A 1 x 1 convolution between widths: the first pair of every group goes on."""
    before, after = _Layout(conv.in_channels), _Layout(conv.out_channels)
    conv.weight.mul_(0.3)
    for group in range(_GROUPS):
        conv.weight[after.place(group)] = 0.0
        conv.weight[after.place(group), before.place(group)] = 1.0
    after.oppose(conv)
    after.set_constants(conv)


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
    for name, module in vae.named_modules():
        if name.endswith("conv_shortcut"):
            _widen(module)
    for block in vae.encoder.down_blocks[:-1]:
        _pass_on(block.downsamplers[0].conv, _AVERAGE)
    for block in vae.decoder.up_blocks[:-1]:
        _pass_on(block.upsamplers[0].conv, _SMOOTH)
    for part in (vae.encoder, vae.decoder):
        _begin(part.conv_in)
        _end(part.conv_norm_out, part.conv_out)
    for plain in (vae.quant_conv, vae.post_quant_conv):
        plain.bias.zero_()
        for colour in range(_COLOURS):
            plain.weight[colour] = 0.0
            plain.weight[colour, colour] = 1.0
    return vae


_AVERAGE = torch.tensor([[0.25, 0.25, 0.0], [0.25, 0.25, 0.0], [0.0, 0.0, 0.0]])
"""Of 2 x 2 pixels, in a convolution of stride 2."""
_SMOOTH = torch.outer(torch.tensor([0.25, 0.5, 0.25]), torch.tensor([0.25, 0.5, 0.25]))
"""Makes of repeated pixels nearly what bilinear interpolation makes."""


def _begin(conv: nn.Conv2d) -> None:
    """The first layer: the first groups are a colour each, the others features."""
    layout = _Layout(conv.out_channels)
    conv.weight.mul_(3.0)
    for colour in range(_COLOURS):
        conv.weight[layout.place(colour)] = 0.0
        conv.weight[layout.place(colour), colour, 1, 1] = 1.0
    layout.oppose(conv)
    layout.set_constants(conv)


def _end(norm: nn.GroupNorm, conv: nn.Conv2d) -> None:
    """The last layer gives the colours of the first groups."""
    layout = _Layout(conv.in_channels)
    assert conv.bias is not None
    layout.open_norm(norm)
    conv.bias.zero_()
    for colour in range(_COLOURS):
        conv.weight[colour] = 0.0
        place = layout.place(colour)
        conv.weight[colour, place, 1, 1] = layout.deviation
        conv.weight[colour, place + 1, 1, 1] = -layout.deviation


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
