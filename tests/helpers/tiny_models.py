"""Small real networks for tests: the demo's model, frames of a moving square, plain hooks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from demo.make_model import write_model
from fresco.guidance.ports import BatchRequest, Projections, Rows, Site
from fresco.hosts.diffusers.host import DiffusersHost
from fresco.hosts.diffusers.load import load_host
from fresco.settings import SamplingSettings

DECODER_WIDTHS = (128, 128, 128, 128, 128, 128, 128, 64, 64, 64, 32, 32)
"""Channels of the decoder's feature at the input of each of its blocks, three a stage."""


def build_tiny_pipeline(folder: Path, seed: int = 0) -> Path:
    """A diffusers folder of the demo's model."""
    return write_model(folder, seed=seed)


def tiny_host(model: Path, **changes: Any) -> DiffusersHost:
    """A host of three calls on the CPU."""
    values: dict[str, Any] = {
        "model": str(model), "steps": 4, "strength": 0.75, "device": "cpu", "prompt": "a red car",
        "negative_prompt": "blurry", "guidance_scale": 3.0, "seed": 7,
    }
    return load_host(SamplingSettings(**(values | changes)), offline=True)


def square_frames(count: int, size: int = 64) -> NDArray[np.uint8]:
    """[N, size, size, 3]: a bright square that moves right over a slope of grey."""
    slope = np.linspace(40, 160, size).astype(np.uint8)
    frames = np.repeat(np.broadcast_to(slope[:, None], (size, size))[None, ..., None], 3, axis=-1)
    frames = np.repeat(frames, count, axis=0)
    for index in range(count):
        left = 8 + 4 * index
        frames[index, 16:40, left : left + 20] = (220, 60, 40)
    return frames


def tiny_request(count: int = 3, **changes: Any) -> BatchRequest:
    """A first batch of square frames."""
    values: dict[str, Any] = {
        "frames": square_frames(count), "prompts": ("a red car",) * count,
        "negative_prompts": ("blurry",) * count, "carry": None,
    }
    return BatchRequest(**(values | changes))


class PlainHooks:
    """Hooks that change nothing and remember what they were shown."""

    def __init__(self) -> None:
        self.entries: list[tuple[int, tuple[int, ...], Rows]] = []
        self.blocks: list[tuple[int, int, int]] = []
        self.sites: list[Site] = []

    def decoder_entry(self, stage: int, h: Tensor, rows: Rows) -> Tensor:
        """Same as given."""
        self.entries.append((stage, tuple(h.shape), rows))
        return h

    def decoder_block(
        self, stage: int, h: Tensor, skip: Tensor, rows: Rows
    ) -> tuple[Tensor, Tensor]:
        """Same as given."""
        self.blocks.append((stage, h.shape[1], skip.shape[1]))
        return h, skip

    def self_attention(
        self, site: Site, x: Tensor, project: Projections, rows: Rows
    ) -> Tensor | None:
        """The host's own."""
        self.sites.append(site)
        return None


class ShiftedHooks(PlainHooks):
    """Adds one at one place: a stage's entry, or the input or skip of one of its blocks."""

    def __init__(self, place: str, stage: int, block: int = 0) -> None:
        super().__init__()
        self._place, self._at = place, (stage, block)

    def decoder_entry(self, stage: int, h: Tensor, rows: Rows) -> Tensor:
        """Changed, if this is the place."""
        return h + 1 if (self._place, self._at[0]) == ("entry", stage) else h

    def decoder_block(
        self, stage: int, h: Tensor, skip: Tensor, rows: Rows
    ) -> tuple[Tensor, Tensor]:
        """Changed, if this is the place."""
        before = sum(known[0] == stage for known in self.blocks)
        super().decoder_block(stage, h, skip, rows)
        here = (stage, before) == self._at
        return (
            h + 1 if here and self._place == "input" else h,
            skip + 1 if here and self._place == "skip" else skip,
        )
