"""Find stages, widths and self-attention of an LDM UNet's decoder from its module tree."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn

from fresco.errors import HostError


@dataclass(frozen=True, slots=True)
class DecoderBlock:
    """An output block; its input is the decoder's feature joined with a skip."""

    module: nn.Module
    """The block."""
    entry: nn.Module
    """Its first part, a residual block, which is called with that input. reForge and forge-classic
    walk through the parts and never call the block itself."""
    width: int
    """Channels of the decoder's feature in its input; they come first."""


@dataclass(frozen=True, slots=True)
class DecoderStage:
    """A stage of the decoder: the output blocks of one resolution."""

    blocks: tuple[DecoderBlock, ...]
    """Output blocks, in the order they run."""
    attention: tuple[nn.Module, ...]
    """Self-attention layers, in the order they run."""


def find_decoder_stages(unet: nn.Module) -> tuple[DecoderStage, ...]:
    """Find the decoder stages of a UNet of `ldm` or `sgm`, coarsest first.

    A stage ends with the block that enlarges, as one of diffusers' up blocks does.
    """
    middle, outputs = getattr(unet, "middle_block", None), getattr(unet, "output_blocks", None)
    if not isinstance(middle, nn.Module) or not isinstance(outputs, nn.ModuleList):
        raise HostError(
            f"{type(unet).__name__} has no middle_block and output_blocks, so it is not a UNet "
            "of Stable Diffusion 1.x, 2.x or SDXL; use a checkpoint of those."
        )
    stages: list[DecoderStage] = []
    before, blocks = middle, list[DecoderBlock]()
    for number, block in enumerate(outputs):
        blocks.append(DecoderBlock(block, _find_entry(block), _find_width(before)))
        before = block
        if _enlarges(block) or number == len(outputs) - 1:
            layers = [layer for part in blocks for layer in _find_self_attention(part.module)]
            stages.append(DecoderStage(tuple(blocks), tuple(layers)))
            blocks = []
    return tuple(stages)


def _enlarges(block: nn.Module) -> bool:
    return any(type(module).__name__ == "Upsample" for module in block.modules())


def _find_entry(block: nn.Module) -> nn.Module:
    """Find the first part of an output block."""
    first = next(iter(block.children()), None)
    if first is None or not hasattr(first, "out_layers"):
        raise _make_no_residual_error(block)
    return first


def _find_width(block: nn.Module) -> int:
    """Find the output channels of a block, which are those of its last residual block."""
    widths = [part.out_channels for part in block.children() if hasattr(part, "out_layers")]
    if not widths:
        raise _make_no_residual_error(block)
    return int(widths[-1])  # pyright: ignore[reportArgumentType] - an attribute of any module


def _make_no_residual_error(block: nn.Module) -> HostError:
    return HostError(
        f"{type(block).__name__} has no residual block, so the UNet is not the one of Stable "
        "Diffusion 1.x, 2.x or SDXL; use a checkpoint of those."
    )


def _find_self_attention(block: nn.Module) -> Iterator[nn.Module]:
    for name, module in block.named_modules():
        if name.rpartition(".")[2] == "attn1":
            _require_plain(name, module)
            yield module


def _require_plain(name: str, layer: Any) -> None:
    """Refuse layers that do more than q, k, v, attention and output."""
    missing = [part for part in ("heads", "to_q", "to_k", "to_v", "to_out")
               if getattr(layer, part, None) is None]
    if missing or layer.to_k.weight.shape[1] != layer.to_q.weight.shape[1]:
        what = f"lacks {missing[0]}" if missing else "attends to the prompt"
        raise HostError(
            f"Attention layer {name} {what}, unlike that of Stable Diffusion 1.x, 2.x and SDXL; "
            "use a checkpoint of those."
        )


def refuse_merged_tokens(unet: nn.Module) -> None:
    """Raise HostError if token merging is on: motion paths need every token."""
    if any(type(module).__name__ == "ToMeBlock" for module in unet.modules()):
        raise HostError(
            "token merging (tomesd) is applied to the model; FRESCO follows single tokens from "
            "frame to frame. Set the token merging ratio to 0."
        )
