"""Weights set by hand, so that an untrained model still shows the clip it is given.

Nothing here was trained. The VAE is an 8x8 average of the colours and its nearest-neighbour
inverse; the UNet says "noise is what differs from the average of a neighbourhood", with small
random layers around it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

SCALE = 0.18215
"""Latent scale of Stable Diffusion 1."""
_DOMINANT = 30.0
"""Constant that rules a group's statistics, so that group normalisation scales by a constant."""
_GAIN = _DOMINANT / 2**0.5
"""What [x, -x, K, -K] is divided by: the group's standard deviation."""
_COLOURS = torch.tensor(
    [[5.0, 5.0, 5.0], [4.5, 9.0, 1.5], [18.0, -18.0, 0.0], [9.0, 9.0, -18.0]]
) / (3 * SCALE)
"""Latent channels from red, green and blue: brightness twice, then two colour differences. They
are spread several times wider than those of Stable Diffusion, so that noise hides less."""


def _pass(conv: nn.Module, rows: dict[int, dict[int, float]], bias: dict[int, float]) -> None:
    """A convolution that copies: output row from weighted input columns at the centre tap."""
    weight, offset = conv.weight, conv.bias
    assert isinstance(weight, Tensor)
    assert isinstance(offset, Tensor)
    weight.zero_()
    offset.zero_()
    middle = weight.shape[-1] // 2
    for row, columns in rows.items():
        for column, value in columns.items():
            weight[row, column, middle, middle] = value
    for row, value in bias.items():
        offset[row] = value


def _spread(matrix: Tensor, channels: int) -> tuple[dict[int, dict[int, float]], dict[int, float]]:
    """Rows [x, -x, K, -K] for each row x of a matrix."""
    rows: dict[int, dict[int, float]] = {}
    bias: dict[int, float] = {}
    for index, line in enumerate(matrix.tolist()):
        base = 4 * index
        assert base + 3 < channels
        rows[base] = dict(enumerate(line))
        rows[base + 1] = {column: -value for column, value in enumerate(line)}
        bias[base + 2], bias[base + 3] = _DOMINANT, -_DOMINANT
    return rows, bias


def _gather(matrix: Tensor) -> dict[int, dict[int, float]]:
    """The inverse of `_spread` after normalisation and SiLU: silu(z) - silu(-z) = z."""
    rows: dict[int, dict[int, float]] = {}
    for index, line in enumerate(matrix.tolist()):
        rows[index] = {}
        for column, value in enumerate(line):
            rows[index][4 * column] = value * _GAIN
            rows[index][4 * column + 1] = -value * _GAIN
    return rows


def silence(model: nn.Module, ends: tuple[str, ...] = ("conv2", "to_out.0")) -> None:
    """Residual branches, whose last layers end so, to zero: what comes in goes out."""
    for name, module in model.named_modules():
        if name.endswith(ends):
            for parameter in module.parameters():
                parameter.zero_()


@torch.no_grad()
def design_vae(vae: nn.Module) -> None:
    """AutoencoderKL with one width of 4 channels a group: average of 8x8 pixels, and back."""
    silence(vae)
    width = vae.encoder.conv_in.weight.shape[0]
    keep = {channel: {channel: 1.0} for channel in range(width)}
    _pass(vae.encoder.conv_in, *_spread(torch.eye(3), width))
    for block in vae.encoder.down_blocks[:-1]:
        conv = block.downsamplers[0].conv
        _pass(conv, {}, {})
        for channel in range(width):
            conv.weight[channel, channel, :2, :2] = 0.25
    _pass(vae.encoder.conv_out, _gather(_COLOURS), dict.fromkeys(range(4, 8), -20.0))
    eye = {channel: {channel: 1.0} for channel in range(8)}
    _pass(vae.quant_conv, eye, {})
    _pass(vae.post_quant_conv, {channel: {channel: 1.0} for channel in range(4)}, {})
    back = torch.linalg.pinv(_COLOURS)
    _pass(vae.decoder.conv_in, *_spread(back, width))
    for block in vae.decoder.up_blocks[:-1]:
        _pass(block.upsamplers[0].conv, keep, {})
    _pass(vae.decoder.conv_out, _gather(torch.eye(3)), {})


