"""Choose which self-attention layers of a decoder are guided."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from fresco.guidance.ports import Site

_GUIDED_STAGES = 2
"""The finest decoder stages that have self-attention (docs/method.md, section 6)."""


def choose_sites(layers: Sequence[Sequence[nn.Module]]) -> tuple[tuple[Site, nn.Module], ...]:
    """Choose the guided self-attention layers and their sites, in the order they run.

    Args:
        layers: self-attention layers of every decoder stage, coarsest stage first.
    """
    stages = [stage for stage, found in enumerate(layers) if found][-_GUIDED_STAGES:]
    guided = [(stage, layer) for stage in stages for layer in layers[stage]]
    return tuple((Site(stage, index), layer) for index, (stage, layer) in enumerate(guided))
