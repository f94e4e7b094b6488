"""GMFlow (Xu et al., CVPR 2022): optical flow as global matching.

Sizes and constants: docs/method.md, section 10.

Names of modules follow the keys of the published weights. Every attention is computed in blocks
of rows, so memory grows with the number of positions and not with its square.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

CHANNELS = 128
"""Width of the features that are matched."""
STRIDE = 8
"""Pixels a feature covers."""
SIDE_MULTIPLE = 16
"""Sides must be multiples of this: 2 x 2 windows of whole features."""
MASKED = -100.0
"""Added to the score of two positions of a shifted window that are not neighbours."""
BLOCK_ELEMENTS = 2**24
"""Most scores held at once: 64 MiB in float32."""
IMAGE_MEAN, IMAGE_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def attend(query: Tensor, key: Tensor, value: Tensor, regions: Tensor | None = None) -> Tensor:
    """softmax(q k^T / sqrt d) v, computed in blocks of queries.

    Args:
        query, key: [B, L, d].
        value: [B, L, e].
        regions: [B, L] labels; positions of different labels do not see each other.
    """
    batch, length, width = query.shape
    rows = max(1, BLOCK_ELEMENTS // (batch * length))
    result = []
    for start in range(0, length, rows):
        block = slice(start, start + rows)
        scores = query[:, block] @ key.transpose(1, 2) / math.sqrt(width)
        if regions is not None:
            apart = regions[:, block, None] != regions[:, None]
            scores = scores + apart * MASKED
        result.append(scores.softmax(dim=-1) @ value)
    return torch.cat(result, dim=1)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut."""

    def __init__(self, width_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width_in, width, 3, stride=stride, padding=1, bias=False)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.downsample: nn.Sequential | None = None
        if stride != 1 or width_in != width:
            shortcut = nn.Conv2d(width_in, width, 1, stride=stride)
            self.downsample = nn.Sequential(shortcut, nn.InstanceNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C', H / stride, W / stride]."""
        inner = F.relu(F.instance_norm(self.conv1(x)))
        inner = F.relu(F.instance_norm(self.conv2(inner)))
        return F.relu(inner + (x if self.downsample is None else self.downsample(x)))


class Backbone(nn.Module):
    """Convolutional features at an eighth of the image."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.layer1 = self._build_layer(64, 64, 1)
        self.layer2 = self._build_layer(64, 96, 2)
        self.layer3 = self._build_layer(96, CHANNELS, 2)
        self.conv2 = nn.Conv2d(CHANNELS, CHANNELS, 1)

    @staticmethod
    def _build_layer(width_in: int, width: int, stride: int) -> nn.Sequential:
        return nn.Sequential(ResidualBlock(width_in, width, stride), ResidualBlock(width, width, 1))

    def forward(self, x: Tensor) -> Tensor:
        """[B, 3, H, W] normalised -> [B, 128, H / 8, W / 8]."""
        x = F.relu(F.instance_norm(self.conv1(x)))
        return self.conv2(self.layer3(self.layer2(self.layer1(x))))


def split_windows(x: Tensor) -> Tensor:
    """[B, C, H, W] -> [4 B, C, H / 2, W / 2], the windows of a row first."""
    return rearrange(x, "b c (row h) (column w) -> (b row column) c h w", row=2, column=2)


def merge_windows(x: Tensor) -> Tensor:
    """Inverse of `split_windows`."""
    return rearrange(x, "(b row column) c h w -> b c (row h) (column w)", row=2, column=2)


def encode_position(rows: int, columns: int, like: Tensor) -> Tensor:
    """Sine and cosine of the normalised position, [1, 128, rows, columns], y first."""
    half = CHANNELS // 2
    channel = torch.arange(half, dtype=like.dtype, device=like.device)
    period = 1e4 ** (2 * torch.div(channel, 2, rounding_mode="floor") / half)

    def encode(count: int) -> Tensor:
        steps = torch.arange(1, count + 1, dtype=like.dtype, device=like.device)
        angle = steps[:, None] / (count + 1e-6) * (2 * math.pi) / period  # [count, half]
        pairs = torch.stack((angle[:, 0::2].sin(), angle[:, 1::2].cos()), dim=2)
        return pairs.flatten(1).T  # [half, count]

    along_y = encode(rows)[:, :, None].expand(-1, -1, columns)
    along_x = encode(columns)[:, None].expand(-1, rows, -1)
    return torch.cat((along_y, along_x))[None]


def add_position(features: Tensor) -> Tensor:
    """Add to features their position inside each of the 2x2 windows."""
    windows = split_windows(features)
    return merge_windows(windows + encode_position(windows.shape[2], windows.shape[3], windows))


def label_windows(rows: int, columns: int, like: Tensor) -> Tensor:
    """Labels [4, L] of the parts that are neighbours only because a frame was shifted."""

    def label(count: int) -> Tensor:
        at = torch.arange(count, device=like.device)
        window = count // 2
        return (at >= count - window).long() + (at >= count - window // 2).long()

    labels = label(rows)[:, None] * 3 + label(columns)
    return split_windows(labels[None, None]).flatten(1)


class WindowAttention(nn.Module):
    """One-headed attention within 2x2 windows, with or without a feed-forward net."""

    def __init__(self, feed_forward: bool) -> None:
        super().__init__()
        self.q_proj = nn.Linear(CHANNELS, CHANNELS, bias=False)
        self.k_proj = nn.Linear(CHANNELS, CHANNELS, bias=False)
        self.v_proj = nn.Linear(CHANNELS, CHANNELS, bias=False)
        self.merge = nn.Linear(CHANNELS, CHANNELS, bias=False)
        self.norm1 = nn.LayerNorm(CHANNELS)
        self.mlp: nn.Sequential | None = None
        if feed_forward:
            wide = 2 * CHANNELS * 4
            self.mlp = nn.Sequential(
                nn.Linear(2 * CHANNELS, wide, bias=False), nn.GELU(),
                nn.Linear(wide, CHANNELS, bias=False),
            )
            self.norm2 = nn.LayerNorm(CHANNELS)

    def forward(self, source: Tensor, target: Tensor, size: tuple[int, int], shifted: bool
                ) -> Tensor:
        """Attend from source [B, H W, C] to target; features of `size` = (H, W)."""
        shift = (size[0] // 4, size[1] // 4) if shifted else (0, 0)
        query = self._split_shifted(self.q_proj(source), size, shift)
        key = self._split_shifted(self.k_proj(target), size, shift)
        value = self._split_shifted(self.v_proj(target), size, shift)
        regions = None
        if shifted:
            regions = label_windows(*size, source).repeat(len(source), 1)
        seen = attend(query, key, value, regions).transpose(1, 2)
        seen = merge_windows(seen.unflatten(2, (size[0] // 2, size[1] // 2)))
        seen = seen.roll(shift, dims=(2, 3)).flatten(2).transpose(1, 2)
        message = self.norm1(self.merge(seen))
        if self.mlp is not None:
            message = self.norm2(self.mlp(torch.cat((source, message), dim=-1)))
        return source + message

    @staticmethod
    def _split_shifted(x: Tensor, size: tuple[int, int], shift: tuple[int, int]) -> Tensor:
        image = x.transpose(1, 2).unflatten(2, size)  # [B, C, H, W]
        image = image.roll((-shift[0], -shift[1]), dims=(2, 3))
        return split_windows(image).flatten(2).transpose(1, 2)  # [4 B, L, C]


class TransformerBlock(nn.Module):
    """Self-attention, then cross-attention with a feed-forward net."""

    def __init__(self) -> None:
        super().__init__()
        self.self_attn = WindowAttention(feed_forward=False)
        self.cross_attn_ffn = WindowAttention(feed_forward=True)

    def forward(self, source: Tensor, target: Tensor, size: tuple[int, int], shifted: bool
                ) -> Tensor:
        """Attend from the source [B, H W, C] to itself, then to the target."""
        source = self.self_attn(source, source, size, shifted)
        return self.cross_attn_ffn(source, target, size, shifted)


class Transformer(nn.Module):
    """Six blocks; every other one with windows shifted by half their size."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(TransformerBlock() for _ in range(6))

    def forward(self, features: Tensor) -> Tensor:
        """Transform [2 B, C, H, W], first images before second ones; each attends to its partner.
        """
        height, width = features.shape[-2:]
        tokens = features.flatten(2).transpose(1, 2)
        for index, layer in enumerate(self.layers):
            partner = tokens.roll(len(tokens) // 2, dims=0)
            tokens = layer(tokens, partner, (height, width), index % 2 == 1)
        return tokens.transpose(1, 2).unflatten(2, (height, width))


class FlowAttention(nn.Module):
    """Fills in flow where matching failed, by the features' self-similarity."""

    def __init__(self) -> None:
        super().__init__()
        self.q_proj = nn.Linear(CHANNELS, CHANNELS)
        self.k_proj = nn.Linear(CHANNELS, CHANNELS)

    def forward(self, features: Tensor, flow: Tensor) -> Tensor:
        """[B, C, H, W] and [B, 2, H, W] -> [B, 2, H, W]."""
        query = self.q_proj(features.flatten(2).transpose(1, 2))
        key = self.k_proj(query)  # of the query: so the published weights were trained
        spread = attend(query, key, flow.flatten(2).transpose(1, 2))
        return spread.transpose(1, 2).reshape(flow.shape)


def match_features(source: Tensor, target: Tensor) -> Tensor:
    """Flow as the expected position of the match, [B, 2, H, W] in features, x then y."""
    height, width = source.shape[-2:]
    ys = torch.arange(height, device=source.device, dtype=source.dtype)
    xs = torch.arange(width, device=source.device, dtype=source.dtype)
    grid = torch.stack(torch.meshgrid(xs, ys, indexing="xy"), dim=-1).flatten(0, 1)  # [H W, 2]
    tokens, others = (x.flatten(2).transpose(1, 2) for x in (source, target))
    found = attend(tokens, others, grid.expand(len(source), -1, -1))
    return (found - grid).transpose(1, 2).unflatten(2, (height, width))


class GMFlow(nn.Module):
    """Flow of pairs of images in both directions, one scale, no refinement."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = Backbone()
        self.transformer = Transformer()
        self.feature_flow_attn = FlowAttention()
        self.upsampler = nn.Sequential(
            nn.Conv2d(2 + CHANNELS, 256, 3, padding=1), nn.ReLU(),
            nn.Conv2d(256, STRIDE**2 * 9, 1),
        )

    def forward(self, source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Forward and backward flow.

        Args:
            source, target: [B, 3, H, W] RGB in 0..255, sides multiples of 16.
        """
        features = self.backbone(normalise_images(torch.cat((source, target))))
        features = self.transformer(add_position(features))
        coarse = match_features(features, features.roll(len(source), dims=0))
        coarse = self.feature_flow_attn(features, coarse)
        forward, backward = self.upsample(coarse, features).chunk(2)
        return forward, backward

    def upsample(self, flow: Tensor, features: Tensor) -> Tensor:
        """Convex upsampling: each pixel is a mean of the 3x3 coarse flows around it."""
        batch, _, height, width = flow.shape
        weights = self.upsampler(torch.cat((flow, features), dim=1))
        weights = weights.view(batch, 1, 9, STRIDE, STRIDE, height, width).softmax(dim=2)
        around = F.unfold(STRIDE * flow, 3, padding=1).view(batch, 2, 9, 1, 1, height, width)
        return rearrange((weights * around).sum(dim=2), "b c y x h w -> b c (h y) (w x)")


def normalise_images(images: Tensor) -> Tensor:
    """Normalise RGB of 0..255 by ImageNet's mean and deviation."""
    mean, std = (
        torch.tensor(values, dtype=images.dtype).to(images.device).view(1, 3, 1, 1)
        for values in (IMAGE_MEAN, IMAGE_STD)
    )
    return (images / 255 - mean) / std
