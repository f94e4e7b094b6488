"""Warp along a flow, and resize to the grids of tokens and features."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

LARGEST_SCALE = 256
"""Largest cell side looked for; a UNet of four levels over an 8x autoencoder reaches 64."""


def _pixel_grid(height: int, width: int, like: Tensor) -> Tensor:
    ys = torch.arange(height, device=like.device, dtype=like.dtype)
    xs = torch.arange(width, device=like.device, dtype=like.dtype)
    return torch.stack(torch.meshgrid(ys, xs, indexing="ij")[::-1])  # [2, H, W], x then y


def warp(x: Tensor, flow: Tensor, *, nearest: bool = False) -> Tensor:
    """Backward warp, warp(x, f)(p) = x(p + f(p)); zeros outside. Returns x's dtype.

    Half precision is computed in float32: pixel positions do not fit it.

    Args:
        x: [B, C, H, W].
        flow: [B, 2, H, W] or [1, 2, H, W] in pixels, x then y.
    """
    work = torch.promote_types(x.dtype, torch.float32)
    flow = flow.to(work)
    # A side of one pixel has no extent to normalise by: give it a second, empty pixel.
    values = F.pad(x.to(work), (0, int(x.shape[-1] == 1), 0, int(x.shape[-2] == 1)))
    height, width = values.shape[-2:]
    position = _pixel_grid(flow.shape[-2], flow.shape[-1], flow) + flow
    # Sides as plain numbers: a tensor of them would be copied to the device, and waited for.
    grid = torch.stack((  # [B, H, W, 2]
        2 * position[:, 0] / (width - 1) - 1, 2 * position[:, 1] / (height - 1) - 1,
    ), dim=-1)
    warped = F.grid_sample(
        values, grid.expand(x.shape[0], -1, -1, -1),
        mode="nearest" if nearest else "bilinear", padding_mode="zeros", align_corners=True,
    )
    return warped.to(x.dtype)


def token_grid(height: int, width: int, scale: int) -> tuple[int, int]:
    """Rows and columns of cells of `scale` pixels that cover a frame; the last may be partial."""
    return -(-height // scale), -(-width // scale)


def cell_scale(size: tuple[int, int], target: tuple[int, int]) -> int | None:
    """Side of the square cells that tile `size` in `target` rows and columns, a power of two.

    None where no such cell exists, as for an enlargement.
    """
    scale = 1
    while scale <= LARGEST_SCALE:
        if token_grid(*size, scale) == target:
            return scale
        scale *= 2
    return None


def resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize bilinearly without antialias: the mean of the 2x2 centre pixels of each cell.

    A partial cell at the right or lower border is completed by repeating the last pixel, so
    cells stay aligned with the frame's origin.

    Args:
        x: [B, C, H, W].
        size: rows and columns wanted.
    """
    height, width = x.shape[-2:]
    if (height, width) == size:
        return x
    work = x.to(torch.promote_types(x.dtype, torch.float32))
    scale = cell_scale((height, width), size)
    if scale is not None:
        extra = (0, size[1] * scale - width, 0, size[0] * scale - height)
        work = F.pad(work, extra, mode="replicate") if any(extra) else work
    return F.interpolate(work, size=size, mode="bilinear", align_corners=False).to(x.dtype)


def resize_flow(flow: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize flow to another grid; the vectors are scaled to that grid's pixels.

    Args:
        flow: [B, 2, H, W] in pixels of H x W.
        size: rows and columns wanted.
    """
    height, width = flow.shape[-2:]
    scale = cell_scale((height, width), size)
    resized = resize(flow, size)
    if scale is not None:
        return resized / scale
    return torch.stack((resized[:, 0] * (size[1] / width), resized[:, 1] * (size[0] / height)), 1)
