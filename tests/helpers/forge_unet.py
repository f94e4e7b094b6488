"""The narrow UNet as the Forge kinds call it, with the same weights.

Forge and Neo call blocks with `transformer_options`; reForge and forge-classic walk through a
block's parts and never call the block. All tell the conditionings of an evaluation's rows, negative
first.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fresco.guidance.ports import Chunk
from fresco.hosts.ldm.unet import LdmUNet
from tests.helpers.ldm_hosts import FRAMES, Inputs, Outputs, Twins, list_evaluation
from tests.helpers.ldm_unet import (
    BasicTransformerBlock,
    CrossAttention,
    ResBlock,
    SpatialTransformer,
    TimestepEmbedSequential,
    UNetModel,
    Upsample,
)

Options = dict[str, Any]
NUMBERS: dict[Chunk, int] = {"positive": 0, "negative": 1}


class ReforgeAttention(CrossAttention):
    """Keys and values may come from elsewhere."""

    def forward(  # type: ignore[override]
        self, x: Tensor, context: Tensor | None = None, value: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        keys = x if context is None else context
        values = keys if value is None else value
        q, k, v = (y.unflatten(-1, (self.heads, -1)).transpose(1, 2)
                   for y in (self.to_q(x), self.to_k(keys), self.to_v(values)))
        return self.to_out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class ForgeAttention(ReforgeAttention):
    """It is told the options of the evaluation too."""

    def forward(  # type: ignore[override]
        self, x: Tensor, context: Tensor | None = None, value: Tensor | None = None,
        mask: Tensor | None = None, transformer_options: Options | None = None,
    ) -> Tensor:
        return super().forward(x, context, value, mask)


class ForgeTransformerBlock(BasicTransformerBlock):
    """Patches may act on the inputs of attention, or take its place."""

    def forward(  # type: ignore[override]
        self, x: Tensor, context: Tensor | None = None, transformer_options: Options | None = None
    ) -> Tensor:
        options = transformer_options or {}
        n = self.norm1(x)
        keys = values = None
        for patch in options.get("patches", {}).get("attn1_patch", ()):
            keys = n if keys is None else keys
            n, keys, values = patch(n, keys, keys if values is None else values, options)
        replaced = options.get("patches_replace", {}).get("attn1", {})
        if options.get("block") in replaced:
            q, k, v = self.attn1.to_q(n), self.attn1.to_k(n), self.attn1.to_v(n)
            n = self.attn1.to_out(replaced[options["block"]](q, k, v, options))
        else:
            told = isinstance(self.attn1, ForgeAttention)
            more = {"transformer_options": options} if told else {}
            n = self.attn1(n, context=keys, value=values, **more)
        x = x + n
        x = x + self.attn2(self.norm2(x), context=context)
        return x + self.ff(self.norm3(x))


class ForgeSpatialTransformer(SpatialTransformer):
    """Hands the options on."""

    def forward(  # type: ignore[override]
        self, x: Tensor, context: Tensor | None = None, transformer_options: Options | None = None
    ) -> Tensor:
        height, before = x.shape[-2], x
        x = self.norm(x)
        x = x if self.linear else self.proj_in(x)
        x = x.flatten(2).transpose(1, 2).contiguous()
        x = self.proj_in(x) if self.linear else x
        for block in self.transformer_blocks:
            x = block(x, context=context, transformer_options=transformer_options)
        x = self.proj_out(x) if self.linear else x
        x = x.transpose(1, 2).unflatten(2, (height, -1)).contiguous()
        return (x if self.linear else self.proj_out(x)) + before


def walk(parts: Any, x: Tensor, emb: Tensor, context: Tensor | None, options: Options) -> Tensor:
    """Call a block's parts one by one."""
    for part in parts:
        if isinstance(part, ResBlock):
            x = part(x, emb)
        elif isinstance(part, SpatialTransformer):
            x = part(x, context, options)
        elif isinstance(part, Upsample):
            x = part(x)
        else:
            x = part(x)
    return x


