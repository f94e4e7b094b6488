"""Hints of a ControlNet, computed frame by frame."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import interpolate

from fresco.hosts.memory import memory_errors


class Preprocessor(Protocol):
    """Frames to hints."""

    def __call__(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        """[N, H, W, 3] RGB uint8 -> [N, H, W, 3] in 0..1."""
        ...


class Canny:
    """Edges by Canny's detector; white on black."""

    def __init__(self, low: int, high: int) -> None:
        self._low, self._high = low, high

    def __call__(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        """[N, H, W, 3] RGB uint8 -> [N, H, W, 3] of 0 and 1."""
        edges = [cv2.Canny(frame, self._low, self._high) for frame in frames]
        return np.repeat(np.stack(edges)[..., None], 3, axis=-1).astype(np.float32) / 255


class SoftEdges:
    """Soft edges by HED."""

    def __init__(self, network: nn.Module) -> None:
        self._network = network

    def __call__(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        """[N, H, W, 3] RGB uint8 -> [N, H, W, 3], 1 = edge."""
        return _run_each(frames, self._network, self._network)


_DEPTH_SIDE = 384
"""Side of the pictures that DPT was trained on."""


class Depth:
    """Nearness by a DPT network of transformers, each frame stretched to 0..1."""

    def __init__(self, network: Any) -> None:
        self._network = network

    def __call__(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        """[N, H, W, 3] RGB uint8 -> [N, H, W, 3], 1 = nearest."""
        return _run_each(frames, self._network, self._nearness)

    def _nearness(self, x: Tensor) -> Tensor:
        square = interpolate(
            x / 127.5 - 1, (_DEPTH_SIDE, _DEPTH_SIDE), mode="bicubic", align_corners=False
        )
        depth = self._network(pixel_values=square).predicted_depth[:, None]
        depth = interpolate(depth, x.shape[-2:], mode="bicubic", align_corners=False)
        low, high = depth.amin(), depth.amax()
        return (depth - low) / (high - low).clamp(min=1e-6)


@torch.no_grad()
def _run_each(
    frames: NDArray[np.uint8], network: nn.Module, work: Callable[[Tensor], Tensor]
) -> NDArray[np.float32]:
    """Frame by frame through a network: [1, 3, H, W] in 0..255 -> [1, 1, H, W]."""
    device = next(network.parameters()).device
    hints = []
    for frame in frames:
        x = torch.from_numpy(np.ascontiguousarray(frame)).to(device).permute(2, 0, 1)[None].float()
        with memory_errors("while computing a ControlNet's hints"):
            hints.append(work(x)[0, 0].cpu().numpy())
    return np.repeat(np.stack(hints)[..., None], 3, axis=-1).astype(np.float32)
