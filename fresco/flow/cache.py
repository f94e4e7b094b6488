"""Flow and occlusion of pairs, kept on disk under a hash of all that they depend on."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fresco.flow.occlusion import PairFlow, pair_occlusion
from fresco.workspace import read_tensors, write_tensors

if TYPE_CHECKING:
    from fresco.flow.interface import FlowEstimator

VERSION = 1
"""Raised when the stored values or the rule of occlusion change."""

log = logging.getLogger("fresco")


class CachedFlow:
    """An estimator that remembers its pairs.

    Flow is rounded to half precision before its first use (a 1/128 of a pixel at 8 pixels), so a
    pair read back is the very same as one just estimated, in half the space.
    """

    def __init__(self, estimator: FlowEstimator, folder: Path) -> None:
        self._estimator, self._folder = estimator, folder
        self.name = estimator.name
        self.note = estimator.note
        self.fingerprint = f"{estimator.fingerprint} cached {VERSION}"

    def estimate(self, source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """See `FlowEstimator.estimate`."""
        pairs = self.estimate_occluded(source, target)
        return pairs.forward, pairs.backward

    def estimate_occluded(self, source: Tensor, target: Tensor) -> PairFlow:
        """See `OcclusionEstimator.estimate_occluded`."""
        found = [
            self._pair(first, second)
            for first, second in zip(source.split(1), target.split(1), strict=True)
        ]
        return PairFlow(*(torch.cat(parts).to(source.device) for parts in zip(*found, strict=True)))

    def _pair(self, source: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        path = self._folder / f"{self._identity(source, target)}.safetensors"
        stored = _read(path, source)
        if stored is not None:
            return stored
        flows = (flow.half().float() for flow in self._estimator.estimate(source, target))
        forward, backward = flows
        masks = pair_occlusion(source.float(), target.float(), forward, backward)
        write_tensors(path, {
            "forward": forward.half(), "backward": backward.half(),
            "forward_occlusion": masks[0].byte(), "backward_occlusion": masks[1].byte(),
        })
        return forward.cpu(), backward.cpu(), masks[0].cpu(), masks[1].cpu()

    def _identity(self, source: Tensor, target: Tensor) -> str:
        sha = hashlib.sha256(self.fingerprint.encode())
        for image in (source, target):
            sha.update(str(tuple(image.shape)).encode())
            sha.update(image.float().cpu().contiguous().numpy().data)
        return sha.hexdigest()[:32]


def _read(path: Path, like: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor] | None:
    if not path.exists():
        return None
    stored = read_tensors(path) or {}
    height, width = like.shape[-2:]
    shapes = {
        "forward": (1, 2, height, width), "backward": (1, 2, height, width),
        "forward_occlusion": (1, height, width), "backward_occlusion": (1, height, width),
    }
    if {name: tuple(value.shape) for name, value in stored.items()} != shapes:
        log.warning("the stored flow %s is damaged and is estimated again", path)
        return None
    forward, backward, off_source, off_target = (stored[name].float() for name in shapes)
    return forward, backward, off_source, off_target
