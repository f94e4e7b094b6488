"""Keep flow and occlusion of pairs on disk, named by a hash of all that they depend on.

torch is imported only when pairs are estimated here, which runs that only propagate do not need.
"""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from fresco.workspace import read_tensors, write_tensors

if TYPE_CHECKING:
    from torch import Tensor

    from fresco.flow.interface import FlowEstimator
    from fresco.flow.occlusion import OccludedFlow

VERSION = 1
"""Raised when the stored values or the rule of occlusion change."""

log = logging.getLogger("fresco")


class CachedEstimator:
    """An estimator that stores the pairs it has estimated on disk.

    Flow is rounded to half precision before its first use (a 1/128 of a pixel at 8 pixels), so a
    pair that is read back equals one just estimated, in half the space.
    """

    def __init__(self, estimator: FlowEstimator, folder: Path) -> None:
        self._estimator, self._folder = estimator, folder
        self.name = estimator.name
        self.device = estimator.device
        self.note = estimator.note
        self.fingerprint = f"{estimator.fingerprint} cached {VERSION}"
        self.former_fingerprint = f"{estimator.former_fingerprint} cached {VERSION}"

    def estimate(self, source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """See `FlowEstimator.estimate`."""
        pairs = self.estimate_with_occlusion(source, target)
        return pairs.forward, pairs.backward

    def estimate_with_occlusion(self, source: Tensor, target: Tensor) -> OccludedFlow:
        """See `OcclusionEstimator.estimate_with_occlusion`."""
        import torch

        from fresco.flow.occlusion import OccludedFlow

        found = [
            self._read_or_estimate(first, second)
            for first, second in zip(source.split(1), target.split(1), strict=True)
        ]
        columns = zip(*found, strict=True)
        return OccludedFlow(*(torch.cat(parts).to(source.device) for parts in columns))

    def _read_or_estimate(self, source: Tensor, target: Tensor) -> OccludedFlow:
        from fresco.flow.occlusion import OccludedFlow, judge_pairs

        path = self._folder / f"{self._cache_key(source, target)}.safetensors"
        stored = _read_pair(path, source)
        if stored is not None:
            return stored
        flows = (flow.half().float() for flow in self._estimator.estimate(source, target))
        found = judge_pairs(source.float(), target.float(), *flows)
        write_tensors(path, {
            "forward": found.forward.half(), "backward": found.backward.half(),
            "forward_occlusion": found.forward_occlusion.byte(),
            "backward_occlusion": found.backward_occlusion.byte(),
        })
        return OccludedFlow(*(part.cpu() for part in found))

    def _cache_key(self, source: Tensor, target: Tensor) -> str:
        sha = hashlib.sha256(self.fingerprint.encode())
        for image in (source, target):
            sha.update(str(tuple(image.shape)).encode())
            sha.update(image.float().cpu().contiguous().numpy().data)
        return sha.hexdigest()[:32]


def _read_pair(path: Path, like: Tensor) -> OccludedFlow | None:
    from fresco.flow.occlusion import OccludedFlow

    if not path.exists():
        return None
    stored = read_tensors(path) or {}
    height, width = like.shape[-2:]
    shapes = {
        "forward": (1, 2, height, width), "backward": (1, 2, height, width),
        "forward_occlusion": (1, height, width), "backward_occlusion": (1, height, width),
    }
    whole = {name: tuple(value.shape) for name, value in stored.items()} == shapes
    if not whole or not all(bool(value.isfinite().all()) for value in stored.values()):
        log.warning("the stored flow %s is damaged and is estimated again", path)
        return None
    return OccludedFlow(*(stored[name].float() for name in shapes))