class ForgeSequential(TimestepEmbedSequential):
    """Called with options and the shape to come."""

    def forward(  # type: ignore[override]
        self, x: Tensor, emb: Tensor, context: Tensor | None = None,
        transformer_options: Options | None = None, output_shape: Any = None,
    ) -> Tensor:
        return walk(self, x, emb, context, transformer_options or {})


class ForgeUNet(UNetModel):
    """`unet(x, t, context=, y=, control=, transformer_options=)`; ControlNet adds to skips."""

    walks = False

    @property
    def dtype(self) -> torch.dtype:
        """Number format of the weights."""
        return next(self.parameters()).dtype

    def forward(  # type: ignore[override]
        self, x: Tensor, timesteps: Tensor, context: Tensor | None = None, y: Tensor | None = None,
        control: Any = None, transformer_options: Options | None = None,
    ) -> Tensor:
        options = {} if transformer_options is None else transformer_options
        emb = self.time_embed(self._waves(timesteps).to(x.dtype))
        if y is not None:
            emb = emb + self.label_emb(y)
        skips: list[Tensor] = []
        for number, block in enumerate(self.input_blocks):
            options["block"] = ("input", number)
            x = self._run(block, x, emb, context, options)
            skips.append(x)
        options["block"] = ("middle", 0)
        x = self._run(self.middle_block, x, emb, context, options)
        for number, block in enumerate(self.output_blocks):
            options["block"] = ("output", number)
            skip = skips.pop()
            if x.shape[-2:] != skip.shape[-2:]:  # Forge hands the next shape to the enlargement
                x = nn.functional.interpolate(x, skip.shape[-2:], mode="nearest")
            x = self._run(block, torch.cat([x, skip], dim=1), emb, context, options)
        return self.out(x)

    def _run(
        self, block: nn.Module, x: Tensor, emb: Tensor, context: Tensor | None, options: Options
    ) -> Tensor:
        if self.walks:
            return walk(block, x, emb, context, options)
        return block(x, emb, context, options, None)


class ReforgeUNet(ForgeUNet):
    """Walks through the parts of its blocks."""

    walks = True


_COMMON: dict[type, type] = {
    BasicTransformerBlock: ForgeTransformerBlock, SpatialTransformer: ForgeSpatialTransformer,
    TimestepEmbedSequential: ForgeSequential,
}
STYLES: dict[str, tuple[type[ForgeUNet], type[CrossAttention]]] = {
    "forge": (ForgeUNet, ForgeAttention), "reforge": (ReforgeUNet, ReforgeAttention),
}


def make_forge_unet(unet: UNetModel, style: str) -> ForgeUNet:
    """The same weights, called as this Forge kind calls them."""
    whole, attention = STYLES[style]
    kinds = _COMMON | {CrossAttention: attention}
    made: Any = copy.deepcopy(unet)
    for module in made.modules():
        module.__class__ = kinds.get(type(module), type(module))
    made.__class__ = whole
    return made


@torch.no_grad()
def evaluate_forge(
    adapter: LdmUNet, inputs: Inputs, twins: Twins, chunks: tuple[Chunk, ...], **options: Any
) -> Tensor:
    """One evaluation as a Forge kind makes it, [rows, 4, h, w]."""
    told = {"cond_or_uncond": [NUMBERS[chunk] for chunk in chunks], **options}
    args, kwargs = list_evaluation(inputs, twins, chunks)
    return adapter.unet(*args, **kwargs, transformer_options=told)


def call_forge(
    adapter: LdmUNet, inputs: Inputs, twins: Twins, *, apart: bool = False, **options: Any
) -> Outputs:
    """All chunks, negative first; in one evaluation or, `apart`, in one after the other."""
    outputs: dict[Chunk, Tensor] = {}
    groups: list[tuple[Chunk, ...]] = (
        [("negative",), ("positive",)] if apart else [("negative", "positive")]
    )
    with adapter.calling(FRAMES):
        for chunks in groups:
            found = evaluate_forge(adapter, inputs, twins, chunks, **options)
            outputs |= dict(zip(chunks, found.chunk(len(chunks)), strict=True))
    return outputs
