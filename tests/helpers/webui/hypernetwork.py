"""`modules.hypernetworks.hypernetwork`: small networks before keys and values."""

from __future__ import annotations

from typing import Any

from torch import Tensor


def apply_hypernetworks(hypernetworks: list[Any], context: Tensor, layer: Any = None
                        ) -> tuple[Tensor, Tensor]:
    """What keys and what values are made of."""
    keys = values = context
    for network in hypernetworks:
        keys, values = network(keys, values)
    return keys, values