_FEATURE_SIZE = 8.0
"""Factor on the features inside the UNet, see `_enlarge`."""
_CARRIED = 4
"""Channels 0 to 3 of every stage hold the average of the latent at that stage."""
_LOUD = 8.0
"""Their scale: beside a variance of 64, the one that FRESCO adds to a feature's is nothing."""


def _carry(conv: nn.Module, columns: dict[int, float], sign: float = 1.0, first: int = 0) -> None:
    """Rows first..first+3 of a convolution take the carried channels from column offsets."""
    weight = conv.weight
    assert isinstance(weight, Tensor)
    middle = weight.shape[-1] // 2
    for channel in range(_CARRIED):
        weight[first + channel] = 0.0
        for offset, value in columns.items():
            weight[first + channel, offset + channel, middle, middle] = sign * value
        if isinstance(conv.bias, Tensor):
            conv.bias[first + channel] = 0.0


@torch.no_grad()
def design_unet(unet: nn.Module, *, quiet: float = 0.15, coarse: float = 0.6) -> None:
    """UNet of SD 1.5's topology: noise = x minus a local average, plus small random layers.

    Args:
        quiet: factor on all random residual branches
        coarse: share of the coarser stage in the average, at every stage
    """
    for name, module in unet.named_modules():
        if name.endswith(("conv2", "proj_out")):
            for parameter in module.parameters():
                parameter.mul_(quiet)
    _carry(unet.conv_in, {0: _LOUD})
    for block in unet.down_blocks:
        _design_down(block)
    for stage, block in enumerate(unet.up_blocks):
        for place, resnet in enumerate(block.resnets):
            width = _width_before(unet, stage, place)
            mixed = {0: coarse, width: 1.0 - coarse} if place == 0 and stage else {0: 1.0}
            _carry(resnet.conv_shortcut, mixed)
        for up in block.upsamplers or ():
            _carry(up.conv, {0: 1.0})
    _difference(unet)
    _enlarge(unet)


def _enlarge(unet: nn.Module) -> None:
    """All features larger by one factor; normalisation takes it out again, the output stays.

    Feature optimisation moves values by up to 0.2 an iteration and adds 1 to their variance, which
    suits features that vary by units, as those of trained models do, not by tenths.
    """
    for name, module in unet.named_modules():
        if name == "conv_in" or name.endswith(("conv2", "proj_out")):
            for parameter in module.parameters():
                parameter.mul_(_FEATURE_SIZE)
        elif name.endswith(("conv_shortcut", "samplers.0.conv")):
            bias = module.bias
            assert isinstance(bias, Tensor)
            bias.mul_(_FEATURE_SIZE)


def _design_down(block: nn.Module) -> None:
    """An encoder stage: the carried channels pass, then are averaged over 2x2 cells."""
    for resnet in block.resnets:
        if resnet.conv_shortcut is not None:
            _carry(resnet.conv_shortcut, {0: 1.0})
    for down in block.downsamplers or ():
        _carry(down.conv, {0: 0.25})
        for channel in range(_CARRIED):
            down.conv.weight[channel, channel, 1:, 1:] = 0.25


def _width_before(unet: nn.Module, stage: int, place: int) -> int:
    """Channels of h at a decoder resnet: those of the layer before it."""
    if place:
        return unet.up_blocks[stage].resnets[place - 1].out_channels
    return unet.up_blocks[stage - 1].resnets[-1].out_channels if stage else 0


def _difference(unet: nn.Module) -> None:
    """The last resnet forms skip minus average with both signs; the output undoes SiLU."""
    last = unet.up_blocks[-1].resnets[-1]
    width = _width_before(unet, len(unet.up_blocks) - 1, len(unet.up_blocks[-1].resnets) - 1)
    _carry(last.conv_shortcut, {width: 1.0, 0: -1.0})
    _carry(last.conv_shortcut, {width: 1.0, 0: -1.0}, sign=-1.0, first=_CARRIED)
    unet.conv_out.weight.mul_(0.1)
    middle = 1
    for channel in range(_CARRIED):
        unet.conv_out.weight[channel, : 2 * _CARRIED] = 0.0
        unet.conv_out.weight[channel, channel, middle, middle] = 0.9
        unet.conv_out.weight[channel, _CARRIED + channel, middle, middle] = -0.9
    unet.conv_out.bias.zero_()
