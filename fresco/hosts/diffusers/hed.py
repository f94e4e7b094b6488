"""HED, the edge network of ControlNet's soft edges, for the published weights ControlNetHED.pth.

Holistically-nested edge detection (Xie and Tu, 2015): VGG16's five blocks, each projected to one
edge map; the answer is the sigmoid of their mean at full size.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, max_pool2d, relu

_WIDTHS = (64, 128, 256, 512, 512)
_LAYERS = (2, 2, 3, 3, 3)


class _Block(nn.Module):
    """Convolutions of one size and the projection to an edge map."""

    def __init__(self, before: int, width: int, layers: int) -> None:
        super().__init__()
        widths = (before, *(width,) * (layers - 1))
        self.convs = nn.ModuleList(nn.Conv2d(w, width, 3, padding=1) for w in widths)
        self.projection = nn.Conv2d(width, 1, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        for conv in self.convs:
            x = relu(conv(x))
        return x, self.projection(x)


class HedNetwork(nn.Module):
    """Soft edges of images."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.Parameter(torch.zeros(1, 3, 1, 1))
        before = (3, *_WIDTHS[:-1])
        for number, sizes in enumerate(zip(before, _WIDTHS, _LAYERS, strict=True), 1):
            self.add_module(f"block{number}", _Block(*sizes))

    def forward(self, x: Tensor) -> Tensor:
        """Convert [N, 3, H, W] RGB in 0..255 to edges [N, 1, H, W] in 0..1."""
        size, total = x.shape[-2:], torch.zeros_like(x[:, :1])
        x = x - self.norm
        for number in range(1, len(_WIDTHS) + 1):
            x, edges = self.get_submodule(f"block{number}")(max_pool2d(x, 2) if number > 1 else x)
            total = total + interpolate(edges, size, mode="bilinear", align_corners=False)
        return (total / len(_WIDTHS)).sigmoid()
