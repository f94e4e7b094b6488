"""UNets with the topology, the parameter names and the call of `ldm` and `sgm`, narrow.

Written for tests: the shapes of Stable Diffusion 1.5, 2.x and SDXL at a tenth of the width, and
each with the UNet of diffusers that has the same weights.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from demo.ldm_layout import rename_unet_key

CONTEXT = 64
"""Width of the text conditioning."""
POOLED, TIME_IDS, TIME_WIDTH = 32, 6, 8
"""SDXL's added conditioning: pooled text, number of sizes, width of each size's embedding."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What tells one family's UNet from another's."""

    multiples: tuple[int, ...]
    """Width of each level, in multiples of 32 channels."""
    depths: tuple[int, ...]
    """Transformer blocks of each level's attention; 0: no attention there."""
    heads: int | None = None
    """Heads of every layer; None: as many as give heads 16 wide."""
    linear: bool = False
    """Whether a transformer's first and last map is a matrix instead of a convolution."""
    added: int = 0
    """Width of the added conditioning."""

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each level."""
        return tuple(32 * multiple for multiple in self.multiples)

    def heads_of(self, width: int) -> int:
        """Heads of a layer of this width."""
        return self.heads or width // 16


SD1 = Shape((1, 2, 4, 4), (1, 1, 1, 0), heads=8)
SD2 = Shape((1, 2, 4, 4), (1, 1, 1, 0), linear=True)
SDXL = Shape((1, 2, 4), (0, 2, 3), linear=True, added=POOLED + TIME_IDS * TIME_WIDTH)
SHAPES = {"sd1": SD1, "sd2": SD2, "sdxl": SDXL}


class CrossAttention(nn.Module):
    """Attention with the names and arguments of `sgm`."""

    def __init__(self, width: int, context: int | None, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_k = nn.Linear(context or width, width, bias=False)
        self.to_v = nn.Linear(context or width, width, bias=False)
        self.to_out = nn.Sequential(nn.Linear(width, width), nn.Dropout(0.0))

    def forward(
        self, x: Tensor, context: Tensor | None = None, mask: Tensor | None = None,
        additional_tokens: Tensor | None = None, n_times_crossframe_attn_in_self: int = 0,
    ) -> Tensor:
        seen = x if context is None else context
        q, k, v = (y.unflatten(-1, (self.heads, -1)).transpose(1, 2)
                   for y in (self.to_q(x), self.to_k(seen), self.to_v(seen)))
        return self.to_out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class GatedLinear(nn.Module):
    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.proj = nn.Linear(width, 2 * inner)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.proj(x).chunk(2, dim=-1)
        return value * F.gelu(gate)


class FeedForward(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            GatedLinear(width, 4 * width), nn.Dropout(0.0), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class BasicTransformerBlock(nn.Module):
    """Named like the original, so that other programs' patches find it."""

    disable_self_attn = False

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attn1 = CrossAttention(width, None, heads)
        self.ff = FeedForward(width)
        self.attn2 = CrossAttention(width, CONTEXT, heads)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        x = self.attn1(self.norm1(x), context=None, additional_tokens=None) + x
        x = self.attn2(self.norm2(x), context=context) + x
        return self.ff(self.norm3(x)) + x


class SpatialTransformer(nn.Module):
    def __init__(self, width: int, depth: int, shape: Shape) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(32, width, eps=1e-6)
        self.linear = shape.linear
        make = nn.Linear if shape.linear else lambda a, b: nn.Conv2d(a, b, 1)
        self.proj_in, self.proj_out = make(width, width), make(width, width)
        self.transformer_blocks = nn.ModuleList(
            [BasicTransformerBlock(width, shape.heads_of(width)) for _ in range(depth)]
        )

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        height, before = x.shape[-2], x
        x = self.norm(x)
        x = x if self.linear else self.proj_in(x)
        x = x.flatten(2).transpose(1, 2).contiguous()
        x = self.proj_in(x) if self.linear else x
        for block in self.transformer_blocks:
            x = block(x, context=context)
        x = self.proj_out(x) if self.linear else x
        x = x.transpose(1, 2).unflatten(2, (height, -1)).contiguous()
        return (x if self.linear else self.proj_out(x)) + before


