"""Small inputs for the tests of guidance."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fresco.flow.occlusion import BidirectionalFlow


class Linears:
    """Random linear maps of an attention layer, as `ports.Projections`."""

    def __init__(self, channels: int, heads: int, dtype: torch.dtype = torch.float32) -> None:
        self.heads = heads
        maps = torch.randn(4, channels, channels, dtype=torch.float32) / channels**0.5
        self._query, self._key, self._value, self._output = maps.to(dtype)

    def query(self, x: Tensor) -> Tensor:
        return x @ self._query

    def key(self, x: Tensor) -> Tensor:
        return x @ self._key

    def value(self, x: Tensor) -> Tensor:
        return x @ self._value

    def output(self, x: Tensor) -> Tensor:
        return x @ self._output


class StoredLinears(Linears):
    """The linear maps of a golden case."""

    def __init__(self, arrays: dict[str, np.ndarray], module: str, heads: int) -> None:
        self.heads = heads
        self._query, self._key, self._value, self._output = (
            torch.from_numpy(arrays[f"{module}.{name}.weight"]).T
            for name in ("to_q", "to_k", "to_v", "to_out.0")
        )
        self._bias = torch.from_numpy(arrays[f"{module}.to_out.0.bias"])

    def output(self, x: Tensor) -> Tensor:
        return super().output(x) + self._bias


def random_ring(frames: int, height: int, width: int, dtype: torch.dtype = torch.float32
                ) -> BidirectionalFlow:
    """Rough motion with a fifth of it occluded."""
    forward, backward = 1.5 * torch.randn(2, frames, 2, height, width, dtype=dtype)
    occlusion = (torch.rand(2, frames, height, width) < 0.2).to(dtype)
    return BidirectionalFlow(forward, backward, occlusion[0], occlusion[1])


def still_ring(frames: int, height: int, width: int) -> BidirectionalFlow:
    """Nothing moves, nothing is hidden."""
    flow = torch.zeros(frames, 2, height, width)
    return BidirectionalFlow(flow, flow.clone(), flow[:, 0].clone(), flow[:, 0].clone())


def stored_ring(arrays: dict[str, np.ndarray]) -> BidirectionalFlow:
    """The ring of a golden case."""
    flows = (arrays[k].astype(np.float32) for k in ("fwd_flows", "bwd_flows"))
    masks = (arrays[k].astype(np.float32) for k in ("fwd_occs", "bwd_occs"))
    return BidirectionalFlow(*map(torch.from_numpy, flows), *map(torch.from_numpy, masks))


def sd15_sigmas() -> tuple[float, ...]:
    """Noise levels of Stable Diffusion 1.5: betas linear in their roots, .00085 to .012."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    kept = torch.cumprod(1 - betas, 0)
    return tuple(((1 - kept) / kept).sqrt().tolist())
