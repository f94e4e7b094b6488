"""Made scenes whose motion is known exactly."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fresco.flow.occlusion import BidirectionalFlow, occlusion
from fresco.flow.tensors import to_images

SQUARE = 28
"""Side of the moving square."""


def texture(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """[H, W, 3] detail at several scales, the mean grey."""
    random = np.random.default_rng(seed)
    total = np.zeros((height, width, 3), np.float32)
    for sigma in (1, 2, 4, 8):
        noise = random.standard_normal((height, width, 3)).astype(np.float32)
        total += cv2.GaussianBlur(noise, (0, 0), sigma) * sigma
    return np.clip(128 + 25 * total, 60, 190).astype(np.uint8)


class Still:
    """An estimator that sees no motion."""

    name = fingerprint = former_fingerprint = note = "still"
    device = "cpu"

    def estimate(self, source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Zero flow."""
        flow = source.new_zeros(len(source), 2, *source.shape[-2:])
        return flow, flow.clone()


def moving_square(
    count: int, step: int, size: tuple[int, int] = (96, 128), pan: int = 0
) -> tuple[NDArray[np.uint8], BidirectionalFlow, NDArray[np.bool_]]:
    """A square that moves right by `step` a frame over a background that moves by `pan`.

    Returns:
        Frames [N, H, W, 3], their exact flow and occlusion in a ring, and where the square is,
        [N, H, W].
    """
    height, width = size
    wide = texture(height, width + 2 * abs(pan) * count, seed=1)
    patch = 255 - texture(SQUARE, SQUARE, seed=2) // 3
    frames, square = [], np.zeros((count, height, width), bool)
    top = (height - SQUARE) // 2
    for i in range(count):
        start = abs(pan) * count - pan * i
        frame = wide[:, start:start + width].copy()
        left = 8 + step * i
        frame[top:top + SQUARE, left:left + SQUARE] = patch
        square[i, top:top + SQUARE, left:left + SQUARE] = True
        frames.append(frame)
    stacked, flows = np.stack(frames), []
    for where, hops in ((square, [1] * (count - 1) + [1 - count]),
                        (np.roll(square, -1, axis=0), [-1] * (count - 1) + [count - 1])):
        flow = np.zeros((count, 2, height, width), np.float32)
        for i, hop in enumerate(hops):
            flow[i, 0] = np.where(where[i], step * hop, pan * hop)
        flows.append(torch.from_numpy(flow))
    hidden = occlusion(to_images(stacked), *flows)
    return stacked, BidirectionalFlow(*flows, *hidden), square