class ResBlock(nn.Module):
    def __init__(self, entering: int, width: int, emb: int) -> None:
        super().__init__()
        self.out_channels = width
        self.in_layers = nn.Sequential(
            nn.GroupNorm(32, entering), nn.SiLU(), nn.Conv2d(entering, width, 3, padding=1)
        )
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(emb, width))
        self.out_layers = nn.Sequential(
            nn.GroupNorm(32, width), nn.SiLU(), nn.Dropout(0.0),
            nn.Conv2d(width, width, 3, padding=1),
        )
        same = entering == width
        self.skip_connection = nn.Identity() if same else nn.Conv2d(entering, width, 1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        h = self.in_layers(x) + self.emb_layers(emb)[:, :, None, None]
        return self.skip_connection(x) + self.out_layers(h)


class Downsample(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.op = nn.Conv2d(width, width, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.op(x)


class Upsample(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2, mode="nearest"))


class TimestepEmbedSequential(nn.Sequential):
    """Hands each part what it takes."""

    def forward(self, x: Tensor, emb: Tensor, context: Tensor | None = None) -> Tensor:
        for part in self:
            if isinstance(part, ResBlock):
                x = part(x, emb)
            elif isinstance(part, SpatialTransformer):
                x = part(x, context)
            else:
                x = part(x)
        return x


class UNetModel(nn.Module):
    """The UNet as the WebUI calls it: `unet(x, timesteps, context=..., y=...)`."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.model_channels = shape.widths[0]
        emb = 4 * self.model_channels
        self.time_embed = nn.Sequential(
            nn.Linear(self.model_channels, emb), nn.SiLU(), nn.Linear(emb, emb)
        )
        if shape.added:
            self.label_emb = nn.Sequential(nn.Sequential(
                nn.Linear(shape.added, emb), nn.SiLU(), nn.Linear(emb, emb)
            ))
        self.input_blocks = nn.ModuleList(
            [TimestepEmbedSequential(nn.Conv2d(4, shape.widths[0], 3, padding=1))]
        )
        skips = self._add_encoder(shape, emb)
        deepest = shape.widths[-1]
        self.middle_block = TimestepEmbedSequential(
            ResBlock(deepest, deepest, emb),
            SpatialTransformer(deepest, shape.depths[-1] or 1, shape),
            ResBlock(deepest, deepest, emb),
        )
        self.output_blocks = nn.ModuleList()
        self._add_decoder(shape, emb, skips)
        self.out = nn.Sequential(
            nn.GroupNorm(32, shape.widths[0]), nn.SiLU(),
            nn.Conv2d(shape.widths[0], 4, 3, padding=1),
        )

    def _add_encoder(self, shape: Shape, emb: int) -> list[int]:
        """Input blocks after the first; widths of all skips."""
        width, skips = shape.widths[0], [shape.widths[0]]
        for level, (wanted, depth) in enumerate(zip(shape.widths, shape.depths, strict=True)):
            for _ in range(2):
                parts: list[nn.Module] = [ResBlock(width, wanted, emb)]
                if depth:
                    parts.append(SpatialTransformer(wanted, depth, shape))
                self.input_blocks.append(TimestepEmbedSequential(*parts))
                width = wanted
                skips.append(width)
            if level < len(shape.widths) - 1:
                self.input_blocks.append(TimestepEmbedSequential(Downsample(width)))
                skips.append(width)
        return skips

    def _add_decoder(self, shape: Shape, emb: int, skips: list[int]) -> None:
        width = shape.widths[-1]
        for level in reversed(range(len(shape.widths))):
            wanted, depth = shape.widths[level], shape.depths[level]
            for number in range(3):
                parts: list[nn.Module] = [ResBlock(width + skips.pop(), wanted, emb)]
                if depth:
                    parts.append(SpatialTransformer(wanted, depth, shape))
                if level and number == 2:
                    parts.append(Upsample(wanted))
                self.output_blocks.append(TimestepEmbedSequential(*parts))
                width = wanted

    def forward(
        self, x: Tensor, timesteps: Tensor, context: Tensor | None = None, y: Tensor | None = None
    ) -> Tensor:
        emb = self.time_embed(self._waves(timesteps).to(x.dtype))
        if y is not None:
            emb = emb + self.label_emb(y)
        skips: list[Tensor] = []
        for block in self.input_blocks:
            x = block(x, emb, context)
            skips.append(x)
        x = self.middle_block(x, emb, context)
        for block in self.output_blocks:
            x = block(torch.cat([x, skips.pop()], dim=1), emb, context)
        return self.out(x)

    def _waves(self, timesteps: Tensor) -> Tensor:
        half = self.model_channels // 2
        places = torch.arange(half, dtype=torch.float32, device=timesteps.device)
        rates = torch.exp(-math.log(10000) * places / half)
        angles = timesteps[:, None].float() * rates
        return torch.cat([angles.cos(), angles.sin()], dim=-1)


def diffusers_twin(shape: Shape, *, seed: int = 0) -> UNet2DConditionModel:
    """The UNet of diffusers of this shape, its weights random but large enough to act."""
    torch.manual_seed(seed)
    attended = [bool(depth) for depth in shape.depths]
    options: dict[str, Any] = {
        "attention_head_dim": tuple(shape.heads_of(width) for width in shape.widths),
        "use_linear_projection": shape.linear,
        "transformer_layers_per_block": tuple(depth or 1 for depth in shape.depths),
    }
    if shape.added:
        options |= {
            "addition_embed_type": "text_time", "addition_time_embed_dim": TIME_WIDTH,
            "projection_class_embeddings_input_dim": shape.added,
        }
    down = tuple("CrossAttnDownBlock2D" if on else "DownBlock2D" for on in attended)
    up = tuple("CrossAttnUpBlock2D" if on else "UpBlock2D" for on in reversed(attended))
    unet = UNet2DConditionModel(
        block_out_channels=shape.widths, layers_per_block=2, cross_attention_dim=CONTEXT,
        down_block_types=down, up_block_types=up, **options,
    )
    return unet.eval().requires_grad_(False)


def ldm_twin(unet: UNet2DConditionModel, shape: Shape) -> UNetModel:
    """The same weights as an LDM UNet."""
    twin = UNetModel(shape).eval().requires_grad_(False)
    twin.load_state_dict(ldm_names(unet.state_dict(), set(twin.state_dict())))
    return twin


def ldm_names(state: Mapping[str, Tensor], names: set[str]) -> dict[str, Tensor]:
    """Weights of diffusers under the names of LDM; `names` decide where the map leaves two."""
    result: dict[str, Tensor] = {}
    for key, tensor in state.items():
        if key.startswith("add_embedding."):
            name = key.replace("add_embedding.linear_1", "label_emb.0.0")
            name = name.replace("add_embedding.linear_2", "label_emb.0.2")
        else:
            name = rename_unet_key(key)
        if name not in names:  # a coarsest level with attention has its upsampling behind it
            name = name.replace(".1.conv.", ".2.conv.")
        result[name] = tensor
    return result
