"""What the reference pass over the source records (docs/method.md, section 5)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from torch import Tensor

from fresco.errors import HostError
from fresco.guidance.gram import normalize_tokens
from fresco.guidance.ports import Chunk, Site

Key = TypeVar("Key", Site, int)


class SpatialReference:
    """The source seen by the model: inputs of attention layers and tokens of decoder features.

    Kept by chunk, so that the host may evaluate both chunks in one call, in two, or only one.
    Memory: at 512 x 512 and 8 frames a chunk holds 84 + 3 * 10.5 MiB or less of float32 tokens
    (HW * C a frame; the 640 x 64 x 64 stage is the largest) and six inputs in the model's dtype.
    """

    def __init__(self, *, inputs: bool, features: bool) -> None:
        """
        Args:
            inputs: keep the inputs of attention layers, which spatial-guided attention reads.
            features: keep the decoder's features, which the spatial consistency loss reads.
        """
        self._keeps_inputs, self._keeps_features = inputs, features
        self._inputs: dict[tuple[Site, Chunk], Tensor] = {}
        self._tokens: dict[tuple[int, Chunk], Tensor] = {}

    @property
    def wanted(self) -> bool:
        """Whether the reference pass has anything to record."""
        return self._keeps_inputs or self._keeps_features

    def clear(self) -> None:
        """Forget the reference pass before."""
        self._inputs.clear()
        self._tokens.clear()

    def record_input(self, site: Site, x: Tensor, chunk: Chunk) -> None:
        """Keep the input [N, HW, C] of an attention layer, if inputs are kept."""
        if self._keeps_inputs:
            self._inputs[site, chunk] = x.detach().clone()

    def record_feature(self, stage: int, h: Tensor, chunk: Chunk) -> None:
        """Keep the unit tokens of a decoder stage's input [N, C, H, W], if features are kept."""
        if self._keeps_features:
            self._tokens[stage, chunk] = normalize_tokens(h)

    def input(self, site: Site, chunk: Chunk) -> Tensor:
        """[N, HW, C] input of an attention layer in the reference pass."""
        return _look_up(self._inputs, (site, chunk), f"attention layer {site.index}")

    def tokens(self, stage: int, chunk: Chunk) -> Tensor:
        """[N, HW, C] float32 unit tokens of a decoder stage in the reference pass."""
        return _look_up(self._tokens, (stage, chunk), f"decoder stage {stage}")


def _look_up(kept: Mapping[tuple[Key, Chunk], Tensor], key: tuple[Key, Chunk], place: str
           ) -> Tensor:
    if key not in kept:
        there = ", ".join(sorted({chunk for _, chunk in kept})) or "none"
        raise HostError(
            f"the reference pass left nothing for {place}, chunk {key[1]} (chunks it has: "
            f"{there}); run it over the chunks that are sampled."
        )
    return kept[key]
