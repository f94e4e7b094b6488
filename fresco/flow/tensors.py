"""Convert images and flows between numpy arrays and tensors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fresco.flow.interface import FrameEstimator


def to_images(frames: NDArray[np.uint8]) -> Tensor:
    """Convert uint8 frames [N, H, W, 3] to float32 images [N, 3, H, W] in 0..255."""
    return torch.from_numpy(np.ascontiguousarray(frames.transpose(0, 3, 1, 2))).float()


def to_frames(images: Tensor) -> NDArray[np.uint8]:
    """Convert images [N, 3, H, W] in 0..255 to uint8 frames [N, H, W, 3], rounded."""
    values = images.float().round().clamp(0, 255).byte().cpu()
    return np.ascontiguousarray(values.permute(0, 2, 3, 1).numpy())


def to_flows(flows: Sequence[NDArray[np.float32]], *, like: Tensor) -> Tensor:
    """Stack flows [H, W, 2] to one tensor [N, 2, H, W] on the device of another."""
    stacked = np.ascontiguousarray(np.stack(flows).transpose(0, 3, 1, 2))
    return torch.from_numpy(stacked).to(like.device)


def to_array(flow: Tensor) -> NDArray[np.float32]:
    """Convert a flow [1, 2, H, W] to an array [H, W, 2]."""
    return np.ascontiguousarray(flow[0].float().cpu().permute(1, 2, 0).numpy())


def estimate_by_frames(
    estimator: FrameEstimator, source: Tensor, target: Tensor
) -> tuple[Tensor, Tensor]:
    """Implement `FlowEstimator.estimate` by an estimator that works on arrays."""
    pairs = [
        estimator.estimate_frames(first, second)
        for first, second in zip(to_frames(source), to_frames(target), strict=True)
    ]
    forward, backward = (to_flows(flows, like=source) for flows in zip(*pairs, strict=True))
    return forward, backward
