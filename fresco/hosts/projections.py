"""Linear maps of a self-attention layer, for UNets of every kind."""

from __future__ import annotations

from typing import Any

from torch import Tensor


class LayerProjections:
    """`Projections` of one layer with `to_q`, `to_k` and `to_v`, LoRA and quantisation included."""

    def __init__(self, layer: Any) -> None:
        self._layer = layer

    @property
    def heads(self) -> int:
        """Number of heads."""
        return int(self._layer.heads)

    def query(self, x: Tensor) -> Tensor:
        """[rows, tokens, C] -> [rows, tokens, heads * d]."""
        return self._layer.to_q(x)

    def key(self, x: Tensor) -> Tensor:
        """[rows, tokens, C] -> [rows, tokens, heads * d]."""
        return self._layer.to_k(x)

    def value(self, x: Tensor) -> Tensor:
        """[rows, tokens, C] -> [rows, tokens, heads * d]."""
        return self._layer.to_v(x)

    def output(self, x: Tensor) -> Tensor:
        """[rows, tokens, heads * d] -> [rows, tokens, C]."""
        return self._layer.to_out(x)
