"""Steps of the official method that ours do otherwise: what ours is compared with."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from fresco.flow.warp import warp

Map = NDArray[np.floating]


def select_backward(
    forward: Map, backward: Map, *, weights: tuple[float, float]
) -> NDArray[np.bool_]:
    """Where the official rule takes the backward side: w1 d1 >= w2 d2, and nowhere if w1 = 0.

    Computed in float64: ties are common, and float32 breaks them the other way.

    Args:
        forward, backward: error maps d1 and d2, [H, W].
        weights: (w1, w2).
    """
    if weights[0] == 0:
        return np.zeros(forward.shape, bool)
    return weights[0] * forward.astype(np.float64) >= weights[1] * backward.astype(np.float64)


def warp_image(
    image: NDArray[np.uint8], flow: NDArray[np.float32], *, nearest: bool = False
) -> NDArray[np.uint8]:
    """Backward warp of one image or map, [H, W, C] or [H, W]; zeros outside, dtype kept.

    Args:
        flow: [2, H, W] in pixels, x then y.
        nearest: take the nearest pixel instead of interpolating.
    """
    flat = image if image.ndim == 3 else image[..., None]
    values = torch.from_numpy(np.ascontiguousarray(flat.transpose(2, 0, 1))).float()[None]
    moved = warp(values, torch.from_numpy(np.ascontiguousarray(flow))[None], nearest=nearest)
    result = moved[0].permute(1, 2, 0).numpy()
    if np.issubdtype(image.dtype, np.integer):
        result = np.rint(result)
    return result.astype(image.dtype).reshape(*flow.shape[-2:], *image.shape[2:])
