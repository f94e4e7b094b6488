"""Choose how much of a feature is processed at once.

A CPU is as fast frame by frame, which needs the least memory. A graphics card is fastest with few
large operators.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class Portions:
    """Largest amounts of numbers processed at once. A frame, row or channel is never divided."""

    frames: int
    """Numbers in the frames of a group."""
    strip: int
    """Numbers in a strip of Gram matrices, for all frames of a group together."""
    rows: int
    """Rows of a strip. Its part left of the diagonal is computed although it is not needed."""
    channels: int
    """Numbers in the channels that the temporal term processes together."""
    kept: float
    """Memory for strips of the reference's Gram matrices, in bytes for each byte of the chunk in
    float32."""


PROCESSOR = Portions(frames=1 << 21, strip=1 << 20, rows=256, channels=1 << 18, kept=1.48)
"""For a CPU. At 512 x 512 and 8 frames: one frame at a time, and 87 % of the largest stage's strips
are stored."""
CARD = Portions(frames=1 << 25, strip=1 << 24, rows=512, channels=1 << 24, kept=0)
"""For a graphics card. At 512 x 512 and 8 frames: all frames together."""


def find_portions(device: torch.device) -> Portions:
    """Choose the amounts for a device."""
    return PROCESSOR if device.type == "cpu" else CARD


def split(count: int, most: int) -> list[slice]:
    """Split 0..count into as few parts as possible, of nearly equal length, each at most `most`."""
    parts = math.ceil(count / max(1, most))
    bounds = [count * part // parts for part in range(parts + 1)]
    return [slice(first, last) for first, last in itertools.pairwise(bounds)]


def split_frames(frames: int, numbers: int, device: torch.device) -> list[slice]:
    """Split frames, each of which has `numbers` numbers, into groups that suit the device."""
    return split(frames, find_portions(device).frames // numbers)
